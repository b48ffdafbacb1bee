//! What is wrong with this master, by name: [`Signs`] that were looked for -> [`Finding`]s with what was
//! seen and what to do. Pure; `cmd::doctor` looks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::cluster::{Cluster, DhcpMode};
use crate::mac::Mac;
use crate::machine::Loader;
use crate::name::{IfName, NodeName, OsName};
use crate::setup::{Facts, Plan, Refusal};
use crate::stage::{Stage, State, TimestampMs};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check's name, for scripts and for people who look it up.
    pub check: &'static str,
    /// What was seen.
    pub evidence: String,
    /// What to do.
    pub fix: String,
}

/// What was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signs {
    /// This machine as a plan sees it.
    pub facts: Facts,
    /// Cable and packet size of each interface.
    pub wires: BTreeMap<IfName, Wire>,
    /// Who listens on ports that `serve` needs.
    pub listeners: Vec<Listener>,
    /// Loaders that are not on this machine.
    pub loaders_missing: Vec<Loader>,
    /// Install trees and repositories that cannot be used, and why.
    pub broken: Vec<Broken>,
    /// Free MiB where the journal is.
    pub free_mib: Option<u64>,
    /// Secrets that cannot be used, and why: `can be read by others`.
    pub secrets: Option<String>,
    /// Why the journal cannot be read.
    pub journal: Option<String>,
    /// This machine's clock.
    pub now_ms: TimestampMs,
    /// Whether something keeps the clock right; `None` when that is unknown.
    pub clock_kept: Option<bool>,
    /// Other DHCP servers that offered an address on the private wire.
    pub offers: Vec<Ipv4Addr>,
    /// What else goes by on the private wire.
    pub passing: Passing,
    /// A program that SELinux may not let systemd start, and its label.
    pub mislabelled: Option<String>,
    /// What the daemon's user may not read.
    pub hidden: BTreeSet<PathBuf>,
    /// Who answered at the addresses of nodes that are up; `None` nobody.
    pub answers: BTreeMap<Ipv4Addr, Option<Mac>>,
    /// Whether a change of the master waits to be confirmed.
    pub is_pending: bool,
}

/// A card's wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wire {
    /// Whether there is a cable with somebody at its other end; `None` while the card is off.
    pub carrier: Option<bool>,
    /// Longest packet.
    pub mtu: u32,
}

/// What goes by on a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passing {
    /// A switch speaks of spanning tree.
    pub spanning_tree: bool,
    /// Another card uses the master's address.
    pub twin: Option<Mac>,
}

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// `udp 67`, `tcp 80`.
    pub port: &'static str,
    /// The program's name.
    pub program: String,
}

/// Something on disk that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which os.
    pub os: OsName,
    /// What of it.
    pub what: What,
    /// Why.
    pub why: String,
}

/// A kind of [`Broken`] thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The install tree is not there or not whole.
    Tree,
    /// A file of it is not what its own checksums say.
    Checksum,
    /// The cluster's own repository.
    Repository,
    /// Packages in it that its index does not know.
    Stale,
}

/// Every check's name.
pub const CHECKS: [&str; 38] = [
    "config",
    "no-interface",
    "swapped",
    "leads-out",
    "overlap",
    "configured-twice",
    "client-id",
    "ssh-port",
    "missing-package",
    "other-firewall",
    "link-down",
    "no-cable",
    "no-address",
    "small-packets",
    "rogue-dhcp",
    "address-twice",
    "spanning-tree",
    "port-taken",
    "not-serving",
    "no-rules",
    "no-forwarding",
    "open-forwarding",
    "loader-missing",
    "tree-broken",
    "tree-corrupt",
    "repository-broken",
    "repository-stale",
    "label",
    "hidden",
    "disk-full",
    "secrets",
    "journal",
    "clock-behind",
    "clock-alone",
    "wrong-card",
    "node-silent",
    "node-waits",
    "unconfirmed",
];

/// Least room for the journal and the logs.
const FREE_MIB: u64 = 512;
/// Longest packet that every loader sends; less and transfers stop in the middle.
const MTU: u32 = 1500;
/// How far the clock may be behind the last thing that was written down.
const BEHIND_MS: u64 = 60_000;

/// Names everything that is wrong. `plan` is what would make this machine the master.
pub fn diagnose(
    cluster: &Cluster,
    state: &State,
    plan: &Result<Plan, Vec<Refusal>>,
    signs: &Signs,
) -> Vec<Finding> {
    let mut found = vec![];
    if let Err(refusals) = plan {
        found.extend(refusals.iter().map(refusal));
    }
    found.extend(wire(cluster, signs));
    found.extend(serving(signs));
    found.extend(rules(cluster, &signs.facts));
    found.extend(on_disk(signs));
    found.extend(clock(state, signs));
    found.extend(nodes(cluster, state, signs));
    if signs.is_pending {
        found.push(finding(
            "unconfirmed",
            "a change of this machine waits to be confirmed, or will be undone",
            "rekindle master confirm",
        ));
    }
    found
}

