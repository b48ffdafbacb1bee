//! `rekindle explain boot`.

use clap::Args;
use serde_json::json;

use super::super::{Files, Wrong, out};
use crate::boot::{self, Decision, Hold};
use crate::cluster::DhcpMode;
use crate::mac::Mac;
use crate::machine::{Arch, Asker, Loader, Machine};
use crate::serve;
use crate::site::Site;
use crate::stage::State;

/// The firmware that is known, and how it is called here.
const FIRMWARE: [(Arch, &str); 4] = [
    (Arch::Bios, "BIOS"),
    (Arch::UefiX64, "UEFI"),
    (Arch::UefiIa32, "32-bit UEFI"),
    (Arch::UefiArm64, "64-bit ARM UEFI"),
];

/// What a machine gets when it boots from the network, and why
#[derive(Debug, Args)]
pub(in crate::cmd) struct BootArgs {
    /// A node's name, or the MAC of any machine
    machine: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl BootArgs {
    pub(in crate::cmd) fn run(self, files: &Files) -> anyhow::Result<()> {
        let site = serve::load_site(&files.config)?;
        let state = files.journal()?.state()?;
        let named = self.machine.parse().ok().and_then(|name| site.cluster.node(&name));
        let mac = match named {
            Some(node) => node.mac,
            None => self.machine.parse::<Mac>().ok().ok_or_else(|| {
                Wrong(format!("`{}` is no node and no MAC; `rekindle node list`", self.machine))
            })?,
        };
        let node = site.cluster.node_by_mac(mac);
        let who = node.map_or_else(|| mac.to_string(), |node| format!("{} ({mac})", node.name));
        let orders = FIRMWARE.map(|(arch, name)| (name, boot::loaders(&site, &state, mac, arch)));
        let ladder = state.progress(mac).map(|progress| &progress.ladder);
        let lost = ladder.map(|ladder| ladder.lost()).unwrap_or_default();
        let proven = ladder.and_then(|ladder| ladder.proven());
        let asker = Asker::Ipxe { arch: Arch::Bios, http: true };
        let ip = node.map(|node| node.ip);
        let decision = boot::decide(&site, &state, &Machine { mac, asker, ip, hardware: None });
        let script = told(&site, &state, &decision);
        if self.json {
            let names = |loaders: &[Loader]| -> Vec<_> {
                loaders.iter().map(|loader| loader.file_name()).collect()
            };
            let firmware: Vec<_> = orders
                .iter()
                .map(|(name, order)| json!({ "firmware": name, "loaders": names(order) }))
                .collect();
            return out::json(&json!({
                "mac": mac, "node": node.map(|node| node.name.as_str()), "loaders": firmware,
                "lost": names(lost), "proven": proven.map(Loader::file_name), "then": script,
            }));
        }
        let mut lines = vec![who];
        for (name, order) in &orders {
            lines.push(match order.split_first() {
                None => format!("  {name}: no loader on this machine"),
                Some((first, [])) => format!("  {name}: {first}"),
                Some((first, next)) => {
                    format!("  {name}: {first}; if nothing is heard from it, {}", listed(next))
                }
            });
        }
        if let Some(node) = node.filter(|_| site.cluster.network().dhcp == DhcpMode::Proxy) {
            lines.push(format!(
                "  on the network's DHCP server {} is to be reserved for {mac}",
                node.ip
            ));
        }
        if let Some(loader) = proven {
            lines.push(format!("  {loader} worked the last time"));
        }
        if !lost.is_empty() {
            lines.push(format!("  nothing was heard from {}", listed(lost)));
        }
        lines.push(format!("  then {script}"));
        out::text(&lines.join("\n"))
    }
}

fn listed(loaders: &[Loader]) -> String {
    loaders.iter().map(|loader| loader.file_name()).collect::<Vec<_>>().join(", ")
}

/// What its iPXE is told.
fn told(site: &Site, state: &State, decision: &Decision<'_>) -> String {
    match decision {
        Decision::Hold(Hold::Unknown) => {
            "it waits at a screen that shows its MAC: it is not in the cluster".to_owned()
        }
        Decision::Hold(Hold::TriesUsedUp(node)) => format!(
            "it waits: its installation failed {} times; `rekindle log {}`, then `rekindle node reinstall {}`",
            site.cluster.tries_max(),
            node.name,
            node.name
        ),
        Decision::Probe(node) => {
            format!("its hardware is looked at, and {} is installed: that is allowed once", node.os)
        }
        Decision::LocalBoot { node: Some(node), .. } => {
            let stage = state.progress(node.mac).map(|progress| progress.stage.word());
            format!(
                "it boots its own disk ({}); `rekindle node reinstall {}` allows to install it",
                stage.unwrap_or("never armed"),
                node.name
            )
        }
        Decision::Hold(Hold::OldAddress(_) | Hold::Unfit(..))
        | Decision::LocalBoot { node: None, .. }
        | Decision::Install { .. }
        | Decision::Ignore(_)
        | Decision::Address
        | Decision::NoLoader(_)
        | Decision::Chainload(_) => "it gets an address".to_owned(),
    }
}
