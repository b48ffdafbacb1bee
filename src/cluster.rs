//! What the owner wants: `cluster.toml`, parsed once into an immutable [`Cluster`].
//!
//! Text comes in through [`Cluster::parse`]; what is wrong with it comes out as [`Finding`]s that
//! name file, line, value and fix. Everything else in rekindle only reads a `Cluster`.

mod check;
pub mod edit;
mod file;
pub mod import;
pub mod template;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::mac::Mac;
use crate::machine::Loader;
pub use check::settings::is_public_key;
pub use file::{Finding, Findings, utf8};

use crate::name::{ClientId, DomainName, IfName, KeptMount, NodeName, OsName, Role, UserName};

/// The whole of what the owner asked for. Every MAC, address and name in it is unique, every
/// address lies in the private network and every node's os exists: [`Cluster::parse`] sees to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    network: Network,
    systems: BTreeMap<OsName, Os>,
    installers: BTreeMap<OsName, Foreign>,
    scheduler: Scheduler,
    users: Vec<User>,
    home_over_nfs: bool,
    admin_keys: Vec<String>,
    tries_max: u32,
    nodes: BTreeMap<NodeName, Node>,
    by_mac: BTreeMap<Mac, NodeName>,
    by_ip: BTreeMap<Ipv4Addr, NodeName>,
}

/// The private wire and the master's place on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// The interface to the institute or home network. rekindle never answers there.
    pub uplink: IfName,
    /// What the master calls itself when it asks the uplink for an address; `None`: the system's own way (S1).
    pub uplink_client_id: Option<ClientId>,
    /// Where the master's sshd listens, for its admin out there.
    pub ssh_port: u16,
    /// The interface to the private switch, the only one rekindle answers on.
    pub interface: IfName,
    /// The master's own host name.
    pub master: NodeName,
    /// The master's address on the private interface.
    pub address: Ipv4Addr,
    /// The private subnet.
    pub subnet: Ipv4Net,
    /// Addresses that `node add` hands out when none is given.
    pub workers: AddressRange,
    /// Addresses lent to machines that are not in the cluster yet.
    pub discovery: AddressRange,
    /// The cluster's own DNS domain.
    pub domain: DomainName,
    /// Resolvers of the nodes. Empty: the master's address.
    pub dns: Vec<Ipv4Addr>,
    /// Whether workers may reach hosts behind the uplink (S9).
    pub internet: bool,
    /// Who gives addresses on the private wire.
    pub dhcp: DhcpMode,
    /// Whether machines that are unknown and do not boot from the network (laptops, BMCs) get a
    /// lease too. Off: they meet silence.
    pub strangers: bool,
}

/// Who gives addresses on the private wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhcpMode {
    /// We do, and nobody else.
    Serve,
    /// Another server that has to stay. We only tell machines what to boot (PXE 2.1 section 2.2.3, proxy DHCP): the
    /// other one gives each node the address that stands in `cluster.toml`.
    Proxy,
}

/// An inclusive range of addresses inside the subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, never below the first.
    pub last: Ipv4Addr,
}

/// One install tree and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Os {
    /// Folder with `.treeinfo`.
    pub tree: PathBuf,
    /// The cluster's own package repository for this os, when there is one.
    pub repo: Option<PathBuf>,
    /// Public keys that packages of tree and repo are signed with. Empty: `RPM-GPG-KEY*` of the tree.
    pub gpg_keys: Vec<PathBuf>,
    /// Installed instead on machines that this one cannot run on.
    pub fallback: Option<OsName>,
    /// Least memory in MiB, when the release's own floor is not the owner's.
    pub memory_min_mib: Option<u32>,
}

/// An installer of another system: rekindle boots it and hands it the answers that its owner wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// Where kernel and initrd are.
    pub folder: PathBuf,
    /// Its kernel, below that.
    pub kernel: String,
    /// Its initrd.
    pub initrd: String,
    /// What its kernel is told; `{answers}` stands for the URL of the answer file.
    pub args: Vec<String>,
    /// The answer file, with words to fill in (`foreign`).
    pub answers: PathBuf,
}

/// Stands in [`Foreign::args`] for the URL of the answer file.
pub const ANSWERS: &str = "{answers}";

/// Which batch system the nodes join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// Torque: `pbs_mom` on the nodes, `pbs_server` on the master. Packages exist for el7 and el9.
    Torque,
    /// OpenPBS: its daemon is called `pbs_mom` too. Packages exist for el8 and el9.
    OpenPbs,
    /// Slurm: `slurmd` on the nodes, `slurmctld` on the master. Packages exist for el8 to el10.
    Slurm,
    /// No batch system.
    None,
}

impl Scheduler {
    /// The word of `cluster.toml`; nothing for none.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Torque => Some("torque"),
            Self::OpenPbs => Some("openpbs"),
            Self::Slurm => Some("slurm"),
            Self::None => None,
        }
    }

    /// Whether its daemons know each other by munge's key.
    pub fn uses_munge(self) -> bool {
        match self {
            Self::Torque | Self::Slurm => true,
            Self::OpenPbs | Self::None => false,
        }
    }
}

/// An ordinary user who exists on every node with the same uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: UserName,
    /// uid and gid, at least 1000.
    pub uid: u32,
}

