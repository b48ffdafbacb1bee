//! Kickstarts: a node and its tree -> the text that Anaconda installs it by.
//!
//! The texts live in `kickstart/`, one file a concern; what differs between releases is in the
//! file named after the release. Every value is a typed word of its context.

mod check;
mod disk;

use std::net::Ipv4Addr;

use askama::Template;

use crate::artifacts::{self, FileError, NodeFile};
use crate::cluster::{BootOrder, Cluster, Node, Scheduler, User};
use crate::escape::{KernelArgs, KsWord, PackageWord, Unwritable};
use crate::mac::Mac;
use crate::machine::CpuLevel;
use crate::media::{Release, Tree};
use crate::name::{NodeName, OsName};
use crate::snippets::{Part, Snippet, Snippets};
use crate::trust::{PublicKeys, Token};
use disk::DiskWords;

pub use check::Fault;

/// Everything a kickstart is made of.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The node of it that is installed.
    pub node: &'a Node,
    /// With which os: its own, or the one that stands in for it.
    pub os: &'a OsName,
    /// What it is installed from.
    pub tree: &'a Tree,
    /// Its one-time token.
    pub token: &'a Token,
    /// Keys that are baked in.
    pub keys: &'a PublicKeys,
    /// The owner's own pieces.
    pub snippets: &'a Snippets,
    /// Serial number of the disk it must be installed on, because it was before.
    pub known_disk: Option<&'a str>,
}

/// Why there is no kickstart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// That release has no packages of the batch system.
    #[error(
        "node `{node}`: there are no packages of {scheduler} for {release}; set scheduler.kind to {instead}"
    )]
    Scheduler {
        /// Whose.
        node: NodeName,
        /// What the cluster uses.
        scheduler: &'static str,
        /// What is installed.
        release: Release,
        /// What there is.
        instead: &'static str,
    },
    /// No install tree has packages of a batch system.
    #[error(
        "node `{node}`: {scheduler} is in no install tree; name a folder with its packages as `repo` in [os.{os}]"
    )]
    NoRepository {
        /// Whose.
        node: NodeName,
        /// What the cluster uses.
        scheduler: &'static str,
        /// What is installed.
        os: OsName,
    },
    /// A value does not fit.
    #[error("node `{node}`: {fault}")]
    Value {
        /// Whose.
        node: NodeName,
        /// Which.
        fault: Unwritable,
    },
    /// The rendered text fails a check.
    #[error("node `{node}`: the kickstart is not sound: {fault}")]
    Unsound {
        /// Whose.
        node: NodeName,
        /// Why.
        fault: Fault,
    },
    /// The template engine failed; only a control character in a value does that.
    #[error("node `{node}`: {reason}")]
    Template {
        /// Whose.
        node: NodeName,
        /// Its word.
        reason: String,
    },
}

