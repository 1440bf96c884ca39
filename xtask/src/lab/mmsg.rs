//! Many packets with one system call.
#![expect(
    unsafe_code,
    reason = "sendmmsg and recvmmsg take arrays of headers with pointers"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// The most packets of one call.
pub const BATCH: usize = 64;

/// Sends packets, at most [`BATCH`]; returns how many went out, which is not 0.
///
/// # Errors
/// When the first of them cannot be sent.
pub fn send(socket: BorrowedFd<'_>, packets: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut headers = empty_headers();
    for (header, packet) in headers.iter_mut().zip(packets) {
        // The kernel reads what it sends, so the pointer may come from a shared reference.
        header.msg_hdr.msg_iov = (&raw const *packet).cast_mut().cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    let n_packets = packets.len().min(BATCH) as libc::c_uint;
    // SAFETY: the first `n_packets` headers each name one IoSlice, which has the layout of iovec and outlives the call.
    let n_sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), n_packets, 0) };
    count(n_sent)
}

/// Receives packets into buffers, at most [`BATCH`], and tells the length of each; waits for the first if told so.
///
/// # Errors
/// When there is no packet, or none within the socket's timeout.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    wait: bool,
) -> io::Result<impl Iterator<Item = usize> + use<>> {
    let mut headers = empty_headers();
    for (header, buffer) in headers.iter_mut().zip(buffers.iter_mut()) {
        header.msg_hdr.msg_iov = (&raw mut *buffer).cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    let n_buffers = buffers.len().min(BATCH) as libc::c_uint;
    let flags = if wait {
        libc::MSG_WAITFORONE
    } else {
        libc::MSG_DONTWAIT
    };
    let timeout = std::ptr::null_mut();
    // SAFETY: the first `n_buffers` headers each name one IoSliceMut, which has the layout of iovec, is borrowed
    // exclusively and outlives the call.
    let n_received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            n_buffers,
            flags,
            timeout,
        )
    };
    let n_received = count(n_received)?;
    Ok(headers
        .into_iter()
        .take(n_received)
        .map(|header| header.msg_len as usize))
}

fn empty_headers() -> [libc::mmsghdr; BATCH] {
    // SAFETY: a header is integers and pointers, for which zero is a value: no address, no buffer, no flags.
    unsafe { mem::zeroed() }
}

fn count(returned: libc::c_int) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn packets_arrive_with_their_lengths() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let packets = [IoSlice::new(b"one"), IoSlice::new(b"three")];

        let n_sent = send(sender.as_fd(), &packets).unwrap();

        let mut bytes = [[0; 16]; 3];
        let mut buffers: Vec<IoSliceMut<'_>> = bytes.iter_mut().map(|one| IoSliceMut::new(one)).collect();
        let lengths: Vec<usize> = receive(receiver.as_fd(), &mut buffers, true).unwrap().collect();
        assert_eq!((n_sent, lengths), (2, vec![3, 5]));
        assert_eq!(&bytes[1][..5], b"three");
        let mut buffers = [IoSliceMut::new(&mut bytes[0])];
        let error = receive(receiver.as_fd(), &mut buffers, false).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
