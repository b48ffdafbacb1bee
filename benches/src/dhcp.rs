//! DHCP: whole exchanges with 32 machines at a time, and a room that is switched on in one instant.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::peers::{self, mac};
use crate::place::{ADDRESS, Place, SERVER_ADDRESS, client};
use crate::{Contest, with};

const SERVERS: [&str; 4] = ["rekindle", "dnsmasq", "isc-dhcpd", "kea"];
const IN_FLIGHT: usize = 32;
const EXCHANGES: usize = 20_000;
/// With thousands of machines known one of the peers takes milliseconds for each.
const FEWER: usize = 5_000;
const PERFDHCP_RATE: u32 = 20_000;
const PERFDHCP_S: f64 = 3.0;
const AGAIN: Duration = Duration::from_secs(1);

pub fn contests() -> Result<Vec<Contest>> {
    let mut contests = vec![];
    for (way, nodes) in [(Way::Broadcast, 250), (Way::Relay, 250), (Way::Relay, 5000)] {
        contests.push(Contest::hold(
            format!(
                "DHCP, exchanges of 4 messages, {IN_FLIGHT} in flight, {nodes} machines known, {}",
                way.words()
            ),
            &SERVERS,
            |server| {
                let place = Place::in_memory(way == Way::Relay)?;
                let running = peers::dhcp(&place, server, nodes)?;
                // Whatever is done once is done.
                place.as_client(|| exchanges(way, nodes, usize::from(nodes).min(1000)))?;
                let count = if nodes > 1000 { FEWER } else { EXCHANGES };
                let before = running.cpu_s()?;
                let took = place.as_client(|| exchanges(way, nodes, count))?;
                let cpu = running.cpu_s()? - before;
                Ok(with(
                    running.memory()?,
                    [
                        ("exchanges/s", count as f64 / took.as_secs_f64()),
                        ("CPU us per exchange", cpu * 1e6 / count as f64),
                    ],
                ))
            },
        )?);
    }
    contests.push(Contest::hold(
        format!("DHCP, Kea's perfdhcp begins {PERFDHCP_RATE} exchanges a second with 250 machines, by a relay"),
        &SERVERS,
        |server| {
            let place = Place::in_memory(true)?;
            let running = peers::dhcp(&place, server, 250)?;
            place.as_client(|| exchanges(Way::Relay, 250, 250))?;
            let before = running.cpu_s()?;
            let told = place.as_client(perfdhcp)?;
            let cpu = running.cpu_s()? - before;
            let done = told.exchanges_s * PERFDHCP_S;
            Ok(with(running.memory()?, [
                ("exchanges/s", told.exchanges_s),
                ("% of DISCOVERs unanswered", told.unanswered),
                ("CPU us per exchange", cpu * 1e6 / done.max(1.0)),
            ]))
        },
    )?);
    for count in [32, 250, 1000] {
        contests.push(Contest::hold(
            format!("DHCP, {count} machines ask in the same instant, leases on the disk"),
            &SERVERS,
            |server| {
                let place = Place::new(false)?;
                let running = peers::dhcp(&place, server, 1000)?;
                let before = running.cpu_s()?;
                let (done, last) = place.as_client(|| storm(count))?;
                let cpu = running.cpu_s()? - before;
                Ok(with(
                    running.memory()?,
                    [
                        ("unanswered", f64::from(count) - done as f64),
                        ("ms to the last ACK", last.as_secs_f64() * 1e3),
                        ("CPU us per machine", cpu * 1e6 / (done as f64).max(1.0)),
                    ],
                ))
            },
        )?);
    }
    Ok(contests)
}

/// What perfdhcp says.
struct Told {
    exchanges_s: f64,
    unanswered: f64,
}

/// Another program's exchanges, which begins them whether or not the last ones were answered.
fn perfdhcp() -> Result<Told> {
    let first = mac(0).map(|byte| format!("{byte:02x}")).join(":");
    let mut command = Command::new("perfdhcp");
    command.args(["-4", "-R", "250", "-b", &format!("mac={first}"), "-l", &client(0).to_string()]);
    command.args(["-r", &PERFDHCP_RATE.to_string(), "-p", &PERFDHCP_S.to_string(), ADDRESS]);
    // What was not answered is its exit code, too.
    let output = command.output().context("perfdhcp (Debian: kea-admin)")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let figure = |name: &str| {
        let rest = said.lines().find_map(|line| line.strip_prefix(name));
        let figure = rest.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        figure.with_context(|| format!("perfdhcp says no `{name}`: {said}"))
    };
    Ok(Told { exchanges_s: figure("Rate: ")?, unanswered: figure("drops ratio: ")? })
}

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As machines send them.
    Broadcast,
    /// By a relay agent, from port 67 to port 67.
    Relay,
}