/// The same words for every release; what differs between releases is in the file named after it.
macro_rules! pages {
    ($($page:ident $path:literal),*) => {
        $(
            #[derive(Template)]
            #[template(path = $path, syntax = "ks")]
            struct $page {
                name: NodeName,
                fqdn: String,
                mac: Mac,
                ip: Ipv4Addr,
                netmask: Ipv4Addr,
                master: Ipv4Addr,
                resolvers: String,
                base: String,
                node_url: String,
                os: OsName,
                has_repo: bool,
                internet: bool,
                torque: bool,
                munge: bool,
                home_over_nfs: bool,
                network_first: bool,
                language: KsWord,
                lang_short: KsWord,
                keyboard: KsWord,
                timezone: KsWord,
                users: Vec<User>,
                services: String,
                packages_of_release: Vec<&'static str>,
                packages: Vec<PackageWord>,
                append: String,
                memory_min_mib: u32,
                memory_advice: &'static str,
                cpu_flags: &'static str,
                keygen_units: &'static str,
                disk: DiskWords,
                gpg_keys: Vec<String>,
                repo_signed: bool,
                files: Vec<NodeFile>,
                snippets_packages: Vec<Snippet>,
                snippets_pre: Vec<Snippet>,
                snippets_post: Vec<Snippet>,
            }

            impl $page {
                fn new(order: &Order<'_>, files: Vec<NodeFile>) -> Result<Self, Unwritable> {
                    let Order { cluster, node, os, tree, token, .. } = *order;
                    let network = cluster.network();
                    let base = artifacts::base_url(cluster);
                    let resolvers: Vec<_> =
                        network.resolvers().iter().map(Ipv4Addr::to_string).collect();
                    let of_os = cluster.systems().get(os);
                    let floor = tree.release.memory_floor_mib();
                    let short: String =
                        node.settings.language.chars().take_while(|letter| *letter != '.').collect();
                    let snippets = |part| {
                        order.snippets.of(node, part).into_iter().cloned().collect::<Vec<_>>()
                    };
                    let packages = node.settings.packages.iter().map(|name| PackageWord::new(name));
                    Ok(Self {
                        name: node.name.clone(),
                        fqdn: format!("{}.{}", node.name, network.domain),
                        mac: node.mac,
                        ip: node.ip,
                        netmask: network.subnet.netmask(),
                        master: network.address,
                        resolvers: resolvers.join(","),
                        node_url: format!("{base}/node/{}", token.reveal()),
                        os: os.clone(),
                        has_repo: of_os.is_some_and(|os| os.repo.is_some()),
                        internet: network.internet,
                        torque: cluster.scheduler() == Scheduler::Torque,
                        munge: cluster.scheduler().uses_munge(),
                        home_over_nfs: cluster.home_over_nfs(),
                        network_first: node.settings.boot_order == BootOrder::Network,
                        language: KsWord::new("language", &node.settings.language)?,
                        lang_short: KsWord::new("language", &short)?,
                        keyboard: KsWord::new("keyboard", &node.settings.keyboard)?,
                        timezone: KsWord::new("timezone", &node.settings.timezone)?,
                        users: cluster.users().to_vec(),
                        services: services(tree.release, cluster.scheduler()).join(","),
                        packages_of_release: packages_of(tree.release, cluster),
                        packages: packages.collect::<Result<_, _>>()?,
                        append: KernelArgs::new(&node.settings.kernel_args)?.append(),
                        memory_min_mib: of_os.and_then(|os| os.memory_min_mib).unwrap_or(floor),
                        memory_advice: memory_advice(tree.release),
                        cpu_flags: cpu_flags(tree.cpu),
                        keygen_units: keygen_units(tree.release),
                        disk: DiskWords::new(&node.settings.disk, order.known_disk)?,
                        gpg_keys: tree.gpg_keys.clone(),
                        repo_signed: tree.repo_signed && of_os.is_some_and(|os| os.repo.is_some()),
                        files,
                        snippets_packages: snippets(Part::Packages),
                        snippets_pre: snippets(Part::Pre),
                        snippets_post: snippets(Part::Post),
                        base,
                    })
                }
            }
        )*
    };
}

pages! { El7 "el7.ks", El8 "el8.ks", El9 "el9.ks", El10 "el10.ks" }

/// Renders the kickstart of a node and checks it before anyone gets it.
pub fn render(order: &Order<'_>) -> Result<String, RenderError> {
    let Order { cluster, node, os, tree, token, keys, .. } = *order;
    if let Some(scheduler) = cluster.scheduler().word() {
        comes_from_somewhere(scheduler, order)?;
    }
    let template = |error: askama::Error| RenderError::Template {
        node: node.name.clone(),
        reason: error.to_string(),
    };
    let value = |fault| RenderError::Value { node: node.name.clone(), fault };
    let files = artifacts::files(cluster, os, tree, keys).map_err(|error| match error {
        FileError::Value(fault) => value(fault),
        FileError::Template(error) => template(error),
    })?;
    let text = match tree.release {
        Release::El7 => El7::new(order, files).map_err(value)?.render(),
        Release::El8 => El8::new(order, files).map_err(value)?.render(),
        Release::El9 => El9::new(order, files).map_err(value)?.render(),
        Release::El10 => El10::new(order, files).map_err(value)?.render(),
    }
    .map_err(template)?
        + "\n";
    let fqdn = format!("{}.{}", node.name, cluster.network().domain);
    let node_url = format!("{}/node/{}", artifacts::base_url(cluster), token.reveal());
    check::check(&text, &fqdn, &node_url)
        .map_err(|fault| RenderError::Unsound { node: node.name.clone(), fault })?;
    Ok(text)
}

