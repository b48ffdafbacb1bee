//! The master itself: what `cluster.toml` wants of it and what is there ([`Facts`]) -> a [`Plan`]
//! that shows every byte that would change, and why. Pure; `cmd::master` looks and carries out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::cluster::{Cluster, Scheduler};
use crate::name::IfName;
use crate::stage::State;
use batch::{Batch, Pbs, Told};

pub mod batch;
pub mod files;

/// A part of the master that can be set up by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The address on the private interface.
    Network,
    /// The packet filter.
    Firewall,
    /// Forwarding, and room for connections.
    Nat,
    /// Names of the nodes.
    Names,
    /// ssh to the nodes without a question.
    Ssh,
    /// The nodes' clock.
    Time,
    /// The cluster's own packages.
    Repo,
    /// The batch system's server.
    Scheduler,
    /// Who guesses passwords is locked out.
    Fail2ban,
}

impl Area {
    /// In the order they are carried out: rules come before forwarding.
    pub const ALL: [Self; 9] = [
        Self::Network,
        Self::Firewall,
        Self::Nat,
        Self::Names,
        Self::Ssh,
        Self::Time,
        Self::Repo,
        Self::Scheduler,
        Self::Fail2ban,
    ];

    /// The word of `--only`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Firewall => "firewall",
            Self::Nat => "nat",
            Self::Names => "names",
            Self::Ssh => "ssh",
            Self::Time => "time",
            Self::Repo => "repo",
            Self::Scheduler => "scheduler",
            Self::Fail2ban => "fail2ban",
        }
    }

    /// Whether a mistake in it can lock the admin out, so that it must be confirmed.
    pub fn is_risky(self) -> bool {
        matches!(self, Self::Network | Self::Firewall | Self::Nat)
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What configures network interfaces on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// NetworkManager with keyfiles (Enterprise Linux 8 and later).
    NetworkManager,
    /// `ifcfg` files (Enterprise Linux 7).
    Ifcfg,
    /// systemd-networkd.
    Networkd,
    /// ifupdown (Debian).
    Ifupdown,
}

/// What loads packet filter rules on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// nft, by a unit of our own.
    Nft,
    /// `iptables-services` (Enterprise Linux 7).
    Iptables,
}

/// What is there, as far as the plan needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What the machine calls itself, without a domain.
    pub host_name: String,
    /// Who configures the interfaces.
    pub wiring: Wiring,
    /// Who loads the rules.
    pub filter: Filter,
    /// The interfaces.
    pub links: Vec<Link>,
    /// TCP ports that sshd listens on, and the one that this very session came by.
    pub ssh_ports: BTreeSet<u16>,
    /// Files by path; those that are not there are missing.
    pub files: BTreeMap<String, Found>,
    /// Settings of the running kernel by name.
    pub sysctls: BTreeMap<String, u64>,
    /// Whether our rules are loaded.
    pub rules_loaded: bool,
    /// Whether munge has the cluster's key.
    pub has_munge_key: bool,
    /// What the server of Torque or OpenPBS says of itself.
    pub batch: Batch,
    /// Folders of `[os.…] repo` without an index, or with one that is older than their packages.
    pub unindexed: BTreeSet<PathBuf>,
    /// Managers of packet filters that are at work: `firewalld`, `ufw`.
    pub other_filters: Vec<String>,
    /// Tables of nft that are not ours: `ip filter`, `inet f2b-table` …
    pub other_tables: Vec<String>,
    /// Programs to look at a network with that are not there; nothing needs them (S11).
    pub tools_missing: Vec<&'static str>,
    /// Programs and packages that an area needs and that are not there.
    pub missing: BTreeMap<Area, Vec<String>>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// Its addresses.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether a default route leaves through it.
    pub has_default_route: bool,
}

