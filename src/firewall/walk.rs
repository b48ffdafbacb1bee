//! The way of a packet through a [`Ruleset`], and of a whole conversation through the cluster.

use std::net::Ipv4Addr;

use super::{Condition, Family, Rule, Ruleset, Tracked, Verdict};
use crate::cluster::Cluster;
use crate::name::{IfName, NodeName};

/// An IPv4 packet, as far as rules look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where it came in; `None` on its way out of the machine that made it.
    pub input: Option<IfName>,
    /// Where it leaves; `None` when it is for this machine.
    pub output: Option<IfName>,
    /// Who sent it.
    pub source: Ipv4Addr,
    /// For whom.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub traffic: Traffic,
    /// What connection tracking knows of it.
    pub tracked: Tracked,
}

/// What is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// TCP to a port.
    Tcp(u16),
    /// UDP from one port to another.
    Udp(u16, u16),
    /// A ping.
    Echo,
}

/// Which rules decided, in order, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk<'r> {
    /// Every rule whose conditions held, the last one decides.
    pub rules: Vec<&'r Rule>,
    /// Whether it passes. What no rule decides does not.
    pub passes: bool,
}

impl Ruleset {
    /// A packet for this machine.
    pub fn enters(&self, packet: &Packet) -> Walk<'_> {
        self.walk(&self.input, packet)
    }

    /// A packet that goes through this machine.
    pub fn passes_through(&self, packet: &Packet) -> Walk<'_> {
        self.walk(&self.forward, packet)
    }

    /// The rule that gives a leaving packet this machine's address.
    pub fn hides(&self, packet: &Packet) -> Option<&Rule> {
        self.masquerade.iter().find(|rule| rule.holds(packet))
    }

    fn walk<'r>(&'r self, chain: &'r [Rule], packet: &Packet) -> Walk<'r> {
        let mut rules = vec![];
        let decided = self.decide(chain, packet, &mut rules);
        Walk { rules, passes: decided.unwrap_or(false) }
    }

    fn decide<'r>(
        &'r self,
        chain: &'r [Rule],
        packet: &Packet,
        met: &mut Vec<&'r Rule>,
    ) -> Option<bool> {
        for rule in chain.iter().filter(|rule| rule.holds(packet)) {
            met.push(rule);
            let decided = match rule.verdict {
                Verdict::Accept | Verdict::Masquerade => Some(true),
                Verdict::Drop => Some(false),
                Verdict::Lan => self.decide(&self.lan, packet, met),
                Verdict::Log(_) => None,
            };
            if decided.is_some() {
                return decided;
            }
        }
        None
    }
}

impl Rule {
    fn holds(&self, packet: &Packet) -> bool {
        self.family != Family::V6 && self.conditions.iter().all(|condition| condition.holds(packet))
    }
}

impl Condition {
    /// A limit holds: the packet is thought to be alone.
    fn holds(&self, packet: &Packet) -> bool {
        let is_local = packet.source == packet.destination && packet.input.is_none();
        match self {
            Self::In(name) => packet.input.as_ref() == Some(name),
            Self::Loopback => is_local,
            Self::Out(name) => packet.output.as_ref() == Some(name),
            Self::From(net) => net.contains(&packet.source),
            Self::To(net) => net.contains(&packet.destination),
            Self::NotTo(net) => !net.contains(&packet.destination),
            Self::State(tracked) => packet.tracked == *tracked,
            Self::Tcp => matches!(packet.traffic, Traffic::Tcp(_)),
            Self::TcpTo(port) => packet.traffic == Traffic::Tcp(*port),
            Self::Udp => matches!(packet.traffic, Traffic::Udp(..)),
            Self::UdpFromTo(from, to) => packet.traffic == Traffic::Udp(*from, *to),
            Self::Echo => packet.traffic == Traffic::Echo,
            // Errors belong to a connection; none is explained by itself.
            Self::IcmpError | Self::Neighbours => false,
            Self::Limit(_) => true,
        }
    }
}

/// One end of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The master, by its address on the private wire or, from outside, on the uplink.
    Master,
    /// The master by its private address, whoever asks.
    MasterPrivate,
    /// A node.
    Worker(NodeName),
    /// A host behind the uplink.
    Outside(Ipv4Addr),
}