/// Whether there are packages of the batch system, and where the nodes can get them.
fn comes_from_somewhere(scheduler: &'static str, order: &Order<'_>) -> Result<(), RenderError> {
    let Order { cluster, node, os, tree, .. } = *order;
    let (node, release) = (node.name.clone(), tree.release);
    if let Some(instead) = instead_of(cluster.scheduler(), release) {
        return Err(RenderError::Scheduler { node, scheduler, release, instead });
    }
    let has_repo = cluster.systems().get(os).is_some_and(|os| os.repo.is_some());
    if has_repo {
        Ok(())
    } else {
        Err(RenderError::NoRepository { node, scheduler, os: os.clone() })
    }
}

/// What there is where there are no packages of a batch system.
fn instead_of(scheduler: Scheduler, release: Release) -> Option<&'static str> {
    match (scheduler, release) {
        (Scheduler::None, _)
        | (Scheduler::Torque, Release::El7 | Release::El9)
        | (Scheduler::OpenPbs, Release::El8 | Release::El9)
        | (Scheduler::Slurm, Release::El8 | Release::El9 | Release::El10) => None,
        (Scheduler::Torque, Release::El8) => Some("\"openpbs\" or \"slurm\""),
        (Scheduler::Torque | Scheduler::OpenPbs, Release::El10) => Some("\"slurm\""),
        (Scheduler::OpenPbs | Scheduler::Slurm, Release::El7) => Some("\"torque\""),
    }
}

fn services(release: Release, scheduler: Scheduler) -> Vec<&'static str> {
    let mut services = vec!["sshd", "chronyd", "rsyslog"];
    services.extend_from_slice(match release {
        Release::El7 | Release::El8 => &["iptables", "ip6tables"][..],
        Release::El9 | Release::El10 => &["nftables"],
    });
    services.extend_from_slice(match scheduler {
        Scheduler::None => &[][..],
        Scheduler::Torque => &["munge", "pbs_mom"],
        Scheduler::OpenPbs => &["pbs"],
        Scheduler::Slurm => &["munge", "slurmd"],
    });
    services
}

fn packages_of(release: Release, cluster: &Cluster) -> Vec<&'static str> {
    let mut packages = match release {
        Release::El7 | Release::El8 => vec!["iptables-services"],
        Release::El9 | Release::El10 => vec!["nftables"],
    };
    packages.extend_from_slice(match cluster.scheduler() {
        Scheduler::None => &[][..],
        // Without the base package there is no server_name.
        Scheduler::Torque => &["munge", "torque", "torque-client", "torque-mom"],
        Scheduler::OpenPbs => &["openpbs-execution"],
        Scheduler::Slurm => &["munge", "slurm", "slurm-slurmd"],
    });
    if cluster.home_over_nfs() {
        packages.push("nfs-utils");
    }
    packages
}

/// What makes host keys of its own; only the one of `%post` is wanted.
fn keygen_units(release: Release) -> &'static str {
    match release {
        Release::El7 => "sshd-keygen.service",
        Release::El8 | Release::El9 | Release::El10 => {
            "sshd-keygen@rsa.service sshd-keygen@ecdsa.service"
        }
    }
}

/// What else helps who has too little memory.
fn memory_advice(release: Release) -> &'static str {
    if release == Release::El7 { "" } else { ", or choose el7" }
}

/// The flags of `/proc/cpuinfo` that make up a level of the psABI.
fn cpu_flags(level: CpuLevel) -> &'static str {
    match level {
        CpuLevel::V0 | CpuLevel::V1 => "lm",
        CpuLevel::V2 => "lm cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
        CpuLevel::V3 => {
            "lm cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 abm avx avx2 bmi1 bmi2 f16c fma movbe"
        }
    }
}

#[cfg(test)]
mod tests;
