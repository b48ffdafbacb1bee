//! The sockets of the TFTP server: port 69, and one socket for each transfer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::udp::{self, BindError};
use crate::name::IfName;
use crate::sys::mtu;
use crate::tftp::transfer::Content;
use crate::tftp::{Finished, Server, Step, TransferId};

const PORT: u16 = 69;
/// The largest frame a client can send us a request in.
const DATAGRAM_MAX: usize = 1500;

/// Port 69 of our address on the private interface.
#[derive(Debug)]
pub struct TftpSocket {
    socket: UdpSocket,
    interface: IfName,
    address: Ipv4Addr,
}

impl TftpSocket {
    /// Opens it.
    pub fn bind(interface: &IfName, address: Ipv4Addr) -> Result<Self, BindError> {
        let socket = udp::open(interface, SocketAddrV4::new(address, PORT))?;
        let socket = UdpSocket::from_std(socket).map_err(|source| BindError::Other {
            port: PORT,
            interface: interface.clone(),
            source,
        })?;
        Ok(Self { socket, interface: interface.clone(), address })
    }

    /// A socket that exchanges datagrams with `peer` only. The kernel then drops what others
    /// send, and tells when the peer's port is closed.
    fn transfer_to(&self, peer: SocketAddrV4) -> io::Result<UdpSocket> {
        let at = SocketAddrV4::new(self.address, 0);
        let socket = udp::open(&self.interface, at).map_err(io::Error::other)?;
        mtu::allow_fragments(socket.as_fd())?;
        socket.connect(peer)?;
        UdpSocket::from_std(socket)
    }
}

/// What the tasks share.
struct Shared {
    server: Mutex<Server>,
    started: Instant,
}

impl Shared {
    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What the sockets ask the core.
pub trait Core {
    /// The file of that name, as that machine may have it. When it comes, what must be on the disk before is there.
    fn find(
        &self,
        name: &str,
        peer: Ipv4Addr,
    ) -> impl Future<Output = Option<Arc<dyn Content>>> + Send;

    /// A transfer has ended.
    fn finished(&self, finished: Finished);
}

/// A file that is read as it is sent.
#[derive(Debug)]
pub struct OnDisk {
    file: File,
    len: usize,
}

impl OnDisk {
    /// Of so many bytes; `None` when no address space has room for them.
    pub fn new(file: File, len: u64) -> Option<Self> {
        Some(Self { file, len: usize::try_from(len).ok()? })
    }
}

impl Content for OnDisk {
    fn len(&self) -> usize {
        self.len
    }

    fn read(&self, offset: usize, buffer: &mut [u8]) -> Option<()> {
        self.file.read_exact_at(buffer, u64::try_from(offset).ok()?).ok()
    }
}

/// Serves until it is dropped, or port 69 breaks; dropping ends all transfers.
pub async fn run(socket: TftpSocket, core: impl Core) -> io::Result<Infallible> {
    let server = Mutex::new(Server::default());
    let shared = Arc::new(Shared { server, started: Instant::now() });
    let mut nudges: BTreeMap<TransferId, Arc<Notify>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let (len, from) = tokio::select! {
            received = socket.socket.recv_from(&mut buffer) => match received {
                Ok((len, SocketAddr::V4(from))) => (len, from),
                Ok((_, SocketAddr::V6(_))) => continue,
                // Said of an earlier refusal of ours, or of a cable that is out.
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            },
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                let Ok(id) = ended else { continue };
                nudges.remove(&id);
                let finished = shared.server().finish(id);
                if let Some(finished) = finished {
                    core.finished(finished);
                }
                continue;
            }
        };
        let bytes = buffer.get(..len).unwrap_or_default();
        let now = shared.now();
        let mut step = shared.server().handle_request(bytes, from, now);
        if let Step::Find(wanted) = step {
            step = match core.find(&wanted.name, *from.ip()).await {
                Some(content) => shared.server().open(wanted, content, shared.now()),
                None => wanted.refuse(),
            };
        }
        match step {
            Step::Start { id, ended } => {
                for nudge in ended.iter().filter_map(|id| nudges.get(id)) {
                    nudge.notify_one();
                }
                let nudge = Arc::new(Notify::new());
                nudges.insert(id, Arc::clone(&nudge));
                let (peer, shared) = (socket.transfer_to(from), Arc::clone(&shared));
                tasks.spawn(transfer(id, peer, nudge, shared));
            }
            Step::Again(id) => {
                if let Some(nudge) = nudges.get(&id) {
                    nudge.notify_one();
                }
            }
            Step::Refuse { bytes, name } => {
                tracing::debug!(%from, name, "TFTP request refused");
                if let Err(error) = socket.socket.try_send_to(&bytes, from.into()) {
                    tracing::debug!(%from, %error, "TFTP refusal was not sent");
                }
            }
            // Asked and answered above.
            Step::Find(_) => {}
            Step::Drop(why) => tracing::debug!(%from, %why, "TFTP datagram dropped"),
        }
    }
}

/// Runs one transfer to its end.
async fn transfer(
    id: TransferId,
    socket: io::Result<UdpSocket>,
    nudge: Arc<Notify>,
    shared: Arc<Shared>,
) -> TransferId {
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "no socket for a TFTP transfer");
            return id;
        }
    };
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        if let Err(error) = send_all(id, &socket, &shared).await {
            tracing::debug!(%error, "TFTP data was not sent");
        }
        let Some(deadline) = shared.server().poll_timeout(id) else { return id };
        tokio::select! {
            received = socket.recv(&mut buffer) => match received {
                Ok(len) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    let now = shared.now();
                    shared.server().handle_packet(id, bytes, now);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    shared.server().handle_closed(id);
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    tracing::debug!(%error, "TFTP transfer broke off");
                    return id;
                }
            },
            () = sleep_until(shared.started + deadline) => {
                let now = shared.now();
                shared.server().handle_timeout(id, now);
            }
            () = nudge.notified() => {}
        }
    }
}

async fn send_all(id: TransferId, socket: &UdpSocket, shared: &Shared) -> io::Result<()> {
    loop {
        // Its own statement: the lock is not held while sending.
        let next = shared.server().poll_transmit(id);
        let Some(bytes) = next else { return Ok(()) };
        match socket.send(&bytes).await {
            // What is refused is said again when receiving.
            Err(error) if !is_passing(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Errors that say something about one datagram or the moment, not about the socket.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::Interrupted
    )
}
