//! The decision: what does this machine get now?
//!
//! A [`Machine`] and the immutable snapshot (site, state) come in, a [`Decision`] comes out.
//! DHCP, the iPXE script and the kickstart all ask here; none of them decides anything else.

use std::net::Ipv4Addr;

use crate::cluster::{Cluster, DhcpMode, Node, UnfitPolicy};
use crate::hardware::Unfit;
use crate::mac::Mac;
use crate::machine::Hardware;
use crate::machine::{Arch, Asker, BiosDrive, Loader, Machine};
use crate::name::OsName;
use crate::site::Site;
use crate::stage::ladder::Ladder;
use crate::stage::{Arm, Plan, Stage, State, TimestampMs};

/// Install scripts one arming may hand out. More than tries: a machine that is switched off and
/// on before its kernel runs has written nothing yet.
pub const BOOTS_MAX: u32 = 10;

/// How long after its script a kickstart may be asked for. Slow machines load an initrd of
/// 100 MB over 100 Mbit/s in under a minute; spanning tree and retries add minutes, not hours.
pub const WINDOW_MS: u64 = 60 * 60 * 1000;

/// What a machine gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Nothing, not even an address.
    Ignore(Ignored),
    /// An address and nothing to boot: a running system asks.
    Address,
    /// An address and nothing to boot: there is no loader for this firmware.
    NoLoader(Arch),
    /// An address and the first program to load.
    Chainload(Loader),
    /// A script that waits and says for what.
    Hold(Hold<'a>),
    /// A script that looks at the hardware and asks again: this node may be installed.
    Probe(&'a Node),
    /// A script that runs the installer.
    Install {
        /// Whom.
        node: &'a Node,
        /// Which os: the node's own, or the one that stands in for it on this hardware.
        os: &'a OsName,
        /// By which permission.
        arm: Arm,
    },
    /// A script that boots the local disk.
    LocalBoot {
        /// Whose. `None` when it is asked for from another address: whoever asks may be anybody, and is told nothing.
        node: Option<&'a Node>,
        /// Which, when the machine has a BIOS.
        drive: BiosDrive,
        /// Why, though it may be installed: nothing it may be installed with runs on it.
        unfit: Option<Unfit>,
    },
}

/// Why a machine meets silence. Silence is a decision, so it has a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// A laptop, a printer, a BMC.
    #[error("its MAC is not in the cluster and it does not boot from the network")]
    Stranger,
}

