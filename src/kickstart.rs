//! Kickstarts: a node and its tree -> the text that Anaconda installs it by.
//!
//! The texts live in `kickstart/`, one file a concern; what differs between releases is in the
//! file named after the release. Every value is a typed word of its context.

mod check;

use std::net::Ipv4Addr;

use askama::Template;
use ipnet::Ipv4Net;

use crate::artifacts;
use crate::cluster::{Cluster, DiskRule, Node, Scheduler, User};
use crate::escape::{HereLine, KernelArgs, KsWord, PackageWord, ShWord, Unwritable};
use crate::mac::Mac;
use crate::media::{Release, Tree};
use crate::name::{NodeName, OsName};
use crate::trust::{PublicKeys, Token};

pub use check::Fault;

/// Everything a kickstart is made of.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The node of it that is installed.
    pub node: &'a Node,
    /// What it is installed from.
    pub tree: &'a Tree,
    /// Its one-time token.
    pub token: &'a Token,
    /// Keys that are baked in.
    pub keys: &'a PublicKeys,
}

/// Why there is no kickstart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// That release has no template yet.
    #[error("node `{node}`: kickstarts for {release} are not made yet; use an el9 tree")]
    Release {
        /// Whose.
        node: NodeName,
        /// Which.
        release: Release,
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

/// The words of an Enterprise Linux 9 kickstart.
#[derive(Template)]
#[template(path = "el9.ks", syntax = "ks")]
struct El9 {
    name: NodeName,
    fqdn: String,
    mac: Mac,
    ip: Ipv4Addr,
    netmask: Ipv4Addr,
    subnet: Ipv4Net,
    master: Ipv4Addr,
    master_name: NodeName,
    resolvers: String,
    base: String,
    node_url: String,
    os: OsName,
    has_repo: bool,
    internet: bool,
    torque: bool,
    language: KsWord,
    lang_short: KsWord,
    keyboard: KsWord,
    timezone: KsWord,
    root_keys: Vec<HereLine>,
    users: Vec<User>,
    services: &'static str,
    packages: Vec<PackageWord>,
    append: String,
    want_serial: ShWord,
    min_sectors: u64,
    gpg_keys: Vec<String>,
    hosts: String,
    repos: String,
    firewall: String,
    known_hosts: String,
    shosts: String,
    hostfile: String,
}

/// Renders the kickstart of a node and checks it before anyone gets it.
pub fn render(order: &Order<'_>) -> Result<String, RenderError> {
    let node = &order.node.name;
    match order.tree.release {
        Release::El9 => {}
        release @ (Release::El7 | Release::El8 | Release::El10) => {
            return Err(RenderError::Release { node: node.clone(), release });
        }
    }
    let template = |error: askama::Error| RenderError::Template {
        node: node.clone(),
        reason: error.to_string(),
    };
    let firewall = crate::firewall::worker(order.cluster).map_err(template)?;
    let words =
        words(order, firewall).map_err(|fault| RenderError::Value { node: node.clone(), fault })?;
    let text = words.render().map_err(template)? + "\n";
    check::check(&text, &words.fqdn, &words.node_url)
        .map_err(|fault| RenderError::Unsound { node: node.clone(), fault })?;
    Ok(text)
}

fn words(order: &Order<'_>, firewall: String) -> Result<El9, Unwritable> {
    let Order { cluster, node, tree, token, keys } = *order;
    let network = cluster.network();
    let torque = cluster.scheduler() == Scheduler::Torque;
    let base = artifacts::base_url(cluster);
    let resolvers: Vec<_> = network.resolvers().iter().map(Ipv4Addr::to_string).collect();
    let root_keys = cluster.admin_keys().iter().chain([&keys.master_root]);
    let (want_serial, min_sectors) = match &node.disk {
        DiskRule::Smallest { min_gib } => (String::new(), u64::from(*min_gib) << 21),
        DiskRule::Serial(serial) => (serial.clone(), 0),
    };
    let short: String = node.language.chars().take_while(|letter| *letter != '.').collect();
    Ok(El9 {
        name: node.name.clone(),
        fqdn: format!("{}.{}", node.name, network.domain),
        mac: node.mac,
        ip: node.ip,
        netmask: network.subnet.netmask(),
        subnet: network.subnet,
        master: network.address,
        master_name: network.master.clone(),
        resolvers: resolvers.join(","),
        node_url: format!("{base}/node/{}", token.reveal()),
        os: node.os.clone(),
        has_repo: cluster.systems().get(&node.os).is_some_and(|os| os.repo.is_some()),
        internet: network.internet,
        torque,
        language: KsWord::new("language", &node.language)?,
        lang_short: KsWord::new("language", &short)?,
        keyboard: KsWord::new("keyboard", &node.keyboard)?,
        timezone: KsWord::new("timezone", &node.timezone)?,
        root_keys: root_keys
            .map(|key| HereLine::new("admin_keys", key))
            .collect::<Result<_, _>>()?,
        users: cluster.users().to_vec(),
        services: if torque {
            "sshd,chronyd,nftables,munge,pbs_mom"
        } else {
            "sshd,chronyd,nftables"
        },
        packages: node
            .packages
            .iter()
            .map(|name| PackageWord::new(name))
            .collect::<Result<_, _>>()?,
        append: KernelArgs::new(&node.kernel_args)?.append(),
        want_serial: ShWord::new("disk.serial", &want_serial)?,
        min_sectors,
        gpg_keys: tree.gpg_keys.clone(),
        hosts: artifacts::hosts(cluster),
        repos: artifacts::repo_file(cluster, &node.os, tree),
        firewall,
        known_hosts: artifacts::known_hosts(&keys.host_ca),
        shosts: artifacts::shosts(cluster),
        hostfile: artifacts::hostfile(cluster),
        base,
    })
}

#[cfg(test)]
mod tests;
