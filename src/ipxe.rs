//! iPXE scripts: a decision -> the script that carries it out. The texts live in `ipxe/`.

use std::net::Ipv4Addr;

use askama::Template;

use crate::artifacts::base_url;
use crate::boot::{Decision, Hold};
use crate::cluster::{Cluster, DhcpMode, Foreign, Node};
use crate::escape::{KernelArgs, ScreenText, Unwritable};
use crate::foreign;
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
    args: String,
    delay_s: u32,
}

/// What the installer's kernel is told, whatever loads it.
#[derive(Template)]
#[template(path = "installer.args")]
struct InstallerArgs<'a> {
    base: String,
    node_url: String,
    master: Ipv4Addr,
    os: &'a OsName,
    mac_hyphens: String,
    more: KernelArgs,
}

#[derive(Template)]
#[template(path = "local.ipxe")]
struct Local {
    who: String,
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

/// Where the installer of a decision's os comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// An install tree.
    Tree(&'a Tree),
    /// The owner's own.
    Foreign(&'a Foreign),
}

/// What an install script needs besides its decision.
#[derive(Debug, Clone, Copy)]
pub struct Installer<'a> {
    /// Kernel and initrd.
    pub source: Source<'a>,
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
    let (base, mac_hyphens) = (base_url(cluster), mac.hyphens());
    if let Decision::Probe(node) = decision {
        return finished(mac, Probe { name: &node.name, mac, mac_hyphens, base }.render());
    }
    let text = match Order::new(cluster, mac, decision, install)? {
        Order::Install { name, os, boot: Boot { kernel, initrd, args }, delay_s, .. } => {
            Install { name, mac, base, os, kernel, initrd, args, delay_s }.render()
        }
        Order::Local { who, drive, why } => Local { who, mac, drive, why }.render(),
        Order::Wait { reason, advice } => Wait { mac, mac_hyphens, base, reason, advice }.render(),
    };
    finished(mac, text)
}

/// A text, or why the template engine has none.
pub(crate) fn finished(mac: Mac, text: askama::Result<String>) -> Result<String, ScriptError> {
    text.map(|text| text + "\n")
        .map_err(|error| ScriptError::Template { mac, reason: error.to_string() })
}

/// What a text tells a machine to do, in whatever language its loader reads.
pub(crate) enum Order<'a> {
    /// Run the installer.
    Install { name: &'a NodeName, os: &'a OsName, source: Source<'a>, boot: Boot<'a>, delay_s: u32 },
    /// Boot the disk.
    Local { who: String, drive: BiosDrive, why: ScreenText },
    /// Wait, and say for what.
    Wait { reason: ScreenText, advice: ScreenText },
}

impl<'a> Order<'a> {
    /// The order of a decision. `install` must be given for an install decision.
    pub(crate) fn new(
        cluster: &Cluster,
        mac: Mac,
        decision: &Decision<'a>,
        install: Option<Installer<'a>>,
    ) -> Result<Self, ScriptError> {
        match (decision, install) {
            (Decision::Install { node, os, .. }, Some(installer)) => {
                let boot = installer.boot(cluster, node, os)?;
                let Installer { source, delay_s, .. } = installer;
                Ok(Self::Install { name: &node.name, os, source, boot, delay_s })
            }
            (Decision::LocalBoot { node, drive, unfit }, _) => {
                let why = unfit.as_ref().map(Unfit::to_string).unwrap_or_default();
                let why = ScreenText::new(&why);
                let who = node.map_or_else(|| mac.to_string(), |node| node.name.to_string());
                Ok(Self::Local { who, drive: *drive, why })
            }
            (Decision::Hold(hold), _) => {
                let (reason, advice) = why(cluster, mac, *hold);
                Ok(Self::Wait { reason, advice })
            }
            (
                Decision::Install { .. }
                | Decision::Probe(_)
                | Decision::Ignore(_)
                | Decision::Address
                | Decision::NoLoader(_)
                | Decision::Chainload(_),
                _,
            ) => Err(ScriptError::NoScript),
        }
    }
}

/// Files below `/tree/OS/`, and what the kernel is told.
pub(crate) struct Boot<'a> {
    pub(crate) kernel: &'a str,
    pub(crate) initrd: &'a str,
    pub(crate) args: String,
}

impl<'a> Installer<'a> {
    /// How a node is booted into it, whatever program loads it.
    fn boot(&self, cluster: &Cluster, node: &Node, os: &OsName) -> Result<Boot<'a>, ScriptError> {
        let unwritable = |fault| ScriptError::Value { node: node.name.clone(), fault };
        let (kernel, initrd) = match self.source {
            Source::Tree(tree) => (&tree.kernel, &tree.initrd),
            Source::Foreign(foreign) => (&foreign.kernel, &foreign.initrd),
        };
        let args = match self.source {
            Source::Foreign(foreign) => {
                foreign::kernel_args(cluster, node, foreign, self.token).map_err(unwritable)?
            }
            Source::Tree(_) => {
                let base = base_url(cluster);
                let args = InstallerArgs {
                    node_url: format!("{base}/node/{}", self.token.reveal()),
                    master: cluster.network().address,
                    os,
                    mac_hyphens: node.mac.hyphens(),
                    more: KernelArgs::new(&node.settings.kernel_args).map_err(unwritable)?,
                    base,
                };
                let reason = |error: askama::Error| error.to_string();
                let template =
                    |error| ScriptError::Template { mac: node.mac, reason: reason(error) };
                args.render().map_err(template)?
            }
        };
        Ok(Boot { kernel, initrd, args })
    }
}

/// Why a machine waits, and what its owner may do.
fn why(cluster: &Cluster, mac: Mac, hold: Hold<'_>) -> (ScreenText, ScreenText) {
    let look = |name: &NodeName| format!("On the master: rekindle log {name}");
    let (reason, advice) = match hold {
        Hold::Unknown => (
            "It is not in the cluster yet. Nothing on its disk was touched.".to_owned(),
            format!("On the master: rekindle node add --mac {mac}"),
        ),
        // Whoever asks from another address may be anybody: of the node it is told nothing.
        Hold::OldAddress(_) if cluster.network().dhcp == DhcpMode::Proxy => (
            "The network's DHCP server gave it an address that is not its own.".to_owned(),
            format!("On the master: rekindle explain boot {mac}"),
        ),
        Hold::OldAddress(_) => (
            "It is in the cluster now and asks for its own address.".to_owned(),
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
