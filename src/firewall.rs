//! Firewall rules as data: the cluster -> one [`Ruleset`] -> text for nft or iptables-restore
//! ([`text`]), and the way of a packet through it ([`walk`]). Pure.
//!
//! Both forms and the explanation come from the same rules, so they cannot mean different things.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::cluster::Network;
use crate::name::IfName;

pub mod text;
pub mod walk;

/// Everything that a machine's packet filter does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    /// For people: whose rules these are.
    pub title: &'static str,
    /// What comes to the machine itself.
    pub input: Vec<Rule>,
    /// What comes to the master by the private wire; [`Verdict::Lan`] leads here.
    pub lan: Vec<Rule>,
    /// What goes through the machine.
    pub forward: Vec<Rule>,
    /// What leaves under the machine's own address (source NAT).
    pub masquerade: Vec<Rule>,
}

/// One rule. A packet that meets every condition gets the verdict; what no rule decides is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The requirement that it is there for.
    pub id: &'static str,
    /// What it is for, in a few words.
    pub why: &'static str,
    /// Whose packets it looks at.
    pub family: Family,
    /// All of them must hold.
    pub conditions: Vec<Condition>,
    /// What becomes of the packet.
    pub verdict: Verdict,
}

/// Which internet protocol a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Both.
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a rule looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It came in by this interface.
    In(IfName),
    /// It came from the machine itself.
    Loopback,
    /// It leaves by this interface.
    Out(IfName),
    /// Its source is in this net.
    From(Ipv4Net),
    /// Its destination is in this net.
    To(Ipv4Net),
    /// Its destination is not in this net.
    NotTo(Ipv4Net),
    /// What connection tracking knows of it.
    State(Tracked),
    /// TCP, any port.
    Tcp,
    /// TCP to this port.
    TcpTo(u16),
    /// UDP, any port.
    Udp,
    /// UDP from the first port to the second.
    UdpFromTo(u16, u16),
    /// ICMP of the rule's family: a ping.
    Echo,
    /// ICMP of the rule's family: an error that belongs to some connection.
    IcmpError,
    /// ICMPv6 that finds neighbours and routers.
    Neighbours,
    /// Not more often than this.
    Limit(Limit),
}

/// What connection tracking says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracked {
    /// Of no connection and not the beginning of one.
    Invalid,
    /// Of a connection that is known, or about one.
    Established,
    /// The first of a connection.
    New,
}

/// A rate, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub packets: u32,
    /// In which time.
    pub per: Per,
    /// How many at once after a pause.
    pub burst: u32,
}

/// A unit of time of a [`Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// A second.
    Second,
    /// A minute.
    Minute,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Accept,
    /// It ends here.
    Drop,
    /// The rules of [`Ruleset::lan`] decide; when none does, the next rule is asked.
    Lan,
    /// It is written down with this prefix, and the next rule is asked.
    Log(&'static str),
    /// It leaves under the address of the interface.
    Masquerade,
}

/// Who knocks in vain is written down, but never floods the log (S11).
const LOG_LIMIT: Limit = Limit { packets: 5, per: Per::Minute, burst: 10 };
/// Pings are answered, floods are not.
const ECHO_LIMIT: Limit = Limit { packets: 10, per: Per::Second, burst: 5 };

impl Rule {
    fn new(
        id: &'static str,
        why: &'static str,
        family: Family,
        conditions: impl Into<Vec<Condition>>,
        verdict: Verdict,
    ) -> Self {
        Self { id, why, family, conditions: conditions.into(), verdict }
    }
}

/// What every chain that looks at packets begins with.
fn known(id: &'static str) -> [Rule; 2] {
    let state = |state| [Condition::State(state)];
    [
        Rule::new(id, "of no connection", Family::Any, state(Tracked::Invalid), Verdict::Drop),
        Rule::new(
            id,
            "answers, and what belongs to a known connection",
            Family::Any,
            state(Tracked::Established),
            Verdict::Accept,
        ),
    ]
}

fn log(prefix: &'static str) -> Rule {
    let why = "who knocks in vain is written down, and never floods the log";
    Rule::new("S11", why, Family::Any, [Condition::Limit(LOG_LIMIT)], Verdict::Log(prefix))
}

