//! The sockets of the TFTP server: port 69, and one socket for each transfer.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::udp::{self, BindError};
use crate::name::IfName;
use crate::sys::mtu;
use crate::tftp::transfer::Content;
use crate::tftp::{Finished, Server, Step, TRANSFERS_MAX, TransferId, Wanted};

const PORT: u16 = 69;
/// The largest frame a client can send us a request in.
const DATAGRAM_MAX: usize = 1500;

/// Bytes that the kernel reads ahead in one go, at least.
const AHEAD: usize = 128 * 1024;

/// Port 69 of our address on the private interface.
#[derive(Debug)]
pub struct TftpSocket {
    socket: std::net::UdpSocket,
    interface: IfName,
    address: Ipv4Addr,
}

impl TftpSocket {
    /// Opens it.
    pub fn bind(interface: &IfName, address: Ipv4Addr) -> Result<Self, BindError> {
        let socket = udp::open(interface, SocketAddrV4::new(address, PORT))?;
        Ok(Self { socket, interface: interface.clone(), address })
    }
}

/// The only place we send from.
struct Place {
    interface: IfName,
    address: Ipv4Addr,
    /// Whether the card takes a whole window at once. Some drivers cannot cut it up.
    takes_bursts: AtomicBool,
}

impl Place {
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
pub trait Core: Clone + Send + 'static {
    /// The file of that name, as that machine may have it. When it comes, what must be on the disk before is there.
    fn find(&self, name: &str, peer: Ipv4Addr) -> impl Future<Output = Found> + Send;

    /// A transfer has ended.
    fn finished(&self, finished: Finished);
}

/// What came of the search for a file.
#[derive(Debug)]
pub enum Found {
    /// This.
    Content(Arc<dyn Content>),
    /// This text.
    Text(String),
    /// There is none: said at once, because clients wait for that.
    Absent,
    /// Perhaps the next time: nothing is said, because clients ask again, and take an error for the last word.
    NotNow,
}

/// A file that is read as it is sent.
#[derive(Debug)]
pub struct OnDisk {
    file: File,
    len: usize,
}

impl OnDisk {
    /// Of so many bytes; `None` when no address space has room for them. Waits for the disk to take the wish to have
    /// all of it in memory before it is asked for.
    pub fn new(file: File, len: u64) -> Option<Self> {
        let len = usize::try_from(len).ok()?;
        let advice = PosixFadviseAdvice::POSIX_FADV_WILLNEED;
        // One wish is cut off at what the kernel reads ahead at most.
        for first in (0..len).step_by(AHEAD) {
            let (first, size) = (first.try_into().ok()?, AHEAD.try_into().ok()?);
            if let Err(error) = posix_fadvise(&file, first, size, advice) {
                tracing::debug!(%error, "a file is read only when it is asked for");
                break;
            }
        }
        Some(Self { file, len })
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
    let TftpSocket { socket, interface, address } = socket;
    let place = Place { interface, address, takes_bursts: AtomicBool::new(true) };
    let shared = Shared { server: Mutex::new(Server::default()), started: Instant::now() };
    let port = Port {
        socket: UdpSocket::from_std(socket)?,
        core,
        place: Arc::new(place),
        shared: Arc::new(shared),
        nudges: BTreeMap::new(),
        searching: BTreeSet::new(),
        tasks: JoinSet::new(),
    };
    port.run().await
}

/// Port 69, and what came of it.
struct Port<C> {
    socket: UdpSocket,
    core: C,
    place: Arc<Place>,
    shared: Arc<Shared>,
    nudges: BTreeMap<TransferId, Arc<Notify>>,
    /// For whom a file is looked for. Who asks again meanwhile meets silence: what is handed out may be counted.
    searching: BTreeSet<SocketAddrV4>,
    tasks: JoinSet<Ended>,
}

/// What the tasks of port 69 end with.
enum Ended {
    /// A file was looked for.
    Search(Wanted, Found),
    /// A transfer is over.
    Transfer(TransferId),
}

impl<C: Core> Port<C> {
    async fn run(mut self) -> io::Result<Infallible> {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((len, SocketAddr::V4(from))) => {
                        let bytes = buffer.get(..len).unwrap_or_default();
                        let now = self.shared.now();
                        let step = self.shared.server().handle_request(bytes, from, now);
                        self.take(step, from);
                    }
                    Ok((_, SocketAddr::V6(_))) => {}
                    // Said of an earlier refusal of ours, or of a cable that is out.
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                },
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => match ended {
                    Ok(Ended::Search(wanted, found)) => self.open(wanted, found),
                    Ok(Ended::Transfer(id)) => self.forget(id),
                    Err(error) => {
                        tracing::error!(%error, "a part of the TFTP server broke");
                        // Whose search it was is not known; at worst another one is made twice.
                        self.searching.clear();
                    }
                },
            }
        }
    }

    fn take(&mut self, step: Step, from: SocketAddrV4) {
        match step {
            Step::Find(wanted) => self.search(wanted),
            Step::Start { id, ended } => {
                ended.iter().for_each(|id| self.nudge(*id));
                let nudge = Arc::new(Notify::new());
                self.nudges.insert(id, Arc::clone(&nudge));
                let (place, shared) = (Arc::clone(&self.place), Arc::clone(&self.shared));
                let transfer = transfer(id, from, place, nudge, shared);
                self.tasks.spawn(async move { Ended::Transfer(transfer.await) });
            }
            Step::Again(id) => self.nudge(id),
            Step::Refuse { bytes, name } => {
                tracing::debug!(%from, name, "TFTP request refused");
                if let Err(error) = self.socket.try_send_to(&bytes, from.into()) {
                    tracing::debug!(%from, %error, "TFTP refusal was not sent");
                }
            }
            Step::Drop(why) => tracing::debug!(%from, %why, "TFTP datagram dropped"),
        }
    }

    /// A search may wait for the disk; the port does not.
    fn search(&mut self, wanted: Wanted) {
        if self.searching.len() < TRANSFERS_MAX && self.searching.insert(wanted.from) {
            let core = self.core.clone();
            let mut search = Box::pin(async move {
                let found = core.find(&wanted.name, *wanted.from.ip()).await;
                (wanted, found)
            });
            // What is in memory needs no task.
            let at_once = search.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready((wanted, found)) = at_once {
                self.open(wanted, found);
            } else {
                self.tasks.spawn(async move {
                    let (wanted, found) = search.await;
                    Ended::Search(wanted, found)
                });
            }
        }
    }

    fn open(&mut self, wanted: Wanted, found: Found) {
        let from = wanted.from;
        self.searching.remove(&from);
        let now = self.shared.now();
        let step = match found {
            Found::Content(content) => self.shared.server().open(wanted, content, now),
            Found::Text(text) => {
                let content = Arc::new(wanted.encode(&text));
                self.shared.server().open(wanted, content, now)
            }
            Found::Absent => wanted.refuse(),
            Found::NotNow => return tracing::debug!(%from, name = wanted.name, "not now"),
        };
        self.take(step, from);
    }

    fn nudge(&self, id: TransferId) {
        if let Some(nudge) = self.nudges.get(&id) {
            nudge.notify_one();
        }
    }

    fn forget(&mut self, id: TransferId) {
        self.nudges.remove(&id);
        // Its own statement: the lock is not held while the core takes note.
        let finished = self.shared.server().finish(id);
        if let Some(finished) = finished {
            self.core.finished(finished);
        }
    }
}

