//! Telling the kernel which card an address belongs to, before its owner can be asked.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use crate::mac::Mac;
use crate::name::IfName;

/// Linux's number for it, the same on every architecture; libc names it on some only.
const SIOCSARP: nix::sys::ioctl::ioctl_num_type = 0x8955;

nix::ioctl_write_ptr_bad!(
    /// `ioctl(SIOCSARP)`, see arp(7).
    set_arp_entry,
    SIOCSARP,
    libc::arpreq
);

/// Enters `ip` at `mac` into the neighbour table of `interface`. The entry ages like any other.
/// Needs `CAP_NET_ADMIN`.
pub fn set(socket: BorrowedFd<'_>, interface: &IfName, ip: Ipv4Addr, mac: Mac) -> nix::Result<()> {
    // SAFETY: arpreq is plain numbers and arrays of them; all zeros is a valid value.
    let mut request: libc::arpreq = unsafe { std::mem::zeroed() };
    request.arp_pa.sa_family = libc::AF_INET.try_into().unwrap_or_default();
    // A sockaddr_in keeps its address behind two bytes of port.
    fill(request.arp_pa.sa_data.iter_mut().skip(2), &ip.octets());
    request.arp_ha.sa_family = libc::ARPHRD_ETHER;
    fill(request.arp_ha.sa_data.iter_mut(), &mac.octets());
    request.arp_flags = libc::ATF_COM;
    // The name has at most 15 bytes, so a NUL stays behind it.
    fill(request.arp_dev.iter_mut(), interface.as_str().as_bytes());
    // SAFETY: the request outlives the call, which reads it and writes nothing.
    unsafe { set_arp_entry(socket.as_raw_fd(), &raw const request) }.map(drop)
}

fn fill<'a>(places: impl Iterator<Item = &'a mut libc::c_char>, bytes: &[u8]) {
    for (place, byte) in places.zip(bytes) {
        *place = libc::c_char::from_ne_bytes([*byte]);
    }
}