/// A file as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub text: String,
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In the order they are done.
    pub steps: Vec<Step>,
    /// What stays as it is although somebody may expect otherwise.
    pub left_alone: Vec<String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which part of the master it belongs to.
    pub area: Area,
    /// The requirement that it is there for.
    pub id: &'static str,
    /// Why, in a few words.
    pub why: &'static str,
    /// What.
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A file gets a new text, whole or not at all.
    Write {
        /// Which.
        path: String,
        /// As it is; `None` when it is not there.
        before: Option<Found>,
        /// As it will be.
        after: Found,
    },
    /// The running kernel gets a setting.
    Sysctl {
        /// Its name.
        name: &'static str,
        /// As it is.
        before: Option<u64>,
        /// As it will be.
        after: u64,
    },
    /// The running interface gets its address, and is switched on.
    Address {
        /// Which.
        link: IfName,
        /// What it gets.
        address: Ipv4Addr,
        /// Prefix length.
        prefix: u8,
    },
    /// The rules of the packet filter are loaded.
    LoadRules(Filter),
    /// An index of all packages in a folder, which is made when it is not there.
    Index(PathBuf),
    /// munge gets the cluster's key, which is shown to nobody.
    MungeKey,
    /// Torque's server keeps its books for the first time.
    TorqueDatabase,
    /// The server of Torque or OpenPBS is told what it should know.
    Qmgr(Pbs, Told),
    /// A service is to start at boot, and not now.
    Enable {
        /// Its unit.
        unit: &'static str,
    },
    /// A service is started, when there is systemd: now, or told to read its files anew, and at boot.
    Service {
        /// Its unit.
        unit: &'static str,
    },
}

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such interface.
    #[error("there is no interface `{0}`; `ip -br link` lists those there are")]
    NoLink(IfName),
    /// The two interfaces are the other way round.
    #[error(
        "{private} carries the default route and {uplink} does not: they look swapped; exchange network.uplink and network.interface, or the cables"
    )]
    Swapped {
        /// What cluster.toml calls the private one.
        private: IfName,
        /// What it calls the uplink.
        uplink: IfName,
    },
    /// The private interface leads outside.
    #[error("{0} carries a default route: it leads to another network, not to a private switch")]
    PrivateLeadsOut(IfName),
    /// Two networks with the same addresses.
    #[error(
        "the private subnet {private} overlaps {other} on {link}: choose another one for network.address"
    )]
    Overlap {
        /// The subnet of cluster.toml.
        private: Ipv4Net,
        /// What it meets.
        other: Ipv4Net,
        /// Where.
        link: IfName,
    },
    /// Somebody else filters packets.
    #[error(
        "{0} filters packets on this machine too, and the two would not know of each other; switch it off, or leave the firewall out: --only network,nat,names,ssh,time,repo,scheduler,fail2ban"
    )]
    OtherFilter(String),
    /// The interface is configured elsewhere.
    #[error("{path} configures {link} already; take that out, or leave the network out")]
    Configured {
        /// The file.
        path: String,
        /// The interface.
        link: IfName,
    },
    /// The admin would be locked out.
    #[error(
        "ssh comes in by port {found} here, and only {open} would stay open: you would be locked out; write ssh_port = {found} into [network], or leave the firewall out"
    )]
    SshPort {
        /// Where sshd is.
        found: u16,
        /// What cluster.toml says.
        open: u16,
    },
    /// The system cannot send such a name.
    #[error(
        "systemd-networkd sends no text as client id on {0}; take network.uplink_client_id out, or leave the network out"
    )]
    ClientId(IfName),
    /// Something is not installed.
    #[error("{area} needs {what}, which is not installed: {install}")]
    Missing {
        /// Which part.
        area: Area,
        /// The packages.
        what: String,
        /// The command that installs them.
        install: String,
    },
}

