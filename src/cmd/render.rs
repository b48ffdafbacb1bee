//! `rekindle render`.

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{Files, Wrong, out};
use crate::boot::Decision;
use crate::kickstart::{self, Order};
use crate::name::NodeName;
use crate::stage::Arm;
use crate::trust::{Token, store};
use crate::{artifacts, firewall, ipxe, media};

/// Print exactly what a node would get if it were installed now, secrets masked
#[derive(Debug, Args)]
pub(super) struct Render {
    /// Which text
    #[arg(value_enum)]
    what: What,
    /// Whose
    node: NodeName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The kickstart
    Kickstart,
    /// The script that starts the installer
    Ipxe,
    /// Both, and the files that the kickstart writes
    All,
}

impl Render {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        let cluster = files.cluster()?;
        let node = cluster.node(&self.node).ok_or_else(|| {
            Wrong(format!("there is no node `{}`; `rekindle node list` names them", self.node))
        })?;
        let os = cluster.systems().get(&node.os).context("every node's os is known")?;
        let tree = media::load(&node.os, os).map_err(|bad| Wrong(bad.to_string()))?;
        let secrets = store::load_or_create(&files.state)?;
        let token = Token::masked();
        let keys = secrets.public();
        let order = Order { cluster: &cluster, node, tree: &tree, token: &token, keys };
        let arm = Arm { seq: 0, boots: 0, tries: 0, window_ms: None };
        let install = Decision::Install { node, arm };
        let script = || {
            ipxe::render(&cluster, node.mac, &install, Some((&tree, &token)))
                .map_err(|fault| Wrong(fault.to_string()))
        };
        let kickstart = || kickstart::render(&order).map_err(|fault| Wrong(fault.to_string()));
        match self.what {
            What::Kickstart => out::text(&kickstart()?),
            What::Ipxe => out::text(&script()?),
            What::All => {
                let local = ipxe::render(&cluster, node.mac, &Decision::LocalBoot(node), None)?;
                let parts = [
                    ("iPXE script that installs", script()?),
                    ("iPXE script that boots the disk", local),
                    ("kickstart", kickstart()?),
                    ("/etc/hosts", artifacts::hosts(&cluster)),
                    (
                        "/etc/yum.repos.d/rekindle.repo",
                        artifacts::repo_file(&cluster, &node.os, &tree),
                    ),
                    ("/etc/sysconfig/nftables.conf", firewall::worker(&cluster)?),
                ];
                parts.iter().try_for_each(|(title, text)| {
                    out::text(&format!("===== {}: {title} =====\n{text}", node.name))
                })
            }
        }
    }
}
