//! A socket that sends raw packets out of a device, with offload headers (packet(7)).
#![expect(unsafe_code, reason = "nix has neither the address nor the option")]

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, sendto, socket};

use router_common::frame::VnetHeader;

const PACKET_VNET_HDR: libc::c_int = 15;
/// The header without `num_buffers`.
const VNET_LEN: usize = 10;

pub(crate) struct PacketSocket {
    fd: OwnedFd,
    device: u32,
}

impl PacketSocket {
    pub(crate) fn open(device: u32) -> Result<Self> {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
            .context("cannot open a packet socket")?;
        let yes: libc::c_int = 1;
        // SAFETY: the kernel reads one int through the pointer.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_VNET_HDR,
                (&raw const yes).cast(),
                size_of_val(&yes) as libc::socklen_t,
            )
        };
        Errno::result(set).context("cannot turn on offload headers")?;
        Ok(Self { fd, device })
    }

    pub(crate) fn send(&self, packet: &[u8]) -> Result<(), Errno> {
        self.send_offloaded(&VnetHeader::default(), packet)
    }

    pub(crate) fn send_offloaded(&self, offload: &VnetHeader, packet: &[u8]) -> Result<(), Errno> {
        let bytes = [&bytemuck::bytes_of(offload)[..VNET_LEN], packet].concat();
        let to = self.address(packet);
        let sent = sendto(self.fd.as_raw_fd(), &bytes, &to, MsgFlags::MSG_DONTWAIT)?;
        assert_eq!(sent, bytes.len());
        Ok(())
    }

    /// The protocol is that of the packet, or of the frame.
    fn address(&self, packet: &[u8]) -> LinkAddr {
        let protocol = match packet {
            [first, ..] if first >> 4 == 6 => libc::ETH_P_IPV6 as u16,
            [first, ..] if first >> 4 == 0 => u16::from_be_bytes([packet[12], packet[13]]),
            _ => libc::ETH_P_IP as u16,
        };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: self.device as i32,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: points to a whole sockaddr_ll, whose family and length are right.
        let address =
            unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(size_of_val(&address) as u32)) };
        address.expect("an address of the packet family")
    }
}
