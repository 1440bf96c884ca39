//! Reasons as counters: each has a place and a name of its own.

use std::collections::HashSet;

use router_common::reason::Reason;

#[test]
fn every_reason_stands_at_its_own_counter() {
    let places: Vec<u32> = Reason::ALL.iter().map(|reason| *reason as u32).collect();

    assert_eq!(places, (0..Reason::COUNT).collect::<Vec<_>>());
}

#[test]
fn no_two_reasons_have_one_name() {
    let names: HashSet<&str> = Reason::ALL.into_iter().map(Reason::name).collect();

    assert_eq!(names.len(), Reason::ALL.len());
}
