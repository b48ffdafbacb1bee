//! `rekindle render`.

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::{Files, Wrong, out};
use crate::artifacts;
use crate::boot::Decision;
use crate::cluster::{Foreign, Node};
use crate::foreign;
use crate::ipxe::{self, Installer, Source};
use crate::kickstart::{self, Order};
use crate::machine::BiosDrive;
use crate::name::NodeName;
use crate::serve;
use crate::site::Site;
use crate::stage::{Arm, Disks};
use crate::trust::{Token, store};

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

impl What {
    /// The same for a node with another system: its owner's answers are its kickstart.
    fn foreign(self, site: &Site, node: &Node, foreign: &Foreign) -> anyhow::Result<()> {
        let (cluster, token) = (&site.cluster, Token::masked());
        let answers = site.answers.get(&node.os).context("every installer has its answers")?;
        let answers = foreign::render(answers, cluster, node, &token);
        let install = Decision::Install { node, os: &node.os, arm: Arm::new(0) };
        let installer = Installer { source: Source::Foreign(foreign), token: &token, delay_s: 0 };
        let script = ipxe::render(cluster, node.mac, &install, Some(installer))
            .map_err(|fault| Wrong(fault.to_string()))?;
        match self {
            Self::Kickstart => out::text(&answers),
            Self::Ipxe => out::text(&script),
            Self::All => [("iPXE script that installs", script), ("answers", answers)]
                .into_iter()
                .try_for_each(|(title, text)| {
                    out::text(&format!("===== {}: {title} =====\n{text}", node.name))
                }),
        }
    }
}

impl Render {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        // The file's own mistakes first, with their lines.
        files.cluster()?;
        let site = serve::load_site(&files.config)?;
        let cluster = &site.cluster;
        let node = cluster.node(&self.node).ok_or_else(|| {
            Wrong(format!("there is no node `{}`; `rekindle node list` names them", self.node))
        })?;
        if let Some(foreign) = cluster.installers().get(&node.os) {
            return self.what.foreign(&site, node, foreign);
        }
        let tree = site.tree(&node.os).context("every node's os is known")?;
        let secrets = store::load_or_create(&files.state)?;
        let token = Token::masked();
        let (os, keys) = (&node.os, secrets.public());
        let state = files.journal()?.state()?;
        let disks = state.progress(node.mac).map(|progress| &progress.disks);
        let known_disk = disks.and_then(Disks::expected);
        let drive = disks.map_or(BiosDrive::FIRST, Disks::boots_from);
        let snippets = &site.snippets;
        let order = Order { cluster, node, os, tree, token: &token, keys, snippets, known_disk };
        let arm = Arm::new(0);
        let install = Decision::Install { node, os, arm };
        let installer = Installer { source: Source::Tree(tree), token: &token, delay_s: 0 };
        let wrong = |fault: &dyn std::fmt::Display| Wrong(fault.to_string());
        let script =
            || ipxe::render(cluster, node.mac, &install, Some(installer)).map_err(|e| wrong(&e));
        let kickstart = || kickstart::render(&order).map_err(|fault| wrong(&fault));
        match self.what {
            What::Kickstart => out::text(&kickstart()?),
            What::Ipxe => out::text(&script()?),
            What::All => {
                let local = Decision::LocalBoot { node: Some(node), drive, unfit: None };
                let local = ipxe::render(cluster, node.mac, &local, None)?;
                let probe = ipxe::render(cluster, node.mac, &Decision::Probe(node), None)?;
                let texts = [
                    ("iPXE script that looks at the hardware", probe),
                    ("iPXE script that installs", script()?),
                    ("iPXE script that boots the disk", local),
                    ("kickstart", kickstart()?),
                ];
                let files = artifacts::files(cluster, os, tree, keys)?;
                let texts = texts.into_iter();
                let files = files.into_iter().map(|file| (file.path, file.text));
                texts.chain(files).try_for_each(|(title, text)| {
                    out::text(&format!("===== {}: {title} =====\n{text}", node.name))
                })
            }
        }
    }
}
