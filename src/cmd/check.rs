//! `rekindle check`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::json;

use super::{Files, Wrong, out};
use crate::cluster::{Cluster, Findings};
use crate::kickstart::{self, Order};
use crate::snippets::Snippet;
use crate::trust::{PublicKeys, Token};
use crate::{media, serve};

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
                let found = beyond_the_file(&cluster, &files.config);
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
fn beyond_the_file(cluster: &Cluster, config: &Path) -> Vec<String> {
    let trees = cluster.systems().iter().filter_map(|(name, os)| media::load(name, os).err());
    let mut findings: Vec<String> = trees.map(|bad| bad.to_string()).collect();
    if !findings.is_empty() {
        return findings;
    }
    let site = match serve::load_site(config) {
        Ok(site) => site,
        Err(error) => return format!("{error:#}").lines().map(str::to_owned).collect(),
    };
    findings.extend(site.snippets.scripts().filter_map(bash_refuses));
    let sample = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz";
    let keys = PublicKeys { host_ca: sample.to_owned(), master_root: sample.to_owned() };
    for node in site.cluster.nodes() {
        let systems = [Some(&node.os), site.fallback(node).map(|(os, _)| os)];
        for os in systems.into_iter().flatten() {
            let Some(tree) = site.tree(os) else { continue };
            let (cluster, token) = (&site.cluster, Token::masked());
            let order = Order {
                cluster,
                node,
                os,
                tree,
                token: &token,
                keys: &keys,
                snippets: &site.snippets,
                known_disk: None,
            };
            findings.extend(kickstart::render(&order).err().map(|error| error.to_string()));
        }
    }
    findings
}

/// What bash says of a script it is asked to read and not to run.
fn bash_refuses(snippet: &Snippet) -> Option<String> {
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // It may stop reading at the first mistake.
    bash.stdin.take()?.write_all(snippet.text.as_bytes()).unwrap_or_default();
    let done = bash.wait_with_output().ok()?;
    let said = String::from_utf8_lossy(&done.stderr);
    let line = said.lines().next().unwrap_or("bash cannot read it");
    let line = line.trim_start_matches("bash: ");
    (!done.status.success()).then(|| format!("kickstart.d/{}: {line}", snippet.name))
}
