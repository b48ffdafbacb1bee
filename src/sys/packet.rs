//! Whole Ethernet frames of one card, for looking at a wire.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::name::IfName;

/// A card's frames, as they come and go (packet(7)). Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct Frames(Socket);

impl Frames {
    /// Opens the card, also for frames to the group address `group`. `patience`: how long one waits for a frame.
    pub fn open(card: &IfName, group: [u8; 6], patience: Duration) -> io::Result<Self> {
        let (socket, index) = at(card, Type::RAW, libc::ETH_P_ALL)?;
        socket.set_read_timeout(Some(patience))?;
        let mut member = libc::packet_mreq {
            mr_ifindex: index,
            mr_type: libc::PACKET_MR_MULTICAST.try_into().unwrap_or_default(),
            mr_alen: 6,
            mr_address: [0; 8],
        };
        member.mr_address.iter_mut().zip(group).for_each(|(place, byte)| *place = byte);
        let len = u32::try_from(size_of_val(&member)).unwrap_or_default();
        // SAFETY: the pointer is to `len` readable bytes that outlive the call, which keeps nothing.
        let done = unsafe {
            let (level, option) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
            let value = (&raw const member).cast();
            libc::setsockopt(socket.as_raw_fd(), level, option, value, len)
        };
        if done == 0 { Ok(Self(socket)) } else { Err(io::Error::last_os_error()) }
    }

    /// Opens the card for its ARP frames alone, within tokio's runtime. None is waited for by the frames themselves.
    pub fn arp(card: &IfName) -> io::Result<AsyncFd<Self>> {
        let (socket, _) = at(card, Type::RAW.nonblocking(), libc::ETH_P_ARP)?;
        // SAFETY: the socket is ours alone, is open until the frames are dropped, and is never exchanged.
        Ok(unsafe { AsyncFd::register(Self(socket)) }?)
    }

    /// Opens the card for those of its IPv4 frames that `filter` lets through, before any packet filter of the system or
    /// its idea of a sensible source sees them.
    pub fn ipv4(card: &IfName, filter: &[SockFilter]) -> io::Result<Self> {
        let (socket, _) = at(card, Type::RAW, libc::ETH_P_IP)?;
        socket.attach_filter(filter)?;
        Ok(Self(socket))
    }

    /// How long one waits for a frame from now on; not at all would mean for ever.
    pub fn wait_for(&self, patience: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(patience.max(Duration::from_millis(1))))
    }

    /// Sends a frame, header and all.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.0).write_all(frame)
    }

    /// The next frame's length; what does not fit into `buffer` is cut off.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
}

impl AsRawFd for Frames {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A socket for the frames of one protocol on one card, and the card's number.
fn at(card: &IfName, kind: Type, protocol: libc::c_int) -> io::Result<(Socket, libc::c_int)> {
    let index = nix::net::if_::if_nametoindex(card.as_str())?;
    let index = libc::c_int::try_from(index).map_err(io::Error::other)?;
    let protocol = u16::try_from(protocol).unwrap_or_default().to_be();
    // Nothing arrives before it is bound to the card: no protocol yet.
    let socket = Socket::new(Domain::PACKET, kind.cloexec(), None::<Protocol>)?;
    let link = |address: &mut libc::sockaddr_ll| {
        address.sll_family = libc::AF_PACKET.try_into().unwrap_or_default();
        address.sll_protocol = protocol;
        address.sll_ifindex = index;
    };
    // SAFETY: the storage is zeroed, aligned for and at least as long as any sockaddr; sockaddr_ll is plain
    // numbers, and the length that is given back is its own.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, len| {
            link(&mut *storage.cast::<libc::sockaddr_ll>());
            *len = size_of::<libc::sockaddr_ll>().try_into().unwrap_or_default();
            Ok(())
        })
    }?;
    socket.bind(&address)?;
    Ok((socket, index))
}
