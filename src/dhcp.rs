//! The DHCP server without sockets or clocks: a datagram and the time in, a [`Step`] out.
//!
//! Known machines get their fixed address, unknown ones that boot from the network a short lease
//! from the discovery pool. What to boot is not decided here but by [`crate::boot::decide`].

pub mod options;
pub mod pool;
pub mod reply;
pub mod request;
mod sightings;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::boot::{self, Decision};
use crate::cluster::{Cluster, DhcpMode, Node};
use crate::mac::Mac;
use crate::machine::{Arch, Asker, Machine};
use crate::site::Site;
use crate::stage::{Event, Sighting, State, TimestampMs};

use pool::{Claimed, Hold, Pool, Trial};
use reply::{Boot, Destination, Kind, Reply};
use request::{Claim, Malformed, Message, Request};
use sightings::Sightings;

/// The port that relays send from.
const SERVER_PORT: u16 = 67;

/// The lease of a node. Long, because its address never changes.
const NODE_LEASE_S: u32 = 24 * 60 * 60;

/// The server's memory: who was lent what. Nodes need none, their addresses are in the cluster.
#[derive(Debug, Default)]
pub struct Dhcp {
    pool: Pool,
    sightings: Sightings,
    /// Whether the pool knows what was lent before a restart.
    remembers: bool,
    /// The nodes whose firmware or loader asked for an address, each since its last arming.
    booted: BTreeSet<Mac>,
}

/// What arrived.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// UDP payload.
    pub bytes: &'a [u8],
    /// Source.
    pub from: SocketAddrV4,
    /// The port it came to.
    pub service: Service,
}

/// The ports we listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// 67.
    Dhcp,
    /// 4011: PXE's boot server. Some firmware goes there whatever the offer said.
    BootServer,
}

/// What a datagram leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This leaves.
    Answer(Answer),
    /// The address that is to be offered was never lent to this machine, so it may be somebody's who never asked: the
    /// wire is to be asked for it (RFC 2131 section 2.2), [`Dhcp::tried`] to be told, and the datagram to be handed in
    /// once more.
    Try(Ipv4Addr),
}

/// What leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// UDP payload.
    pub bytes: Vec<u8>,
    /// Where to.
    pub destination: Destination,
    /// Whom it answers.
    pub mac: Mac,
    /// The kind of message.
    pub kind: Kind,
    /// The address it gives; zero when none.
    pub yiaddr: Ipv4Addr,
    /// What it makes the machine boot.
    pub boot: Boot,
    /// An unknown machine that is to be written down.
    pub seen: Option<Event>,
    /// There is no loader for its firmware.
    pub no_loader: Option<Arch>,
}

/// Why a datagram gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It is no request.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The decision is silence.
    #[error("{mac}: {why}")]
    Decided {
        /// Whose.
        mac: Mac,
        /// Why.
        why: boot::Ignored,
    },
    /// The client takes another server's offer. On our wire there should be none.
    #[error("{mac} takes the offer of another DHCP server, {server}")]
    OtherServer {
        /// Who.
        mac: Mac,
        /// Whose.
        server: Ipv4Addr,
    },
    /// A client found its address in use. It is not offered for ten minutes.
    #[error("{mac} found its address {ip} in use by another machine")]
    Declined {
        /// Who.
        mac: Mac,
        /// Which.
        ip: Ipv4Addr,
    },
    /// A node asks whose address was found in use a short while ago.
    #[error("{mac} waits: its address {ip} was in use by another machine")]
    Resting {
        /// Who.
        mac: Mac,
        /// Which.
        ip: Ipv4Addr,
    },
    /// The wire is being asked for its address, because it asked a moment ago.
    #[error("{mac} waits: it is looked whether {ip} is free")]
    Trying {
        /// Who.
        mac: Mac,
        /// Which.
        ip: Ipv4Addr,
    },
    /// A client gave its address back, or declined one that it was not given.
    #[error("{0} needs no answer")]
    Done(Mac),
    /// It claims an address that is not ours to give or refuse.
    #[error("{mac} claims {ip}, which is not lent")]
    NotLent {
        /// Who.
        mac: Mac,
        /// Which.
        ip: Ipv4Addr,
    },
    /// All addresses of the discovery range are taken.
    #[error("{0} gets no address: the discovery range is used up")]
    PoolFull(Mac),
    /// An answer would have to leave the private subnet.
    #[error("{mac} is to be answered at {ip}, outside the private network")]
    Outside {
        /// Who.
        mac: Mac,
        /// Where.
        ip: Ipv4Addr,
    },
    /// Another server gives addresses here, and this asks for one.
    #[error("{0} asks for an address, and those are another server's")]
    Proxied(Mac),
    /// BOOTP, which knows no leases that end, from a machine that is not in the cluster.
    #[error("{0} speaks BOOTP and is not in the cluster")]
    Bootp(Mac),
    /// Not a boot program, on the boot server's port.
    #[error("{0} asks the boot server and does not boot")]
    NotBooting(Mac),
}