/// What a waiting machine waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold<'a> {
    /// Its owner has not added it to the cluster.
    Unknown,
    /// It became a node after it got its address: it must ask for its own one first.
    OldAddress(&'a Node),
    /// Its installation failed as often as one arming allows.
    TriesUsedUp(&'a Node),
    /// Nothing it may be installed with runs on it.
    Unfit(&'a Node, Unfit),
}

impl<'a> Decision<'a> {
    /// The node that is installed, or looked at for that.
    pub fn installs(&self) -> Option<&'a Node> {
        match self {
            Self::Install { node, .. } | Self::Probe(node) => Some(node),
            Self::Ignore(_)
            | Self::Address
            | Self::NoLoader(_)
            | Self::Chainload(_)
            | Self::Hold(_)
            | Self::LocalBoot { .. } => None,
        }
    }

    /// What a script of this decision makes the machine do; `None` when it gets no script.
    pub fn plan(&self) -> Option<Plan> {
        match self {
            Self::Install { .. } => Some(Plan::Install),
            Self::LocalBoot { .. } => Some(Plan::Local),
            Self::Hold(_) => Some(Plan::Hold),
            Self::Ignore(_)
            | Self::Address
            | Self::NoLoader(_)
            | Self::Chainload(_)
            | Self::Probe(_) => None,
        }
    }

    /// Why it does not install although it may.
    pub fn why_not(&self) -> Option<Unfit> {
        match self {
            Self::Hold(Hold::Unfit(_, unfit)) => Some(*unfit),
            Self::LocalBoot { unfit, .. } => *unfit,
            Self::Hold(_)
            | Self::Ignore(_)
            | Self::Address
            | Self::NoLoader(_)
            | Self::Chainload(_)
            | Self::Probe(_)
            | Self::Install { .. } => None,
        }
    }
}

/// Decides what `machine` gets. Total and pure: the same snapshot gives the same answer.
///
/// Only an armed node is ever sent to the installer, and only at its own address; everything
/// else that can boot is led to its local disk or to a screen that waits.
pub fn decide<'a>(site: &'a Site, state: &State, machine: &Machine) -> Decision<'a> {
    let cluster = &site.cluster;
    let node = cluster.node_by_mac(machine.mac);
    match machine.asker {
        Asker::System if node.is_some() || cluster.network().strangers => Decision::Address,
        Asker::System => Decision::Ignore(Ignored::Stranger),
        Asker::Rom(arch) | Asker::HttpBoot(arch) | Asker::Ipxe { arch, http: false } => {
            let by_http = matches!(machine.asker, Asker::HttpBoot(_));
            let mut order = loaders(site, state, machine.mac, arch).into_iter();
            // Not every signed GRUB can load what follows by HTTP.
            let first = order.find(|loader| !(by_http && loader.is_of_tree()));
            first.map_or(Decision::NoLoader(arch), Decision::Chainload)
        }
        Asker::Ipxe { http: true, arch } => match node {
            None => Decision::Hold(Hold::Unknown),
            Some(node) => in_place_of_rom(site, state, node, machine, arch)
                .map_or_else(|| plan(site, state, node, machine), Decision::Chainload),
        },
    }
}

/// The loader that the owner named for a node whose card has an iPXE of its own, perhaps an old or half one. Once it
/// was sent, it is the one that asks: the two look alike.
fn in_place_of_rom(
    site: &Site,
    state: &State,
    node: &Node,
    machine: &Machine,
    arch: Arch,
) -> Option<Loader> {
    // Who asks for a script has its address.
    let is_rom = machine.ip.is_none() && !state.awaits(node.mac);
    let named = node.settings.loader.filter(|_| is_rom)?;
    site.rungs(Some(node), arch).find(|rung| *rung == named)
}

/// The loaders that a machine is sent, one after the other until it comes back from one.
pub fn loaders(site: &Site, state: &State, mac: Mac, arch: Arch) -> Vec<Loader> {
    let rungs = site.rungs(site.cluster.node_by_mac(mac), arch);
    state.progress(mac).map_or_else(Ladder::default, |it| it.ladder.clone()).order(rungs)
}

fn plan<'a>(site: &'a Site, state: &State, node: &'a Node, machine: &Machine) -> Decision<'a> {
    let progress = state.progress(node.mac);
    let drive = progress.map_or(BiosDrive::FIRST, |progress| progress.disks.boots_from());
    let arm = progress.and_then(|progress| progress.arm);
    // DHCP asks before there is an address; the script is asked for from one.
    let is_elsewhere = machine.ip.is_some_and(|ip| ip != node.ip);
    // Addresses of another server are its affair: an installed node boots from any.
    let is_ours = site.cluster.network().dhcp == DhcpMode::Serve;
    if is_elsewhere && (is_ours || arm.is_some()) {
        return Decision::Hold(Hold::OldAddress(node));
    }
    let Some(arm) = arm else {
        let node = Some(node).filter(|_| !is_elsewhere);
        return Decision::LocalBoot { node, drive, unfit: None };
    };
    if arm.tries >= site.cluster.tries_max() || arm.boots >= BOOTS_MAX {
        return Decision::Hold(Hold::TriesUsedUp(node));
    }
    let Some(hardware) = machine.hardware else { return Decision::Probe(node) };
    match suits(site, node, hardware) {
        Ok(os) => Decision::Install { node, os, arm },
        Err(unfit) if node.settings.unfit == UnfitPolicy::Hold => {
            Decision::Hold(Hold::Unfit(node, unfit))
        }
        Err(unfit) => Decision::LocalBoot { node: Some(node), drive, unfit: Some(unfit) },
    }
}