fn finding(check: &'static str, evidence: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check, evidence: evidence.into(), fix: fix.into() }
}

/// What stops a plan is wrong too; its words name the fix.
fn refusal(refusal: &Refusal) -> Finding {
    let check = match refusal {
        Refusal::NoLink(_) => "no-interface",
        Refusal::Swapped { .. } => "swapped",
        Refusal::PrivateLeadsOut(_) => "leads-out",
        Refusal::Overlap { .. } => "overlap",
        Refusal::OtherFilter(_) => "other-firewall",
        Refusal::Configured { .. } => "configured-twice",
        Refusal::ClientId(_) => "client-id",
        Refusal::SshPort { .. } => "ssh-port",
        Refusal::Missing { .. } => "missing-package",
    };
    let text = refusal.to_string();
    let (evidence, fix) = text
        .split_once("; ")
        .or_else(|| text.split_once(": "))
        .map_or((text.as_str(), "rekindle master plan"), |parts| parts);
    finding(check, evidence, fix)
}

/// The private wire: cable, address, other servers on it.
fn wire(cluster: &Cluster, signs: &Signs) -> Vec<Finding> {
    let network = cluster.network();
    let name = &network.interface;
    let mut found = vec![];
    if let Some(link) = signs.facts.links.iter().find(|link| link.name == *name) {
        let has_address = link.addresses.iter().any(|(address, _)| *address == network.address);
        if !link.is_up {
            found.push(finding(
                "link-down",
                format!("{name} is off"),
                format!("ip link set {name} up"),
            ));
        }
        if !has_address {
            let (address, prefix) = (network.address, network.subnet.prefix_len());
            let fix = "rekindle master apply --only network";
            found.push(finding("no-address", format!("{name} lacks {address}/{prefix}"), fix));
        }
    }
    if let Some(wire) = signs.wires.get(name) {
        if wire.carrier == Some(false) {
            let fix = "plug the cable in, and switch the switch on";
            found.push(finding(
                "no-cable",
                format!("{name} is on, and nobody is at its other end"),
                fix,
            ));
        }
        if wire.mtu < MTU {
            let evidence =
                format!("{name} sends at most {} bytes, loaders take {MTU} for granted", wire.mtu);
            found.push(finding("small-packets", evidence, format!("ip link set {name} mtu {MTU}")));
        }
    }
    if let Some(twin) = signs.passing.twin {
        let evidence = format!("{twin} has the master's address {} too", network.address);
        found.push(finding("address-twice", evidence, "give that machine another address"));
    }
    if signs.passing.spanning_tree {
        let evidence = format!(
            "the switch at {name} does spanning tree: its ports may stay silent for 30 s after a machine is \
             switched on, and a network boot has given up by then"
        );
        let fix = "make the workers' ports edge ports (portfast), or switch spanning tree off";
        found.push(finding("spanning-tree", evidence, fix));
    }
    let rogues = signs.offers.iter().filter(|_| network.dhcp == DhcpMode::Serve);
    found.extend(rogues.map(|server| {
        let evidence = format!("{server} answers DHCP on {name}");
        finding(
            "rogue-dhcp",
            evidence,
            "switch it off, or take it off the private switch: machines would boot from it",
        )
    }));
    found
}

/// `serve` and its ports.
fn serving(signs: &Signs) -> Vec<Finding> {
    let is_ours = |listener: &&Listener| listener.program == "rekindle";
    let others = signs.listeners.iter().filter(|listener| !is_ours(listener));
    let mut found: Vec<_> = others
        .map(|Listener { port, program }| {
            finding("port-taken", format!("{program} listens on {port}"), format!("stop {program}"))
        })
        .collect();
    if !signs.listeners.iter().any(|listener| is_ours(&listener)) {
        let fix = "systemctl enable --now rekindle (or: rekindle serve)";
        found.push(finding("not-serving", "rekindle does not serve", fix));
    }
    found.extend(signs.loaders_missing.iter().map(|loader| {
        let fix = if *loader == Loader::Pxelinux {
            "install pxelinux and syslinux-common (Debian) or syslinux (Enterprise Linux)"
        } else {
            "install ipxe (Debian) or ipxe-bootimgs (Enterprise Linux)"
        };
        finding("loader-missing", format!("{loader} is not on this machine"), fix)
    }));
    found
}