/// Runs one transfer to its end.
async fn transfer(
    id: TransferId,
    peer: SocketAddrV4,
    place: Arc<Place>,
    nudge: Arc<Notify>,
    shared: Arc<Shared>,
) -> TransferId {
    let socket = match place.transfer_to(peer) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "no socket for a TFTP transfer");
            return id;
        }
    };
    let mut buffer = vec![0; DATAGRAM_MAX];
    let mut out = Vec::new();
    let mut alarm = pin!(sleep_until(shared.started));
    loop {
        if let Err(error) = send_all(id, &socket, &place, &shared, &mut out).await {
            tracing::debug!(%error, "TFTP data was not sent");
        }
        let Some(deadline) = shared.server().poll_timeout(id) else { return id };
        // Each ACK moves the deadline on. An alarm that comes too early is cheaper than to set it every time.
        let deadline = shared.started + deadline;
        if alarm.is_elapsed() || deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        tokio::select! {
            biased;
            received = socket.recv(&mut buffer) => match received {
                Ok(len) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    let now = shared.now();
                    if shared.server().handle_packet(id, bytes, now) {
                        rest(&socket);
                    }
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
            () = &mut alarm => {
                let now = shared.now();
                shared.server().handle_timeout(id, now);
            }
            () = nudge.notified() => {}
        }
    }
}

/// Until its client was sent more, nothing will come to that socket: saves asking it. The next datagram wakes it again
/// (EPOLLET, epoll(7)).
fn rest(socket: &UdpSocket) {
    let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    // What comes back is what was put in.
    drop(socket.try_io(Interest::READABLE, nothing));
}

async fn send_all(
    id: TransferId,
    socket: &UdpSocket,
    place: &Place,
    shared: &Shared,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    loop {
        // Its own statement: the lock is not held while sending.
        let next = shared.server().poll_burst(id, out);
        let Some(len) = next else { return Ok(()) };
        match send(socket, place, out, len).await {
            // What is refused is said again when receiving.
            Err(error) if !is_passing(&error) => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
}

/// Sends datagrams of `len` bytes each, the last one perhaps shorter; all at once where that is possible (UDP_SEGMENT,
/// udp(7)).
async fn send(socket: &UdpSocket, place: &Place, bytes: &[u8], len: u16) -> io::Result<()> {
    let each = usize::from(len);
    if bytes.len() <= each {
        return socket.send(bytes).await.map(drop);
    }
    if place.takes_bursts.load(Ordering::Relaxed) {
        let send = || {
            let (slices, control) = ([IoSlice::new(bytes)], [ControlMessage::UdpGsoSegments(&len)]);
            let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
            Ok(sendmsg::<()>(fd, &slices, &control, flags, None).map(drop)?)
        };
        match socket.async_io(Interest::WRITABLE, send).await {
            // Cards that compute no checksums, before Linux 6.11; an MTU that is smaller than the block.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)
                ) =>
            {
                tracing::debug!(%error, "TFTP windows leave datagram by datagram");
                place.takes_bursts.store(false, Ordering::Relaxed);
            }
            sent => return sent,
        }
    }
    for datagram in bytes.chunks(each) {
        socket.send(datagram).await?;
    }
    Ok(())
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