/// Established connections are remembered so long at least, in seconds (S2).
const TRACKED_SECONDS: u64 = 86_400;
/// So many connections at least (S2).
const TRACKED_MAX: u64 = 131_072;
/// Names of the kernel's settings.
const FORWARD: &str = "net.ipv4.ip_forward";
const TIMEOUT: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
const CONNECTIONS: &str = "net.netfilter.nf_conntrack_max";
/// The settings that facts must hold.
pub const SYSCTLS: [&str; 3] = [FORWARD, TIMEOUT, CONNECTIONS];

/// What the master is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// What its owner wants.
    pub cluster: &'a Cluster,
    /// What is known of the nodes.
    pub state: &'a State,
    /// The public key that signs the nodes' host keys.
    pub host_ca: &'a str,
    /// Where rekindle's own things are.
    pub paths: &'a Paths,
}

/// Where rekindle's own things are: for files of the system that name them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    /// The program.
    pub program: String,
    /// `cluster.toml`.
    pub config: String,
    /// Journal and secrets.
    pub state: String,
}

/// Where it is written down what was done, beside the daemon's own folder: root does what it says.
pub fn record_dir(state: &Path) -> PathBuf {
    let mut name = state.file_name().unwrap_or_default().to_owned();
    name.push("-master");
    state.with_file_name(name)
}

/// What would be done to make this machine the master, in the areas that are asked for.
pub fn plan(wish: &Wish<'_>, facts: &Facts, areas: &[Area]) -> Result<Plan, Vec<Refusal>> {
    let cluster = wish.cluster;
    let refusals = refusals(cluster, facts, areas);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut steps = vec![];
    // First of all: from here on a power cut undoes what nobody confirmed.
    if let Some(area) = Area::ALL.into_iter().find(|area| area.is_risky() && areas.contains(area))
        && let Some(step) = write(area, files::rollback(wish), facts)
    {
        let (id, why) = (step.id, step.why);
        steps.push(step);
        steps.push(Step { area, id, why, action: Action::Enable { unit: files::ROLLBACK_UNIT } });
    }
    for area in Area::ALL.into_iter().filter(|area| areas.contains(area)) {
        let before = steps.len();
        for file in files::of(area, wish, facts) {
            steps.extend(write(area, file, facts));
        }
        let has_changed = steps.len() > before;
        live(area, wish, facts, has_changed, &mut steps);
    }
    Ok(Plan { steps, left_alone: left_alone(cluster, facts, areas) })
}

/// A file that the master should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub path: String,
    /// The requirement.
    pub id: &'static str,
    /// Why.
    pub why: &'static str,
    /// Permission bits of a new file; one that is there keeps its own unless `is_private`.
    pub mode: u32,
    /// Whether others must not read it.
    pub is_private: bool,
    /// What is in it.
    pub text: String,
}

fn write(area: Area, wanted: Wanted, facts: &Facts) -> Option<Step> {
    let Wanted { path, id, why, mode, is_private, text } = wanted;
    let before = facts.files.get(&path).cloned();
    let mode = before.as_ref().map_or(mode, |found| if is_private { mode } else { found.mode });
    let after = Found { mode, text };
    if before.as_ref() == Some(&after) {
        return None;
    }
    Some(Step { area, id, why, action: Action::Write { path, before, after } })
}

