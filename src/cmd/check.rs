//! `rekindle check`.

use clap::Args;
use serde_json::json;

use super::{Files, Wrong, out};
use crate::cluster::{Cluster, Findings, Node};
use crate::kickstart::{self, Order};
use crate::media;
use crate::trust::{PublicKeys, Token};

/// Check cluster.toml, the install trees it names, and every node's kickstart
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Findings as JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        let name = files.config.display().to_string();
        let (findings, nodes) = match files.cluster() {
            Err(error) => {
                let list = error.downcast::<Findings>()?.list.into_iter();
                (list.map(|finding| (Some(finding.line), finding.message)).collect(), 0)
            }
            Ok(cluster) => {
                let found = beyond_the_file(&cluster);
                (found.into_iter().map(|message| (None, message)).collect(), cluster.nodes().len())
            }
        };
        let findings: Vec<(Option<usize>, String)> = findings;
        if self.json {
            let list: Vec<_> = findings
                .iter()
                .map(|(line, message)| json!({ "file": name, "line": line, "message": message }))
                .collect();
            out::json(&json!({ "ok": findings.is_empty(), "nodes": nodes, "findings": list }))?;
        }
        let lines: Vec<String> = findings
            .into_iter()
            .map(|(line, message)| match line {
                Some(line) => format!("{name}:{line}: {message}"),
                None => message,
            })
            .collect();
        if !lines.is_empty() {
            return Err(Wrong(lines.join("\n")).into());
        }
        if !self.json {
            out::text(&format!("{name} is sound: {nodes} nodes"))?;
        }
        Ok(())
    }
}

/// What only the file system and the templates know.
fn beyond_the_file(cluster: &Cluster) -> Vec<String> {
    let mut findings = vec![];
    let sample = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz";
    let keys = PublicKeys { host_ca: sample.to_owned(), master_root: sample.to_owned() };
    for (name, os) in cluster.systems() {
        match media::load(name, os) {
            Err(bad) => findings.push(bad.to_string()),
            Ok(tree) => {
                let of_it = |node: &&Node| node.os == *name;
                findings.extend(cluster.nodes().filter(of_it).filter_map(|node| {
                    let token = Token::masked();
                    let order = Order { cluster, node, tree: &tree, token: &token, keys: &keys };
                    kickstart::render(&order).err().map(|error| error.to_string())
                }));
            }
        }
    }
    findings
}
