//! The node end to end: real processes in network namespaces that each test makes for itself. Needs root.

mod capture;
mod commands;
mod discovery;
mod doctor;
mod exit;
mod first_packets;
mod gateway;
mod hostile;
mod http;
mod join;
mod lifecycle;
mod links;
mod metrics;
mod order;
mod overlays;
mod package;
mod paths;
mod peers;
mod reload;
mod service;
mod streams;
mod support;
mod top;
mod traffic;
mod workers;
