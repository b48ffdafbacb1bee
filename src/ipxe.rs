//! iPXE scripts: a decision -> the script that carries it out. The texts live in `ipxe/`.

use std::net::Ipv4Addr;

use askama::Template;

use crate::artifacts::base_url;
use crate::boot::{Decision, Hold};
use crate::cluster::{Cluster, DhcpMode, Node};
use crate::escape::{KernelArgs, ScreenText, Unwritable};
use crate::hardware::Unfit;
use crate::mac::Mac;
use crate::machine::BiosDrive;
use crate::media::Tree;
use crate::name::{NodeName, OsName};
use crate::trust::Token;

/// Why there is no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// This decision needs none.
    #[error("this machine gets no script")]
    NoScript,
    /// A value does not fit.
    #[error("node `{node}`: {fault}")]
    Value {
        /// Whose.
        node: NodeName,
        /// Which.
        fault: Unwritable,
    },
    /// The template engine failed.
    #[error("script of {mac}: {reason}")]
    Template {
        /// Whose.
        mac: Mac,
        /// Its word.
        reason: String,
    },
}

#[derive(Template)]
#[template(path = "probe.ipxe")]
struct Probe<'a> {
    name: &'a NodeName,
    mac: Mac,
    mac_hyphens: String,
    base: String,
}

#[derive(Template)]
#[template(path = "install.ipxe")]
struct Install<'a> {
    name: &'a NodeName,
    mac: Mac,
    base: String,
    os: &'a OsName,
    kernel: &'a str,
    initrd: &'a str,
    args: InstallerArgs<'a>,
    delay_s: u32,
}

/// What the installer's kernel is told, whatever loads it.
#[derive(Template)]
#[template(path = "installer.args")]
pub(crate) struct InstallerArgs<'a> {
    base: String,
    node_url: String,
    master: Ipv4Addr,
    os: &'a OsName,
    mac_hyphens: String,
    more: KernelArgs,
}

#[derive(Template)]
#[template(path = "local.ipxe")]
struct Local<'a> {
    name: &'a NodeName,
    mac: Mac,
    drive: BiosDrive,
    why: ScreenText,
}

#[derive(Template)]
#[template(path = "hold.ipxe")]
struct Wait {
    mac: Mac,
    mac_hyphens: String,
    base: String,
    reason: ScreenText,
    advice: ScreenText,
}

/// What an install script needs besides its decision.
#[derive(Debug, Clone, Copy)]
pub struct Installer<'a> {
    /// The tree of the decision's os.
    pub tree: &'a Tree,
    /// The node's one-time token.
    pub token: &'a Token,
    /// How long the node waits before it begins, because others have begun.
    pub delay_s: u32,
}

/// Renders the script of a machine. `install` must be given for an install decision.
pub fn render(
    cluster: &Cluster,
    mac: Mac,
    decision: &Decision<'_>,
    install: Option<Installer<'_>>,
) -> Result<String, ScriptError> {
    let text = match (decision, install) {
        (Decision::Probe(node), _) => {
            let (base, mac_hyphens) = (base_url(cluster), mac.hyphens());
            Probe { name: &node.name, mac, mac_hyphens, base }.render()
        }
        (Decision::Install { node, os, .. }, Some(installer)) => {
            install_script(cluster, node, os, installer)?.render()
        }
        (Decision::LocalBoot { node, drive, unfit }, _) => {
            let why = ScreenText::new(&unfit.as_ref().map(Unfit::to_string).unwrap_or_default());
            Local { name: &node.name, mac, drive: *drive, why }.render()
        }
        (Decision::Hold(hold), _) => wait(cluster, mac, *hold).render(),
        (
            Decision::Install { .. }
            | Decision::Ignore(_)
            | Decision::Address
            | Decision::NoLoader(_)
            | Decision::Chainload(_),
            _,
        ) => return Err(ScriptError::NoScript),
    };
    text.map(|text| text + "\n")
        .map_err(|error| ScriptError::Template { mac, reason: error.to_string() })
}

fn install_script<'a>(
    cluster: &Cluster,
    node: &'a Node,
    os: &'a OsName,
    Installer { tree, token, delay_s }: Installer<'a>,
) -> Result<Install<'a>, ScriptError> {
    Ok(Install {
        name: &node.name,
        mac: node.mac,
        base: base_url(cluster),
        os,
        kernel: &tree.kernel,
        initrd: &tree.initrd,
        args: installer_args(cluster, node, os, token)?,
        delay_s,
    })
}

/// The arguments of the installer's kernel for a node.
pub(crate) fn installer_args<'a>(
    cluster: &Cluster,
    node: &Node,
    os: &'a OsName,
    token: &Token,
) -> Result<InstallerArgs<'a>, ScriptError> {
    let base = base_url(cluster);
    let more = KernelArgs::new(&node.settings.kernel_args)
        .map_err(|fault| ScriptError::Value { node: node.name.clone(), fault })?;
    Ok(InstallerArgs {
        node_url: format!("{base}/node/{}", token.reveal()),
        master: cluster.network().address,
        os,
        mac_hyphens: node.mac.hyphens(),
        more,
        base,
    })
}

fn wait(cluster: &Cluster, mac: Mac, hold: Hold<'_>) -> Wait {
    let (reason, advice) = why(cluster, mac, hold);
    Wait { mac, mac_hyphens: mac.hyphens(), base: base_url(cluster), reason, advice }
}

/// Why a machine waits, and what its owner may do.
pub(crate) fn why(cluster: &Cluster, mac: Mac, hold: Hold<'_>) -> (ScreenText, ScreenText) {
    let look = |name: &NodeName| format!("On the master: rekindle log {name}");
    let (reason, advice) = match hold {
        Hold::Unknown => (
            "It is not in the cluster yet. Nothing on its disk was touched.".to_owned(),
            format!("On the master: rekindle node add --mac {mac}"),
        ),
        Hold::OldAddress(node) if cluster.network().dhcp == DhcpMode::Proxy => (
            format!("It is {}, and the network's DHCP server gave it another address.", node.name),
            format!("On that server: reserve {} for {mac}", node.ip),
        ),
        Hold::OldAddress(node) => (
            format!("It is {} now and asks for its own address.", node.name),
            "Nothing to do.".to_owned(),
        ),
        Hold::TriesUsedUp(node) => (
            format!("The installation of {} failed too often.", node.name),
            format!("{}, then rekindle node reinstall {}", look(&node.name), node.name),
        ),
        Hold::Unfit(node, unfit) => (
            format!("{} cannot be installed: {unfit}", node.name),
            format!("Change its os in cluster.toml. {}", look(&node.name)),
        ),
    };
    (ScreenText::new(&reason), ScreenText::new(&advice))
}

#[cfg(test)]
mod tests;