/// How the one disk that may be written is chosen: the smallest fixed one that meets every
/// condition. Removable and USB disks never are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskRule {
    /// Least size in GiB.
    pub min_gib: u32,
    /// Greatest size in GiB.
    pub max_gib: Option<u32>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its World Wide Name.
    pub wwn: Option<String>,
    /// A part of its model's name.
    pub model: Option<String>,
    /// Its device, best one below `/dev/disk/by-path`.
    pub path: Option<String>,
    /// Mount points whose partitions survive a reinstallation.
    pub keep: Vec<KeptMount>,
    /// Size of the root partition in GiB, when others are kept beside it.
    pub root_gib: u32,
    /// Whether a disk that says it is failing is used all the same.
    pub use_failing: bool,
}

/// What happens on a machine that its os cannot run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnfitPolicy {
    /// It waits and says why.
    Hold,
    /// It boots its own disk.
    Local,
}

/// What UEFI firmware tries first after an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootOrder {
    /// The network: the master sends it on to its disk, and can reinstall it.
    Network,
    /// The disk: it starts without the master, and is reinstalled from the firmware's menu.
    Disk,
}

/// A machine of the cluster. Defaults are already filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Host name.
    pub name: NodeName,
    /// Hardware address of the card it boots from; its identity.
    pub mac: Mac,
    /// Its fixed address.
    pub ip: Ipv4Addr,
    /// What is installed on it.
    pub os: OsName,
    /// What it is for.
    pub roles: Vec<Role>,
    /// How it is set up.
    pub settings: Settings,
}

/// What [defaults] says and each node may say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Olson time zone name.
    pub timezone: String,
    /// Console keyboard map.
    pub keyboard: String,
    /// Locale.
    pub language: String,
    /// Further kernel arguments, for installer and installed system.
    pub kernel_args: Vec<String>,
    /// Further packages.
    pub packages: Vec<String>,
    /// Which disk it is installed on.
    pub disk: DiskRule,
    /// What happens when its os cannot run on it.
    pub unfit: UnfitPolicy,
    /// What its UEFI firmware tries first.
    pub boot_order: BootOrder,
    /// The first program that its firmware loads; `None`: the one that suits most machines, and another one when it
    /// does not come back.
    pub loader: Option<Loader>,
}

/// The parts a [`Cluster`] is assembled from, after every one of them was checked.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) network: Network,
    pub(crate) systems: BTreeMap<OsName, Os>,
    pub(crate) installers: BTreeMap<OsName, Foreign>,
    pub(crate) scheduler: Scheduler,
    pub(crate) users: Vec<User>,
    pub(crate) home_over_nfs: bool,
    pub(crate) admin_keys: Vec<String>,
    pub(crate) tries_max: u32,
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// Builds the indexes. Uniqueness was checked before, line by line, with better words.
    pub(crate) fn assemble(parts: Parts) -> Self {
        let Parts {
            network,
            systems,
            installers,
            scheduler,
            users,
            home_over_nfs,
            admin_keys,
            tries_max,
            nodes,
        } = parts;
        let by_mac = nodes.iter().map(|node| (node.mac, node.name.clone())).collect();
        let by_ip = nodes.iter().map(|node| (node.ip, node.name.clone())).collect();
        let nodes = nodes.into_iter().map(|node| (node.name.clone(), node)).collect();
        Self {
            network,
            systems,
            installers,
            scheduler,
            users,
            home_over_nfs,
            admin_keys,
            tries_max,
            nodes,
            by_mac,
            by_ip,
        }
    }

    /// The private wire.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Install trees by name.
    pub fn systems(&self) -> &BTreeMap<OsName, Os> {
        &self.systems
    }

    /// Installers of other systems by name. No name is that of an install tree.
    pub fn installers(&self) -> &BTreeMap<OsName, Foreign> {
        &self.installers
    }

    /// The folder whose files are served under the name of a tree or of another installer.
    pub fn folder(&self, os: &OsName) -> Option<&Path> {
        let tree = self.systems.get(os).map(|os| os.tree.as_path());
        tree.or_else(|| Some(self.installers.get(os)?.folder.as_path()))
    }

    /// The batch system.
    pub fn scheduler(&self) -> Scheduler {
        self.scheduler
    }

    /// Ordinary users.
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// Whether `/home` of the nodes is the master's.
    pub fn home_over_nfs(&self) -> bool {
        self.home_over_nfs
    }

    /// Public keys (OpenSSH one-line form, checked) that may log in to every node as root.
    pub fn admin_keys(&self) -> &[String] {
        &self.admin_keys
    }

    /// How often one arming may release a kickstart before the node is held.
    pub fn tries_max(&self) -> u32 {
        self.tries_max
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node of that name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The node whose card has this address.
    pub fn node_by_mac(&self, mac: Mac) -> Option<&Node> {
        self.by_mac.get(&mac).and_then(|name| self.nodes.get(name))
    }

    /// The node that owns this IP address.
    pub fn node_by_ip(&self, ip: Ipv4Addr) -> Option<&Node> {
        self.by_ip.get(&ip).and_then(|name| self.nodes.get(name))
    }
}

impl Network {
    /// Resolvers as the nodes get them.
    pub fn resolvers(&self) -> Vec<Ipv4Addr> {
        if self.dns.is_empty() { vec![self.address] } else { self.dns.clone() }
    }
}

impl AddressRange {
    /// Whether the range holds `ip`.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&ip)
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Every address, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }
}

#[cfg(test)]
pub(crate) mod sample;
