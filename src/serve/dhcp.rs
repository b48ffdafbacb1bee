//! The sockets of the DHCP server: datagrams -> the core's answers -> datagrams.

use std::convert::Infallible;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc::{c_int, in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::trials::Trials;
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
/// Datagrams answered before other tasks have their turn.
const BURST: usize = 64;

/// Ports 67 and 4011 of the private interface.
#[derive(Debug)]
pub struct DhcpSocket {
    server: UdpSocket,
    boot_server: UdpSocket,
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
            let prepared = prepare(&socket).and_then(|()| UdpSocket::from_std(socket));
            prepared.map_err(|source| other(interface, port, source))
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
    let DhcpSocket { server, boot_server, place } = &socket;
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
    let mut buffer = vec![0; DATAGRAM_MAX];
    let answer = |trials: &mut Trials, bytes: &[u8], from| match core.handle(Datagram {
        bytes,
        from,
        service,
    }) {
        Some(Step::Answer(answer)) => send(socket, place, &answer),
        Some(Step::Try(ip)) => trials.ask(ip, bytes, from),
        None => {}
    };
    loop {
        tokio::select! {
            readable = socket.readable() => readable?,
            (waiting, user) = trials.next() => {
                core.tried(waiting.ip, user);
                answer(&mut trials, &waiting.bytes, waiting.from);
                continue;
            }
        }
        for _ in 0..BURST {
            let receive = || Ok(receive(socket, place, &mut buffer)?);
            let received = match socket.try_io(Interest::READABLE, receive) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                received => received?,
            };
            let Some((len, from)) = received else { continue };
            answer(&mut trials, buffer.get(..len).unwrap_or_default(), from);
        }
        tokio::task::yield_now().await;
    }
}

/// One datagram, or `None` for one that is not for us.
fn receive(
    socket: &UdpSocket,
    place: &Place,
    buffer: &mut [u8],
) -> nix::Result<Option<(usize, SocketAddrV4)>> {
    let mut control = nix::cmsg_space!(in_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let message =
        match recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
            Ok(message) => message,
            // Said of an earlier datagram of ours, or of a cable that is out; none ends the service.
            Err(
                Errno::ECONNREFUSED
                | Errno::EHOSTUNREACH
                | Errno::ENETUNREACH
                | Errno::ENETDOWN
                | Errno::EINTR,
            ) => return Ok(None),
            Err(error) => return Err(error),
        };
    // The socket is bound to the interface; a second look costs nothing and answering elsewhere
    // would be the one thing that must never happen.
    let arrived_here = message.cmsgs()?.any(|control| {
        matches!(control, ControlMessageOwned::Ipv4PacketInfo(info) if info.ipi_ifindex == place.index)
    });
    let Some(from) = message.address.filter(|_| arrived_here) else { return Ok(None) };
    let from = SocketAddrV4::new(from.ip(), from.port());
    Ok(Some((message.bytes, from)))
}

/// Sends an answer. What cannot be sent is as good as lost on the wire: the client asks again.
fn send(socket: &UdpSocket, place: &Place, answer: &Answer) {
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
    match send_to(socket, place, &answer.bytes, to) {
        Ok(()) => {
            let (kind, ip, boot) = (answer.kind, answer.yiaddr, answer.boot);
            tracing::trace!(%mac, ?kind, %ip, ?boot, %to, "DHCP answer");
        }
        Err(error) => tracing::warn!(%mac, %to, %error, "DHCP answer was not sent"),
    }
}

fn everybody() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT)
}

fn send_to(socket: &UdpSocket, place: &Place, bytes: &[u8], to: SocketAddrV4) -> nix::Result<()> {
    let info = in_pktinfo {
        ipi_ifindex: place.index,
        ipi_spec_dst: in_addr { s_addr: u32::from(place.address).to_be() },
        ipi_addr: in_addr { s_addr: 0 },
    };
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    let (slices, to) = ([IoSlice::new(bytes)], SockaddrIn::from(to));
    sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::MSG_DONTWAIT, Some(&to)).map(drop)
}
