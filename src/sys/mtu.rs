//! Letting packets be cut on their way, which no crate has a socket option for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// Sends without the don't-fragment bit: option ROMs and old switches cannot answer path MTU
/// discovery.
pub fn allow_fragments(socket: BorrowedFd<'_>) -> io::Result<()> {
    let value: libc::c_int = libc::IP_PMTUDISC_DONT;
    let len = u32::try_from(size_of_val(&value)).unwrap_or_default();
    let fd = socket.as_raw_fd();
    // SAFETY: the pointer is to `len` readable bytes that outlive the call, which keeps nothing.
    let done = unsafe {
        let (level, option) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
        libc::setsockopt(fd, level, option, (&raw const value).cast(), len)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
