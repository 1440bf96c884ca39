//! Marks the map types as plain data for aya.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe trait")]

use crate::flow_entry::FlowEntry;
use crate::flow_key::FlowKey;
use crate::gateway::Gateway;
use crate::settings::Settings;
use crate::skb_layout::SkbLayout;

// SAFETY: repr(C), fixed-width integers only, no implicit padding (bytemuck's derive checks it).
unsafe impl aya::Pod for FlowEntry {}
// SAFETY: as above.
unsafe impl aya::Pod for FlowKey {}
// SAFETY: as above.
unsafe impl aya::Pod for Settings {}
// SAFETY: as above.
unsafe impl aya::Pod for Gateway {}
// SAFETY: as above.
unsafe impl aya::Pod for SkbLayout {}