/// A machine that a packet meets, and what it does with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Where, in words: `master, eth1 to eth0`.
    pub place: String,
    /// The rules that held, the last one decides.
    pub rules: Vec<Rule>,
    /// Whether it goes on from there.
    pub passes: bool,
    /// The rule that hides its source, when one does.
    pub hidden: Option<Rule>,
}

/// There and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// From the first packet's sender to its receiver.
    pub there: Vec<Leg>,
    /// The answer's way; empty when the first packet does not arrive.
    pub back: Vec<Leg>,
}

impl Flow {
    /// Whether a conversation comes about.
    pub fn works(&self) -> bool {
        self.there.iter().chain(&self.back).all(|leg| leg.passes)
    }
}

/// The address that the uplink is thought to have: it is leased, nobody but the master knows it.
const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);

/// What a cluster's rules do with a conversation that `from` begins. `None` when a node is not in it.
pub fn flow(cluster: &Cluster, from: &End, to: &End, traffic: Traffic) -> Option<Flow> {
    let ways = Ways {
        cluster,
        master: super::master(cluster.network()),
        worker: super::worker(cluster.network()),
        traffic,
    };
    let mut there = ways.legs(from, to, Tracked::New)?;
    if let Some(end) = there.iter().position(|leg| !leg.passes) {
        there.truncate(end + 1);
        return Some(Flow { there, back: vec![] });
    }
    let back = ways.legs(to, from, Tracked::Established)?;
    Some(Flow { there, back })
}

struct Ways<'c> {
    cluster: &'c Cluster,
    master: Ruleset,
    worker: Ruleset,
    traffic: Traffic,
}

impl Ways<'_> {
    /// Every packet filter between two ends. Nobody filters what it sends itself.
    fn legs(&self, from: &End, to: &End, tracked: Tracked) -> Option<Vec<Leg>> {
        let network = self.cluster.network();
        let (uplink, private) = (&network.uplink, &network.interface);
        let is_inside = |end: &End| matches!(end, End::Worker(_));
        let source = self.address(from, is_inside(to))?;
        let destination = self.address(to, is_inside(from))?;
        let packet = |input: Option<&IfName>, output: Option<&IfName>| Packet {
            input: input.cloned(),
            output: output.cloned(),
            source,
            destination,
            traffic: self.traffic,
            tracked,
        };
        if from == to {
            return Some(vec![]);
        }
        let through = |input: &IfName, output: &IfName| {
            let packet = packet(Some(input), Some(output));
            let walk = self.master.passes_through(&packet);
            let hidden = self.master.hides(&packet).filter(|_| walk.passes).cloned();
            Leg { hidden, ..leg(format!("master, {input} to {output}"), &walk) }
        };
        let into_master = |input: &IfName| {
            leg(format!("master, by {input}"), &self.master.enters(&packet(Some(input), None)))
        };
        // What a worker's card is called does not matter to its rules.
        let into_worker = |name: &NodeName| {
            leg(name.to_string(), &self.worker.enters(&packet(Some(private), None)))
        };
        Some(match (from, to) {
            (End::Outside(_), End::Worker(name)) => {
                vec![through(uplink, private), into_worker(name)]
            }
            (End::Worker(_), End::Outside(_)) => vec![through(private, uplink)],
            (End::Outside(_), End::Master | End::MasterPrivate) => vec![into_master(uplink)],
            (End::Worker(_), End::Master | End::MasterPrivate) => vec![into_master(private)],
            (_, End::Worker(name)) => vec![into_worker(name)],
            (End::Master | End::MasterPrivate | End::Outside(_), End::Outside(_))
            | (End::Master | End::MasterPrivate, End::Master | End::MasterPrivate) => vec![],
        })
    }

    fn address(&self, end: &End, seen_from_inside: bool) -> Option<Ipv4Addr> {
        Some(match end {
            End::Master if !seen_from_inside => UPLINK,
            End::Master | End::MasterPrivate => self.cluster.network().address,
            End::Worker(name) => self.cluster.node(name)?.ip,
            End::Outside(ip) => *ip,
        })
    }
}

fn leg(place: String, walk: &Walk<'_>) -> Leg {
    let rules = walk.rules.iter().map(|rule| (*rule).clone()).collect();
    Leg { place, rules, passes: walk.passes, hidden: None }
}
