//! The sockets of the DHCP server: datagrams -> the core's answers -> datagrams.

use std::convert::Infallible;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc::{c_int, in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmsg,
    setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::trials::{Trials, Waiting};
use super::udp::{self, BindError};
use crate::dhcp::reply::{CLIENT_PORT, Destination};
use crate::dhcp::{Answer, Datagram, Service, Step};
use crate::mac::Mac;
use crate::name::IfName;
use crate::sys::arp;

const SERVER_PORT: u16 = 67;
const BOOT_SERVER_PORT: u16 = 4011;
/// More than any client sends in one datagram; the rest of a longer one is cut off.
const DATAGRAM_MAX: usize = 2048;
/// Room for the answers to a large room behind a relay, which wait for nothing when there is none.
const SEND_BUFFER: usize = 4 << 20;
/// Datagrams taken in at once, and answered before other tasks have their turn.
const BURST: usize = 64;

/// Ports 67 and 4011 of the private interface.
#[derive(Debug)]
pub struct DhcpSocket {
    server: std::net::UdpSocket,
    boot_server: std::net::UdpSocket,
    place: Place,
}

/// The only place we hear and send at.
#[derive(Debug)]
struct Place {
    interface: IfName,
    index: c_int,
    address: Ipv4Addr,
}

impl DhcpSocket {
    /// Opens both ports. `address` is ours on `interface`; answers leave from it.
    pub fn bind(interface: &IfName, address: Ipv4Addr) -> Result<Self, BindError> {
        let open = |port| {
            // Broadcasts are only heard at the wildcard address.
            let at = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
            let socket = udp::open(interface, at)?;
            prepare(&socket).map_err(|source| other(interface, port, source))?;
            Ok(socket)
        };
        let (server, boot_server) = (open(SERVER_PORT)?, open(BOOT_SERVER_PORT)?);
        let index = nix::net::if_::if_nametoindex(interface.as_str())
            .map_err(|errno| other(interface, SERVER_PORT, errno.into()))?;
        let index = index.try_into().unwrap_or_default();
        let place = Place { interface: interface.clone(), index, address };
        Ok(Self { server, boot_server, place })
    }
}

fn prepare(socket: &std::net::UdpSocket) -> io::Result<()> {
    socket.set_broadcast(true)?;
    // The forced size needs CAP_NET_ADMIN; without it the system's limit has to do.
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        socket2::SockRef::from(socket).set_send_buffer_size(SEND_BUFFER)?;
    }
    Ok(setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?)
}

fn other(interface: &IfName, port: u16, source: io::Error) -> BindError {
    BindError::Other { port, interface: interface.clone(), source }
}

/// What the sockets ask the core.
pub trait Core {
    /// What a datagram leads to, if to anything.
    fn handle(&self, datagram: Datagram<'_>) -> Option<Step>;
    /// Who answers at an address that is to be offered.
    fn tried(&self, ip: Ipv4Addr, user: Option<Mac>);
}

/// Answers datagrams until it is dropped, or a socket breaks. Nothing is lost by dropping it but
/// datagrams that were not answered yet.
pub async fn run(socket: DhcpSocket, core: impl Core) -> io::Result<Infallible> {
    let DhcpSocket { server, boot_server, place } = socket;
    let (server, boot_server) = (&UdpSocket::from_std(server)?, &UdpSocket::from_std(boot_server)?);
    let place = &place;
    let trials = Trials::on(&place.interface);
    tokio::select! {
        broken = serve(server, Service::Dhcp, place, &core, trials) => broken,
        // A boot server offers no address.
        broken = serve(boot_server, Service::BootServer, place, &core, Trials::default()) => broken,
    }
}

async fn serve(
    socket: &UdpSocket,
    service: Service,
    place: &Place,
    core: &impl Core,
    mut trials: Trials,
) -> io::Result<Infallible> {
    let mut inbox = Inbox::default();
    loop {
        tokio::select! {
            readable = socket.readable() => readable?,
            (waiting, user) = trials.next() => {
                core.tried(waiting.ip, user);
                let Waiting { bytes, from, .. } = waiting;
                take(socket, place, core, &mut trials, Datagram { bytes: &bytes, from, service }).await;
                continue;
            }
        }
        let receive = || Ok(inbox.receive(socket, place)?);
        match socket.try_io(Interest::READABLE, receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            received => received?,
        }
        for (bytes, from) in inbox.iter() {
            take(socket, place, core, &mut trials, Datagram { bytes, from, service }).await;
        }
        tokio::task::yield_now().await;
    }
}

async fn take(
    socket: &UdpSocket,
    place: &Place,
    core: &impl Core,
    trials: &mut Trials,
    datagram: Datagram<'_>,
) {
    match core.handle(datagram) {
        Some(Step::Answer(answer)) => send(socket, place, &answer).await,
        Some(Step::Try(ip)) => trials.ask(ip, datagram.bytes, datagram.from),
        None => {}
    }
}

/// Datagrams that were taken in at once.
struct Inbox {
    bytes: Vec<u8>,
    /// How long each is, and who sent it. `None`: it is not for us.
    taken: Vec<Option<(usize, SocketAddrV4)>>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; BURST * DATAGRAM_MAX], taken: Vec::with_capacity(BURST) }
    }
}