/// What the running system needs besides its files.
fn live(area: Area, wish: &Wish<'_>, facts: &Facts, has_changed: bool, steps: &mut Vec<Step>) {
    let cluster = wish.cluster;
    let network = cluster.network();
    let mut add = |id, why, action| steps.push(Step { area, id, why, action });
    match area {
        Area::Network => {
            let (address, prefix) = (network.address, network.subnet.prefix_len());
            let link = facts.links.iter().find(|link| link.name == network.interface);
            let is_there =
                link.is_some_and(|link| link.is_up && link.addresses.contains(&(address, prefix)));
            if !is_there {
                let action = Action::Address { link: network.interface.clone(), address, prefix };
                add("S1", "the private wire's address, now", action);
            }
        }
        Area::Firewall if has_changed || !facts.rules_loaded => {
            add("S3", "the rules are loaded in one step", Action::LoadRules(facts.filter));
            let unit = match facts.filter {
                Filter::Nft => "rekindle-firewall.service",
                Filter::Iptables => "iptables.service",
            };
            add("S3", "they come back at boot", Action::Service { unit });
            if facts.filter == Filter::Iptables {
                let unit = "ip6tables.service";
                add("S3", "they come back at boot", Action::Service { unit });
            }
        }
        Area::Nat => {
            for (name, after, why) in settings(cluster, facts) {
                let before = facts.sysctls.get(name).copied();
                if before != Some(after) {
                    add("S2", why, Action::Sysctl { name, before, after });
                }
            }
        }
        Area::Time if has_changed => {
            let unit = if facts.wiring == Wiring::Ifupdown || facts.wiring == Wiring::Networkd {
                "chrony.service"
            } else {
                "chronyd.service"
            };
            add("S13", "the nodes' clock", Action::Service { unit });
        }
        Area::Repo => {
            for dir in &facts.unindexed {
                add("S7", "nodes find its packages", Action::Index(dir.clone()));
            }
        }
        Area::Scheduler => live_scheduler(wish, facts, has_changed, add),
        Area::Fail2ban if has_changed => {
            let action = Action::Service { unit: "fail2ban.service" };
            add("S11", "who guesses passwords is locked out", action);
        }
        Area::Firewall | Area::Names | Area::Ssh | Area::Time | Area::Fail2ban => {}
    }
}

/// S13: keys, books, services, and what the server is told.
fn live_scheduler(
    wish: &Wish<'_>,
    facts: &Facts,
    has_changed: bool,
    mut add: impl FnMut(&'static str, &'static str, Action),
) {
    let scheduler = wish.cluster.scheduler();
    let has_new_key = scheduler.uses_munge() && !facts.has_munge_key;
    if has_new_key {
        add("S13", "who may talk to the batch system", Action::MungeKey);
        add("S13", "the key is read", Action::Service { unit: "munge.service" });
    }
    let why = "the batch system's server";
    let is_fresh = has_changed || has_new_key;
    if scheduler == Scheduler::Slurm && is_fresh {
        add("S13", why, Action::Service { unit: "slurmctld.service" });
    }
    if let Some(pbs) = Pbs::of(scheduler) {
        let batch = &facts.batch;
        if pbs == Pbs::Torque && !batch.has_database {
            add("S13", "an empty set of books, made once", Action::TorqueDatabase);
        }
        if is_fresh || batch.server.is_none() {
            for unit in pbs.units() {
                add("S13", why, Action::Service { unit });
            }
        }
        let told = batch::told(pbs, wish, batch);
        if !told.lines.is_empty() {
            add("S13", "its queue, and the nodes that are up", Action::Qmgr(pbs, told));
        }
    }
    if scheduler != Scheduler::None && has_changed {
        add("S13", "nodes join by themselves", Action::Service { unit: files::JOIN_TIMER });
    }
}

/// Settings of the kernel: never lower than they are.
pub(crate) fn settings(cluster: &Cluster, facts: &Facts) -> Vec<(&'static str, u64, &'static str)> {
    let at_least =
        |name: &str, least: u64| facts.sysctls.get(name).map_or(least, |now| least.max(*now));
    let mut found = vec![
        (TIMEOUT, at_least(TIMEOUT, TRACKED_SECONDS), "long jobs keep their connections"),
        (CONNECTIONS, at_least(CONNECTIONS, TRACKED_MAX), "room for many connections"),
    ];
    if cluster.network().internet {
        found.push((FORWARD, 1, "workers reach the internet through the master"));
    }
    found
}