/// The os that is installed on this hardware: the node's own, or the one that stands in for it.
fn suits<'a>(site: &'a Site, node: &'a Node, hardware: Hardware) -> Result<&'a OsName, Unfit> {
    // Without a tree there is nothing to compare with; the script says so.
    let Some(tree) = site.tree(&node.os) else { return Ok(&node.os) };
    let Err(unfit) = hardware.fits(tree) else { return Ok(&node.os) };
    match site.fallback(node) {
        Some((os, tree)) if hardware.fits(tree).is_ok() => Ok(os),
        Some(_) | None => Err(unfit),
    }
}

/// Whether a kickstart, or a secret that belongs to it, may leave now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release<'a> {
    /// To this node.
    Granted(&'a Node),
    /// Refused for good or until the next boot.
    Refused(Refusal),
}

/// Why a release is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The arming is used up, taken back or replaced, or its node left the cluster.
    #[error("this permission to install is over")]
    Over,
    /// The node reported a later stage, or its window ended; its next boot opens a new one.
    #[error("it was already fetched; the next boot of the node gets a new one")]
    Passed,
    /// The one who asks does not have the node's address.
    #[error("it belongs to the node at {expected}")]
    WrongAddress {
        /// Where the node would ask from.
        expected: Ipv4Addr,
    },
}

/// What a token was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The node's card.
    pub mac: Mac,
    /// The arming.
    pub arm: u64,
}

/// The release rule: armed, from the node's own address, and not later than the stage it is for.
/// The same boot may ask again until it reports `pre` or its window ends.
pub fn release_kickstart<'a>(
    cluster: &'a Cluster,
    state: &State,
    grant: Grant,
    peer: Ipv4Addr,
    now: TimestampMs,
) -> Release<'a> {
    let (node, arm) = match granted(cluster, state, grant, peer) {
        Ok(granted) => granted,
        Err(refusal) => return Release::Refused(refusal),
    };
    match arm.window_ms {
        Some(opened) if now.saturating_sub(opened) <= WINDOW_MS => Release::Granted(node),
        Some(_) | None => Release::Refused(Refusal::Passed),
    }
}

/// The same for what the installer fetches while it runs (cluster secrets, a host certificate):
/// from the release of the kickstart until `installed`.
pub fn release_secret<'a>(
    cluster: &'a Cluster,
    state: &State,
    grant: Grant,
    peer: Ipv4Addr,
) -> Release<'a> {
    let node = match granted(cluster, state, grant, peer) {
        Ok((node, _)) => node,
        Err(refusal) => return Release::Refused(refusal),
    };
    let stage = state.progress(grant.mac).map_or(Stage::Idle, |progress| progress.stage);
    match stage {
        Stage::Kickstart | Stage::Pre | Stage::Disk | Stage::Packages | Stage::Post => {
            Release::Granted(node)
        }
        Stage::Idle
        | Stage::Waiting
        | Stage::Loader
        | Stage::Script
        | Stage::Installed
        | Stage::Ready
        | Stage::Failed
        | Stage::Held => Release::Refused(Refusal::Passed),
    }
}

fn granted<'a>(
    cluster: &'a Cluster,
    state: &State,
    grant: Grant,
    peer: Ipv4Addr,
) -> Result<(&'a Node, Arm), Refusal> {
    let node = cluster.node_by_mac(grant.mac).ok_or(Refusal::Over)?;
    let arm = state
        .progress(grant.mac)
        .and_then(|progress| progress.arm)
        .filter(|arm| arm.seq == grant.arm)
        .ok_or(Refusal::Over)?;
    if node.ip != peer {
        return Err(Refusal::WrongAddress { expected: node.ip });
    }
    Ok((node, arm))
}

#[cfg(test)]
mod tests;