/// An address of the discovery range that a machine has which never got it from us. It is not offered for ten minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{user} uses {ip}, an address of the discovery range that it was not lent; give that machine another address, or \
     change `discovery` in cluster.toml"
)]
pub struct InUse {
    /// Which.
    pub ip: Ipv4Addr,
    /// Whose card answers there.
    pub user: Mac,
}

/// One request and everything its answer depends on.
#[derive(Clone, Copy)]
struct Exchange<'a> {
    cluster: &'a Cluster,
    request: &'a Request,
    node: Option<&'a Node>,
    boot: Boot,
    datagram: Datagram<'a>,
    now: TimestampMs,
}

impl Dhcp {
    /// Answers a datagram.
    pub fn handle_packet(
        &mut self,
        site: &Site,
        state: &State,
        datagram: Datagram<'_>,
        now: TimestampMs,
    ) -> Result<Step, Ignored> {
        let cluster = &site.cluster;
        let request = &Request::parse(datagram.bytes)?;
        self.remember(cluster, state, now);
        let mac = request.mac;
        let machine = Machine { mac, asker: request.asker, ip: None, hardware: None };
        let decision = boot::decide(site, state, &machine);
        let node = cluster.node_by_mac(mac);
        let boot = Boot::from(&decision);
        let exchange = Exchange { cluster, request, node, boot, datagram, now };
        if node.is_some() && exchange.is_firmware() {
            self.booted.insert(mac);
        }
        if cluster.network().dhcp == DhcpMode::Proxy {
            return self.proxy(state, &exchange);
        }
        self.note(&exchange)?;
        if let Decision::Ignore(why) = decision {
            return Err(Ignored::Decided { mac, why });
        }
        if node.is_some() {
            // It was unknown a while ago; its pool address is free again.
            self.pool.forget(mac);
        }
        if let Some(ip) = self.untried(&exchange)? {
            return Ok(Step::Try(ip));
        }
        let reply = match datagram.service {
            Service::Dhcp => self.reply(&exchange)?,
            Service::BootServer => exchange.boot_server_reply()?,
        };
        let mut answer = exchange.answer(&reply)?;
        if let Decision::NoLoader(arch) = decision {
            answer.no_loader = Some(arch);
        }
        // A boot server's answer gives no address, and says nothing of the one that the machine has.
        let is_lent = !answer.yiaddr.is_unspecified();
        if node.is_none() && is_lent && matches!(answer.kind, Kind::Offer | Kind::Ack) {
            answer.seen = self.sightings.saw(state, request, answer.yiaddr, now);
        }
        Ok(Step::Answer(answer))
    }

    /// Beside another server: what to boot, and no address. A machine takes both offers together.
    fn proxy(&mut self, state: &State, exchange: &Exchange<'_>) -> Result<Step, Ignored> {
        let request = exchange.request;
        let is_first = matches!(request.message, Message::Discover { .. });
        let reply = match exchange.datagram.service {
            Service::BootServer => exchange.boot_server_reply()?,
            Service::Dhcp if is_first && exchange.boot != Boot::Nothing => {
                Reply { kind: Kind::Offer, ..exchange.informed() }
            }
            Service::Dhcp => return Err(Ignored::Proxied(request.mac)),
        };
        let mut answer = exchange.answer(&reply)?;
        if is_first && exchange.node.is_none() {
            answer.seen = self.sightings.saw(state, request, answer.yiaddr, exchange.now);
        }
        Ok(Step::Answer(answer))
    }

    /// Takes note of a new permission to install a machine.
    pub fn armed(&mut self, mac: Mac) {
        self.booted.remove(&mac);
    }

    /// Whether a node has booted since it was armed, as far as its firmware or loader asked for an address. Else whoever
    /// asks for its script is a program of the system that still runs on it.
    pub fn has_booted(&self, mac: Mac) -> bool {
        self.booted.contains(&mac)
    }