/// The master's rules (S3, S9, S11, S14): closed to the uplink but for ssh, open to the private
/// wire, and a way out for workers when the owner wants that.
pub fn master(network: &Network) -> Ruleset {
    let (uplink, private) = (network.uplink.clone(), network.interface.clone());
    let (v4, v6, any) = (Family::V4, Family::V6, Family::Any);
    let accept = Verdict::Accept;
    let new = Condition::State(Tracked::New);
    let mut input = vec![Rule::new("S3", "itself", any, [Condition::Loopback], accept)];
    input.extend(known("S3"));
    input.extend([
        Rule::new(
            "S3",
            "the private address is not for the uplink",
            v4,
            [Condition::In(uplink.clone()), Condition::To(network.subnet)],
            Verdict::Drop,
        ),
        Rule::new("S3", "errors on the way", v4, [Condition::IcmpError], accept),
        Rule::new("S3", "errors on the way", v6, [Condition::IcmpError], accept),
        Rule::new("S3", "IPv6 does not work without", v6, [Condition::Neighbours], accept),
        Rule::new("S3", "ping", v4, [Condition::Echo, Condition::Limit(ECHO_LIMIT)], accept),
        Rule::new("S3", "the private wire", any, [Condition::In(private.clone())], Verdict::Lan),
        Rule::new(
            "S3",
            "DHCPv6: the uplink keeps its address, whose giver was asked by multicast",
            v6,
            [Condition::In(uplink.clone()), Condition::UdpFromTo(547, 546)],
            accept,
        ),
        Rule::new(
            "S3",
            "ssh for the admin",
            any,
            [Condition::In(uplink.clone()), Condition::TcpTo(network.ssh_port), new.clone()],
            accept,
        ),
        log("rekindle-drop: "),
    ]);
    let lan = vec![
        Rule::new(
            "S3",
            "DHCP: who asks has no address yet",
            v4,
            [Condition::UdpFromTo(68, 67)],
            accept,
        ),
        Rule::new(
            "S3",
            "everything from the cluster",
            v4,
            [Condition::From(network.subnet)],
            accept,
        ),
    ];
    let mut forward: Vec<_> = known("S14").into();
    let mut masquerade = vec![];
    if network.internet {
        let out = [
            Condition::In(private),
            Condition::Out(uplink.clone()),
            Condition::From(network.subnet),
            Condition::NotTo(network.subnet),
            new,
        ];
        forward.push(Rule::new("S9", "workers reach the internet", v4, out, accept));
        let hidden = [Condition::Out(uplink), Condition::From(network.subnet)];
        let why = "under the master's own address";
        masquerade.push(Rule::new("S2", why, v4, hidden, Verdict::Masquerade));
    }
    forward.push(log("rekindle-drop: "));
    Ruleset { title: "the master's firewall", input, lan, forward, masquerade }
}

/// A worker's rules (S6): open to the cluster, closed to everybody else, IPv6 closed.
pub fn worker(network: &Network) -> Ruleset {
    let accept = Verdict::Accept;
    let from = Condition::From(network.subnet);
    let mut input = vec![Rule::new("S6", "itself", Family::Any, [Condition::Loopback], accept)];
    input.extend(known("S6"));
    input.extend([
        Rule::new("S6", "errors on the way", Family::V4, [Condition::IcmpError], accept),
        Rule::new("S6", "ping", Family::V4, [Condition::Echo], accept),
        Rule::new(
            "S6",
            "MPI and the batch system use any port",
            Family::V4,
            [from.clone(), Condition::Tcp],
            accept,
        ),
        Rule::new(
            "S6",
            "MPI and the batch system use any port",
            Family::V4,
            [from, Condition::Udp],
            accept,
        ),
        log("rekindle-drop: "),
    ]);
    Ruleset {
        title: "a worker's firewall",
        input,
        lan: vec![],
        forward: vec![],
        masquerade: vec![],
    }
}

/// The address that stands for any host behind the uplink (RFC 5737).
pub const SOMEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