/// The packet filter as it is now.
fn rules(cluster: &Cluster, facts: &Facts) -> Vec<Finding> {
    let is_forwarding = facts.sysctls.get("net.ipv4.ip_forward").is_some_and(|value| *value != 0);
    let mut found = vec![];
    if !facts.rules_loaded {
        let fix = "rekindle master apply --only firewall";
        found.push(finding("no-rules", "the master's firewall is not loaded", fix));
        if is_forwarding {
            let evidence = "this machine forwards packets, and no rule says which";
            found.push(finding("open-forwarding", evidence, fix));
        }
    }
    if cluster.network().internet && !is_forwarding {
        let evidence = "`internet` is on, and this machine forwards nothing";
        found.push(finding("no-forwarding", evidence, "rekindle master apply --only firewall,nat"));
    }
    found
}

/// Trees, repositories, room, secrets, journal.
fn on_disk(signs: &Signs) -> Vec<Finding> {
    let mut found: Vec<_> = signs
        .broken
        .iter()
        .map(|Broken { os, what, why }| {
            let (check, fix) = match what {
                What::Tree => {
                    ("tree-broken", "copy the whole DVD there again, its hidden files too")
                }
                What::Checksum => ("tree-corrupt", "copy the DVD there again, and check the disk"),
                What::Repository => ("repository-broken", "rekindle master apply --only repo"),
                What::Stale => ("repository-stale", "rekindle master apply --only repo"),
            };
            finding(check, format!("{os}: {why}"), fix)
        })
        .collect();
    if let Some(free) = signs.free_mib.filter(|free| *free < FREE_MIB) {
        let evidence =
            format!("{free} MiB are free for the journal; nothing is installed when it is full");
        found.push(finding("disk-full", evidence, "make room"));
    }
    found.extend(
        signs.mislabelled.iter().map(|what| {
            finding("label", what, "restorecon on it: SELinux may not let it be started")
        }),
    );
    found.extend(signs.hidden.iter().map(|path| {
        let path = path.display();
        let evidence = format!("rekindle's own user may not look into {path}");
        finding("hidden", evidence, format!("chmod o+rX {path}, or put it elsewhere"))
    }));
    found.extend(signs.secrets.iter().map(|why| {
        finding("secrets", why, "chmod -R go= on the folder of secrets, or restore it")
    }));
    found.extend(
        signs.journal.iter().map(|why| finding("journal", why, "restore it from a backup")),
    );
    found
}

/// munge and certificates want the right time.
fn clock(state: &State, signs: &Signs) -> Vec<Finding> {
    let mut found = vec![];
    let last = state.all().map(|(_, progress)| progress.since_ms).max().unwrap_or(0);
    if signs.now_ms + BEHIND_MS < last {
        let seconds = (last - signs.now_ms) / 1000;
        let evidence = format!("the clock is {seconds} s behind what was last written down");
        found.push(finding("clock-behind", evidence, "set the clock: chronyc makestep"));
    }
    if signs.clock_kept == Some(false) {
        let evidence = "nothing keeps this machine's clock right, and all nodes follow it";
        found.push(finding(
            "clock-alone",
            evidence,
            "install chrony, and let it reach a time server",
        ));
    }
    found
}

/// Nodes that should be there, and those that wait for their owner.
fn nodes(cluster: &Cluster, state: &State, signs: &Signs) -> Vec<Finding> {
    let mut found = vec![];
    for node in cluster.nodes() {
        let name: &NodeName = &node.name;
        match signs.answers.get(&node.ip) {
            Some(None) => {
                let evidence = format!("{name} was up and does not answer at {}", node.ip);
                found.push(finding(
                    "node-silent",
                    evidence,
                    "switch it on, look at its screen and cable",
                ));
            }
            Some(Some(mac)) if *mac != node.mac => {
                let evidence =
                    format!("{mac} answers at {}, which belongs to {name} ({})", node.ip, node.mac);
                let fix =
                    "two machines have one address, or the card was changed: correct cluster.toml";
                found.push(finding("wrong-card", evidence, fix));
            }
            Some(Some(_)) | None => {}
        }
        let progress = state.progress(node.mac);
        if let Some(progress) =
            progress.filter(|it| matches!(it.stage, Stage::Failed | Stage::Held))
        {
            let why: String =
                progress.detail.lines().last().unwrap_or_default().chars().take(200).collect();
            let evidence = format!("{name} is {}: {why}", progress.stage);
            found.push(finding(
                "node-waits",
                evidence,
                format!("rekindle log {name}; then: rekindle node reinstall {name}"),
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests;