    /// Takes note of who answers at an address that is to be offered: `None` when nobody does.
    pub fn tried(
        &mut self,
        ip: Ipv4Addr,
        user: Option<Mac>,
        now: TimestampMs,
    ) -> Result<(), InUse> {
        let holder = self.pool.mac_of(ip);
        match (holder, user) {
            (Some(holder), Some(user)) if holder != user => {
                self.pool.rest(holder, ip, now);
                Err(InUse { ip, user })
            }
            _ => {
                self.pool.tried(ip);
                Ok(())
            }
        }
    }

    /// The machine at `ip`, by reservation or lease.
    pub fn mac_of(&self, ip: Ipv4Addr, cluster: &Cluster) -> Option<Mac> {
        cluster.node_by_ip(ip).map(|node| node.mac).or_else(|| self.pool.mac_of(ip))
    }

    /// Machines that wait go on using what they were lent before we were restarted. The journal tells of each in
    /// ten minutes once.
    fn remember(&mut self, cluster: &Cluster, state: &State, now: TimestampMs) {
        if std::mem::replace(&mut self.remembers, true) {
            return;
        }
        let is_recent = |(mac, seen): &(Mac, &Sighting)| {
            now.abs_diff(seen.last_ms) < sightings::EVERY_MS + pool::LEASE_MS
                && cluster.node_by_mac(*mac).is_none()
        };
        let mut recent: Vec<_> = state.seen().filter(is_recent).collect();
        // Of two that had the same address the later one has it now.
        recent.sort_by_key(|(_, seen)| std::cmp::Reverse(seen.last_ms));
        for (mac, seen) in recent {
            self.pool.claim(cluster, mac, seen.ip, now);
        }
    }

    /// The address that an unknown machine is to be offered, unless it is known to be free.
    fn untried(&mut self, exchange: &Exchange<'_>) -> Result<Option<Ipv4Addr>, Ignored> {
        let (mac, now) = (exchange.request.mac, exchange.now);
        let is_first = matches!(exchange.request.message, Message::Discover { .. });
        if !is_first || exchange.node.is_some() || exchange.datagram.service != Service::Dhcp {
            return Ok(None);
        }
        let ip = self.pool.take(exchange.cluster, mac, Hold::Offer, now);
        let ip = ip.ok_or(Ignored::PoolFull(mac))?;
        match self.pool.trial(ip, now) {
            Trial::Over => Ok(None),
            Trial::Due => Ok(Some(ip)),
            Trial::Running => Err(Ignored::Trying { mac, ip }),
        }
    }

    /// Takes note of messages that are never answered.
    fn note(&mut self, exchange: &Exchange<'_>) -> Result<(), Ignored> {
        let (request, master) = (exchange.request, exchange.cluster.network().address);
        let mac = request.mac;
        match request.message {
            Message::Decline { ip: Some(ip), server } if server.is_none_or(|it| it == master) => {
                let own = exchange.node.map(|node| node.ip).or_else(|| self.pool.ip_of(mac));
                if own != Some(ip) {
                    return Err(Ignored::Done(mac));
                }
                self.pool.rest(mac, ip, exchange.now);
                Err(Ignored::Declined { mac, ip })
            }
            Message::Decline { .. } => Err(Ignored::Done(mac)),
            Message::Release => {
                if self.pool.ip_of(mac) == Some(request.ciaddr) {
                    self.pool.forget(mac);
                }
                Err(Ignored::Done(mac))
            }
            Message::Request(Claim::Selecting { server, .. }) if server != master => {
                self.pool.withdraw(mac, exchange.now);
                Err(Ignored::OtherServer { mac, server })
            }
            Message::Bootp | Message::Discover { .. } | Message::Request(_) | Message::Inform => {
                Ok(())
            }
        }
    }

