//! `rekindle machines`.

use clap::Args;
use serde_json::json;

use super::{Files, out};

/// List machines that asked to boot and are not in the cluster
#[derive(Debug, Args)]
pub(super) struct Machines {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Machines {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        let cluster = files.cluster()?;
        let state = files.journal()?.state()?;
        let waiting: Vec<_> =
            state.seen().filter(|(mac, _)| cluster.node_by_mac(*mac).is_none()).collect();
        if self.json {
            let list: Vec<_> = waiting
                .iter()
                .map(|(mac, seen)| {
                    json!({
                        "mac": mac, "arch": seen.arch.to_string(), "ip": seen.ip,
                        "first": out::time(seen.first_ms), "last": out::time(seen.last_ms),
                    })
                })
                .collect();
            return out::json(&list);
        }
        if waiting.is_empty() {
            return out::text("no unknown machine has asked to boot");
        }
        let rows: Vec<Vec<String>> = waiting
            .iter()
            .map(|(mac, seen)| {
                let (first, last) = (out::time(seen.first_ms), out::time(seen.last_ms));
                vec![mac.to_string(), seen.arch.to_string(), seen.ip.to_string(), first, last]
            })
            .collect();
        out::text(&out::table(&["MAC", "ARCH", "LENT", "FIRST SEEN", "LAST SEEN"], &rows))?;
        out::note("they wait; to install one: rekindle node add --mac MAC");
        Ok(())
    }
}
