//! UDP sockets on the private interface, and nowhere else: a port in, a socket out, or the reason
//! why not in words that say what to do.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};

use crate::name::IfName;

/// A rack that is switched on sends all its requests within a second.
const BUFFER: usize = 4 * 1024 * 1024;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "UDP port {port} is taken{}; stop that service on this machine, or keep it off {interface}",
        owner.as_ref().map(|owner| format!(" by {owner}")).unwrap_or_default()
    )]
    Taken {
        /// The port.
        port: u16,
        /// Our interface.
        interface: IfName,
        /// The program, when we may see it.
        owner: Option<Owner>,
    },
    /// Missing privileges.
    #[error("UDP port {port} may not be opened by this user; run as root, or as the service does")]
    Denied {
        /// The port.
        port: u16,
    },
    /// There is no such interface.
    #[error("there is no network interface {interface}; `ip link` lists them")]
    NoInterface {
        /// Its name.
        interface: IfName,
    },
    /// The interface does not have our address.
    #[error("{interface} does not have the address {address}; `ip addr` shows what it has")]
    NoAddress {
        /// Our interface.
        interface: IfName,
        /// The address.
        address: Ipv4Addr,
    },
    /// Anything else.
    #[error("UDP port {port} on {interface} cannot be opened: {source}")]
    Other {
        /// The port.
        port: u16,
        /// Our interface.
        interface: IfName,
        /// What the kernel says.
        source: io::Error,
    },
}

/// A program that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Opens a socket that hears and reaches `interface` only. Never shared: of two servers on one
/// port each would get some of the packets.
pub fn open(interface: &IfName, at: SocketAddrV4) -> Result<UdpSocket, BindError> {
    try_open(interface, at).map_err(|source| explain(interface, at, source))
}

fn try_open(interface: &IfName, at: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), None)?;
    socket.bind_device(Some(interface.as_str().as_bytes()))?;
    socket.bind(&SocketAddr::V4(at).into())?;
    // The forced size needs CAP_NET_ADMIN; without it the system's limit has to do.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    Ok(socket.into())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only what has advice is told apart")]
fn explain(interface: &IfName, at: SocketAddrV4, source: io::Error) -> BindError {
    use io::ErrorKind as Kind;
    let (interface, port) = (interface.clone(), at.port());
    match source.kind() {
        Kind::AddrInUse => BindError::Taken { port, interface, owner: owner_of(port) },
        Kind::PermissionDenied => BindError::Denied { port },
        Kind::AddrNotAvailable => BindError::NoAddress { interface, address: *at.ip() },
        _ if source.raw_os_error() == Some(nix::libc::ENODEV) => {
            BindError::NoInterface { interface }
        }
        _ => BindError::Other { port, interface, source },
    }
}

/// The program that has UDP `port`, as far as /proc lets us see.
pub fn owner_of(port: u16) -> Option<Owner> {
    let table = fs::read_to_string("/proc/self/net/udp").ok()?;
    let sockets: Vec<_> =
        inodes(&table, port).into_iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.map(|process| process.path()).find_map(|path| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        holds(&path, &sockets).then(|| {
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            Owner { name: name.trim_end().to_owned(), pid }
        })
    })
}

fn holds(process: &Path, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

/// The sockets bound to `port` in the text of /proc/net/udp.
fn inodes(table: &str, port: u16) -> Vec<u64> {
    let inode = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (_, bound) = fields.nth(1)?.split_once(':')?;
        (u16::from_str_radix(bound, 16).ok()? == port).then_some(())?;
        fields.nth(7)?.parse().ok()
    };
    table.lines().skip(1).filter_map(inode).collect()
}

#[cfg(test)]
mod tests;