    /// RFC 2131 section 4.3, message by message.
    fn reply<'a>(&mut self, exchange: &Exchange<'a>) -> Result<Reply<'a>, Ignored> {
        let mac = exchange.request.mac;
        match exchange.request.message {
            Message::Inform => Ok(exchange.informed()),
            Message::Bootp if exchange.node.is_none() => Err(Ignored::Bootp(mac)),
            Message::Bootp => Ok(Reply { lease_s: None, ..self.offer(exchange, Kind::Bootp)? }),
            Message::Discover { .. } => self.offer(exchange, Kind::Offer),
            Message::Request(Claim::Selecting { ip, .. }) => {
                let Some(ip) = ip.or(exchange.own_ip(&self.pool)) else {
                    return Ok(exchange.nak());
                };
                match self.claim(exchange, ip) {
                    // It chose us, so it has to be told if it chose wrongly.
                    Err(Ignored::NotLent { .. }) => Ok(exchange.nak()),
                    answered => answered,
                }
            }
            Message::Request(Claim::InitReboot { ip }) => self.claim(exchange, ip),
            Message::Request(Claim::Renewing) => self.claim(exchange, exchange.request.ciaddr),
            Message::Decline { .. } | Message::Release => Err(Ignored::Done(mac)),
        }
    }

    fn offer<'a>(&mut self, exchange: &Exchange<'a>, kind: Kind) -> Result<Reply<'a>, Ignored> {
        let (mac, now) = (exchange.request.mac, exchange.now);
        let Some(node) = exchange.node else {
            let ip = self.pool.take(exchange.cluster, mac, Hold::Offer, now);
            return Ok(exchange.lend(kind, ip.ok_or(Ignored::PoolFull(mac))?));
        };
        if self.pool.is_resting(node.ip, now) {
            return Err(Ignored::Resting { mac, ip: node.ip });
        }
        Ok(exchange.lend(kind, node.ip))
    }

    /// An ACK when `ip` is the client's to use. We are the authority on our own wire: a node
    /// that is wrong is told so, and so is anyone who claims what is another's.
    fn claim<'a>(&mut self, exchange: &Exchange<'a>, ip: Ipv4Addr) -> Result<Reply<'a>, Ignored> {
        let (cluster, mac) = (exchange.cluster, exchange.request.mac);
        if let Some(node) = exchange.node {
            return Ok(if node.ip == ip { exchange.lend(Kind::Ack, ip) } else { exchange.nak() });
        }
        if !cluster.network().subnet.contains(&ip) {
            return Ok(exchange.nak());
        }
        match self.pool.claim(cluster, mac, ip, exchange.now) {
            Claimed::Granted => Ok(exchange.lend(Kind::Ack, ip)),
            Claimed::SomebodyElses => Ok(exchange.nak()),
            Claimed::NotLent => Err(Ignored::NotLent { mac, ip }),
        }
    }
}

impl<'a> Exchange<'a> {
    /// Whether a boot program asks, from a port that only it and root can have (RFC 2131 section 4.1).
    fn is_firmware(&self) -> bool {
        let is_relayed = !self.request.giaddr.is_unspecified();
        let port = if is_relayed { SERVER_PORT } else { reply::CLIENT_PORT };
        self.request.arch().is_some() && self.datagram.from.port() == port
    }

    fn lend(&self, kind: Kind, ip: Ipv4Addr) -> Reply<'a> {
        let lease_s = if self.node.is_some() { NODE_LEASE_S } else { pool::LEASE_S };
        Reply { kind, yiaddr: ip, lease_s: Some(lease_s), ..self.informed() }
    }

    /// RFC 2131 section 4.3.5: everything but an address.
    fn informed(&self) -> Reply<'a> {
        Reply {
            request: self.request,
            network: self.cluster.network(),
            kind: Kind::Ack,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            lease_s: None,
            name: self.node.map(|node| &node.name),
            boot: self.boot,
        }
    }

    fn nak(&self) -> Reply<'a> {
        Reply { kind: Kind::Nak, boot: Boot::Nothing, ..self.informed() }
    }

    fn boot_server_reply(&self) -> Result<Reply<'a>, Ignored> {
        if self.request.asker == Asker::System {
            return Err(Ignored::NotBooting(self.request.mac));
        }
        Ok(self.informed())
    }

    fn own_ip(&self, pool: &Pool) -> Option<Ipv4Addr> {
        self.node.map(|node| node.ip).or_else(|| pool.ip_of(self.request.mac))
    }

    /// No answer ever leaves the private subnet, whatever address the request names.
    fn answer(&self, reply: &Reply<'_>) -> Result<Answer, Ignored> {
        let mac = self.request.mac;
        let destination = match self.datagram.service {
            Service::Dhcp => reply.destination(self.datagram.from),
            Service::BootServer => Destination::Client(self.datagram.from),
        };
        let ip = match destination {
            Destination::Relay(ip) | Destination::Unicast { ip, .. } => Some(ip),
            Destination::Client(to) => Some(*to.ip()),
            Destination::Broadcast => None,
        };
        if let Some(ip) = ip.filter(|ip| !self.cluster.network().subnet.contains(ip)) {
            return Err(Ignored::Outside { mac, ip });
        }
        Ok(Answer {
            bytes: reply.encode(),
            destination,
            mac,
            kind: reply.kind,
            yiaddr: reply.yiaddr,
            boot: reply.boot,
            seen: None,
            no_loader: None,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