impl Way {
    fn words(self) -> &'static str {
        match self {
            Self::Broadcast => "by broadcast",
            Self::Relay => "by a relay",
        }
    }

    /// The relay's address; zero when there is none.
    fn relay(self) -> Ipv4Addr {
        if self == Self::Relay { client(0) } else { Ipv4Addr::UNSPECIFIED }
    }

    fn server(self) -> SocketAddrV4 {
        let ip = if self == Self::Relay { SERVER_ADDRESS } else { Ipv4Addr::BROADCAST };
        SocketAddrV4::new(ip, 67)
    }
}

/// A socket that hears every answer, however many come at once.
fn socket(way: Way) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(b"eth0"))?;
    socket.set_broadcast(true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20))?;
    let port = if way == Way::Relay { 67 } else { 68 };
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(socket.into())
}

/// What a ROM sends: it asks for broadcast, as all answers are to reach one socket.
fn message(way: Way, number: u16, kind: u8, offered: Option<(Ipv4Addr, [u8; 4])>) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 0, 0];
    bytes.extend(number.to_be_bytes());
    bytes.extend([0, 0, 0x80, 0]);
    bytes.resize(24, 0);
    bytes.extend(way.relay().octets());
    bytes.extend(mac(number));
    bytes.resize(236, 0);
    bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    bytes.extend([93, 2, 0, 0, 94, 3, 1, 2, 1, 60, 32]);
    bytes.extend(b"PXEClient:Arch:00000:UNDI:002001");
    bytes.extend([55, 8, 1, 3, 6, 12, 15, 43, 66, 67]);
    if let Some((ip, server)) = offered {
        bytes.extend([50, 4]);
        bytes.extend(ip.octets());
        bytes.extend([54, 4]);
        bytes.extend(server);
    }
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// Whom an answer is for, its kind, the address and the server.
fn read(bytes: &[u8]) -> Option<(u16, u8, Ipv4Addr, [u8; 4])> {
    let number = u16::from_be_bytes([*bytes.get(32)?, *bytes.get(33)?]);
    let ip: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
    let mut options = bytes.get(240..)?;
    let (mut kind, mut server) = (0, [0; 4]);
    while let [code, len, rest @ ..] = options {
        if *code == 255 {
            break;
        }
        let (value, behind) = rest.split_at_checked(usize::from(*len))?;
        match code {
            53 => kind = *value.first()?,
            54 => server = value.try_into().ok()?,
            _ => {}
        }
        options = behind;
    }
    Some((number, kind, Ipv4Addr::from(ip), server))
}

/// So many exchanges by machines in turn.
fn exchanges(way: Way, nodes: u16, count: usize) -> Result<Duration> {
    let socket = socket(way)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let server_at = way.server();
    let mut waiting: Vec<Option<(Instant, Vec<u8>)>> = vec![None; usize::from(nodes)];
    let (mut begun, mut done, mut next) = (0, 0, 0u16);
    let mut buffer = [0; 1500];
    let start = Instant::now();
    while done < count {
        while begun < count && begun - done < IN_FLIGHT {
            let bytes = message(way, next, 1, None);
            socket.send_to(&bytes, server_at)?;
            waiting[usize::from(next)] = Some((Instant::now(), bytes));
            begun += 1;
            next = (next + 1) % nodes;
        }
        let Ok(len) = socket.recv(&mut buffer) else {
            for (since, bytes) in waiting.iter_mut().flatten() {
                if since.elapsed() > AGAIN {
                    socket.send_to(bytes, server_at)?;
                    *since = Instant::now();
                }
            }
            ensure!(start.elapsed() < Duration::from_secs(120), "{done} of {count} exchanges only");
            continue;
        };
        let Some((number, kind, ip, server)) = read(&buffer[..len]) else { continue };
        let Some(state) = waiting.get_mut(usize::from(number)) else { continue };
        match kind {
            2 if state.is_some() => {
                let bytes = message(way, number, 3, Some((ip, server)));
                socket.send_to(&bytes, server_at)?;
                *state = Some((Instant::now(), bytes));
            }
            5 if state.take().is_some() => done += 1,
            _ => {}
        }
    }
    Ok(start.elapsed())
}

/// All ask, and take what they are offered; none asks again: how many have an address, and when the last one had.
fn storm(count: u16) -> Result<(usize, Duration)> {
    let way = Way::Broadcast;
    let socket = socket(way)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let all: Vec<_> = (0..count).map(|number| message(way, number, 1, None)).collect();
    let start = Instant::now();
    for bytes in &all {
        socket.send_to(bytes, way.server())?;
    }
    let (mut offered, mut done, mut last) = (BTreeSet::new(), BTreeSet::new(), Duration::ZERO);
    let mut buffer = [0; 1500];
    while done.len() < usize::from(count) {
        let Ok(len) = socket.recv(&mut buffer) else { break };
        let Some((number, kind, ip, server)) = read(&buffer[..len]) else { continue };
        if kind == 2 && offered.insert(number) {
            socket.send_to(&message(way, number, 3, Some((ip, server))), way.server())?;
        }
        if kind == 5 && done.insert(number) {
            last = start.elapsed();
        }
    }
    Ok((done.len(), last))
}