fn refusals(cluster: &Cluster, facts: &Facts, areas: &[Area]) -> Vec<Refusal> {
    let network = cluster.network();
    let link = |name: &IfName| facts.links.iter().find(|link| link.name == *name);
    let mut found = vec![];
    for name in [&network.uplink, &network.interface] {
        if link(name).is_none() {
            found.push(Refusal::NoLink(name.clone()));
        }
    }
    if let (Some(uplink), Some(private)) = (link(&network.uplink), link(&network.interface))
        && private.has_default_route
    {
        let (private, uplink_name) = (private.name.clone(), uplink.name.clone());
        found.push(if uplink.has_default_route {
            Refusal::PrivateLeadsOut(private)
        } else {
            Refusal::Swapped { private, uplink: uplink_name }
        });
    }
    for other in facts.links.iter().filter(|link| link.name != network.interface) {
        for &(address, prefix) in &other.addresses {
            let Ok(theirs) = Ipv4Net::new(address, prefix) else { continue };
            let ours = network.subnet;
            if ours.contains(&theirs.network()) || theirs.contains(&ours.network()) {
                let (other, link) = (theirs.trunc(), other.name.clone());
                found.push(Refusal::Overlap { private: ours, other, link });
            }
        }
    }
    if areas.contains(&Area::Firewall) {
        let open = network.ssh_port;
        let other = facts.ssh_ports.iter().find(|port| **port != open);
        if let Some(&port) = other.filter(|_| !facts.ssh_ports.contains(&open)) {
            found.push(Refusal::SshPort { found: port, open });
        }
        found.extend(facts.other_filters.iter().cloned().map(Refusal::OtherFilter));
    }
    if areas.contains(&Area::Network) {
        found.extend(files::unfit(network, facts));
    }
    for (area, names) in facts.missing.iter().filter(|(area, _)| areas.contains(area)) {
        let what = names.join(", ");
        let is_debian = matches!(facts.wiring, Wiring::Ifupdown | Wiring::Networkd);
        if *area == Area::Scheduler && is_debian && Pbs::of(cluster.scheduler()).is_some() {
            let install =
                "Debian has no such package; take [scheduler] kind = \"slurm\", or build it"
                    .to_owned();
            found.push(Refusal::Missing { area: *area, what, install });
            continue;
        }
        let program = match facts.wiring {
            Wiring::Ifupdown | Wiring::Networkd => "apt-get install",
            Wiring::NetworkManager => "dnf install",
            Wiring::Ifcfg => "yum install",
        };
        let install = format!("{program} {}", names.join(" "));
        found.push(Refusal::Missing { area: *area, what, install });
    }
    found
}

fn left_alone(cluster: &Cluster, facts: &Facts, areas: &[Area]) -> Vec<String> {
    let network = cluster.network();
    let mut found =
        vec![format!("{}: address and routes of the uplink stay as they are", network.uplink)];
    if network.uplink_client_id.is_some() && areas.contains(&Area::Network) {
        found.push(format!("{}: its client id is sent from its next start on", network.uplink));
    }
    if !facts.tools_missing.is_empty() {
        let names = facts.tools_missing.join(" ");
        found.push(format!("not installed, and good to look with: {names}"));
    }
    if !network.internet && areas.contains(&Area::Nat) {
        let now = facts.sysctls.get(FORWARD).copied().unwrap_or(0);
        found.push(format!("{FORWARD} = {now}: workers have no internet, and nothing needs it"));
    }
    if areas.contains(&Area::Firewall) {
        let stays = |table: &String| format!("table {table} stays; what it drops stays dropped");
        found.extend(facts.other_tables.iter().map(stays));
    }
    found.extend(Pbs::of(cluster.scheduler()).and_then(|pbs| batch::left_alone(pbs, facts, areas)));
    let left_out: Vec<_> =
        Area::ALL.into_iter().filter(|area| !areas.contains(area)).map(Area::word).collect();
    if !left_out.is_empty() {
        found.push(format!("not asked for: {}", left_out.join(", ")));
    }
    found
}

#[cfg(test)]
mod tests;
