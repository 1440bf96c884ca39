//! Changes of the host that come faster than they are read.

use std::io::Write;
use std::process::{Command, Stdio};

use rtnetlink::sys::AsyncSocket;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::host_changes::open;
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// More changes than any of these tests makes.
const ROOM: usize = 4096;

/// Adds routes to the device while nothing else runs on this thread.
fn burst(device: &str, n: u8) {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = ip.stdin.take().unwrap();
    for host in 0..n {
        writeln!(lines, "route add 10.77.0.{host}/32 dev {device}").unwrap();
    }
    drop(lines);
    assert!(ip.wait().unwrap().success());
}

#[test]
fn changes_that_the_socket_has_no_room_for_are_told_of_as_anything_and_later_ones_one_by_one() {
    in_netns(async || {
        let device = started(&[]).await;
        let (sender, mut told) = mpsc::channel(ROOM);
        let small = || {
            let mut opened = open()?;
            opened.0.socket_mut().socket_mut().set_rx_buf_sz(1_i32)?;
            Ok(opened)
        };
        let _changes =
            HostChanges::follow(small, move |change| sender.try_send(change).expect("room")).unwrap();
        let mut next = async || timeout(LIMIT, told.recv()).await.expect("it is told").unwrap();

        burst("sr0", 250);

        let mut n_told = 0;
        while next().await != HostChange::Anything {
            n_told += 1;
        }
        assert!(n_told < 250, "nothing was lost");
        device.add_route("192.168.7.0/24".parse().unwrap()).await.unwrap();
        let output = Some(device.index());
        while next().await != (HostChange::Route { output }) {}
    });
}

#[test]
fn a_subscription_that_ends_is_made_anew_and_then_anything_may_have_changed() {
    in_netns(async || {
        let device = started(&[]).await;
        let (sender, mut told) = mpsc::channel(ROOM);
        let mut is_first = true;
        let once_closed = move || {
            let mut opened = open()?;
            if std::mem::take(&mut is_first) {
                opened.2.close();
            }
            Ok(opened)
        };
        let _changes =
            HostChanges::follow(once_closed, move |change| sender.try_send(change).expect("room")).unwrap();
        let mut next = async || timeout(LIMIT, told.recv()).await.expect("it is told").unwrap();

        assert_eq!(next().await, HostChange::Anything);
        device.add_route("192.168.7.0/24".parse().unwrap()).await.unwrap();
        let output = Some(device.index());
        while next().await != (HostChange::Route { output }) {}
    });
}