impl Inbox {
    /// Takes in what is there, in place of what was.
    fn receive(&mut self, socket: &UdpSocket, place: &Place) -> nix::Result<()> {
        self.taken.clear();
        // The kernel writes into the headers how much it used of each, so they serve but once.
        let mut headers =
            MultiHeaders::<SockaddrIn>::preallocate(BURST, Some(nix::cmsg_space!(in_pktinfo)));
        let mut slices: Vec<_> =
            self.bytes.chunks_exact_mut(DATAGRAM_MAX).map(|it| [IoSliceMut::new(it)]).collect();
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let messages = match recvmmsg(fd, &mut headers, &mut slices, flags, None) {
            Ok(messages) => messages,
            // Said of an earlier datagram of ours, or of a cable that is out; none ends the service.
            Err(
                Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::ENETDOWN
                | Errno::EINTR,
            ) => return Ok(()),
            Err(error) => return Err(error),
        };
        for message in messages {
            // The socket is bound to the interface; a second look costs nothing and answering elsewhere
            // would be the one thing that must never happen.
            let arrived_here = message.cmsgs()?.any(|control| {
                matches!(control, ControlMessageOwned::Ipv4PacketInfo(info) if info.ipi_ifindex == place.index)
            });
            let from = message.address.filter(|_| arrived_here);
            let taken = from.map(|from| (message.bytes, SocketAddrV4::new(from.ip(), from.port())));
            self.taken.push(taken);
        }
        Ok(())
    }

    /// Those that are for us.
    fn iter(&self) -> impl Iterator<Item = (&[u8], SocketAddrV4)> {
        let places = self.bytes.chunks_exact(DATAGRAM_MAX);
        places.zip(&self.taken).filter_map(|(bytes, taken)| {
            let (len, from) = (*taken)?;
            Some((bytes.get(..len)?, from))
        })
    }
}

/// Sends an answer. What cannot be sent is as good as lost on the wire: the client asks again.
async fn send(socket: &UdpSocket, place: &Place, answer: &Answer) {
    let mac = answer.mac;
    let to = match answer.destination {
        Destination::Broadcast => everybody(),
        Destination::Relay(ip) => SocketAddrV4::new(ip, SERVER_PORT),
        Destination::Client(to) => to,
        Destination::Unicast { ip, mac } => {
            match arp::set(socket.as_fd(), &place.interface, ip, mac) {
                Ok(()) => SocketAddrV4::new(ip, CLIENT_PORT),
                Err(error) => {
                    tracing::debug!(%mac, %ip, %error, "no ARP entry, broadcasting instead");
                    everybody()
                }
            }
        }
    };
    let is_known = !matches!(answer.destination, Destination::Relay(_) | Destination::Client(_));
    match send_to(socket, place, &answer.bytes, to, is_known).await {
        Ok(()) => {
            let (kind, ip, boot) = (answer.kind, answer.yiaddr, answer.boot);
            tracing::trace!(%mac, ?kind, %ip, ?boot, %to, "DHCP answer");
        }
        // Whoever names many addresses that nobody has could say it without end.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            tracing::debug!(%mac, %to, "no room for a DHCP answer; it asks again");
        }
        Err(error) => tracing::warn!(%mac, %to, %error, "DHCP answer was not sent"),
    }
}

fn everybody() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT)
}

/// Waits for room when a whole room of machines is answered faster than the card sends. Not for an address that the
/// kernel has to ask the wire for: it keeps the datagram for seconds, and whoever names many addresses that nobody has
/// would keep everybody else waiting.
async fn send_to(
    socket: &UdpSocket,
    place: &Place,
    bytes: &[u8],
    to: SocketAddrV4,
    waits: bool,
) -> io::Result<()> {
    let info = in_pktinfo {
        ipi_ifindex: place.index,
        ipi_spec_dst: in_addr { s_addr: u32::from(place.address).to_be() },
        ipi_addr: in_addr { s_addr: 0 },
    };
    let (slices, to) = ([IoSlice::new(bytes)], SockaddrIn::from(to));
    let send = || {
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let fd = socket.as_raw_fd();
        Ok(sendmsg(fd, &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to)).map(drop)?)
    };
    if waits { socket.async_io(Interest::WRITABLE, send).await } else { send() }
}
