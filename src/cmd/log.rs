//! `rekindle log`.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Files, Wrong, out};
use crate::cluster::Cluster;
use crate::journal::Journal;
use crate::name::NodeName;
use crate::stage::{Entry, Event, Plan, Report};

/// Show what happened, oldest first
#[derive(Debug, Args)]
pub(super) struct Log {
    /// Of this node only
    node: Option<NodeName>,
    /// Go on showing what happens, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

impl Log {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        let cluster = files.cluster()?;
        let journal = files.journal()?;
        let only = match &self.node {
            None => None,
            Some(name) => match cluster.node(name) {
                Some(node) => Some(node.mac),
                None => return Err(Wrong(format!("there is no node `{name}`")).into()),
            },
        };
        let mut last = 0;
        loop {
            last = self.show(&cluster, &journal, last, only)?;
            if !self.follow {
                return Ok(());
            }
            wait();
        }
    }

    fn show(
        &self,
        cluster: &Cluster,
        journal: &Journal,
        mut last: u64,
        only: Option<crate::mac::Mac>,
    ) -> anyhow::Result<u64> {
        for entry in journal.entries_after(last)? {
            last = entry.seq;
            if only.is_some_and(|mac| mac != entry.mac) {
                continue;
            }
            let node = cluster.node_by_mac(entry.mac).map(|node| node.name.as_str());
            if self.json {
                let mut line = serde_json::to_value(&entry)?;
                if let Some(fields) = line.as_object_mut() {
                    fields.insert("node".to_owned(), json!(node));
                    fields.insert("at".to_owned(), json!(out::time(entry.at_ms)));
                }
                out::text(&serde_json::to_string(&line)?)?;
            } else {
                let (at, mac) = (out::time(entry.at_ms), entry.mac);
                out::text(&format!("{at}  {:<12} {mac}  {}", node.unwrap_or("-"), told(&entry)))?;
            }
        }
        Ok(last)
    }
}

#[expect(clippy::disallowed_methods, reason = "--follow looks again after a while")]
fn wait() {
    std::thread::sleep(Duration::from_millis(500));
}

/// An entry as a person reads it.
fn told(entry: &Entry) -> String {
    match &entry.event {
        Event::Armed => "may be installed once".to_owned(),
        Event::NewDiskAllowed => "may be installed on another disk than before".to_owned(),
        Event::Disarmed => "may not be installed any more".to_owned(),
        Event::Seen { arch, ip } => format!("asked to boot ({arch}), unknown, lent {ip}"),
        Event::LoaderSent { loader, bytes } => format!("took {loader}, {bytes} bytes"),
        Event::LoaderLost { loader } => {
            format!(
                "nothing was heard from {loader}; `rekindle explain boot NODE` says what is next"
            )
        }
        Event::ScriptSent { plan, os, why } => {
            let told = match plan {
                Plan::Install => "is told to run the installer",
                Plan::Local => "is told to boot its disk",
                Plan::Hold => "is told to wait",
            };
            let os = os.as_ref().map(|os| format!(" of {os}, in place of its own os"));
            let why = if why.is_empty() { String::new() } else { format!(": {why}") };
            format!("{told}{}{why}", os.unwrap_or_default())
        }
        Event::Released { .. } => "gets its kickstart".to_owned(),
        Event::Reported { report, .. } => match report {
            Report::Pre { detail } => format!("installer runs: {detail}"),
            Report::Disk { detail, .. } => format!("takes disk {detail}"),
            Report::Packages { done, total } => format!("packages {done}/{total}"),
            Report::Post => "is being configured".to_owned(),
            Report::Installed => "is installed".to_owned(),
            Report::FirstBoot { detail, .. } => format!("is up: {detail}"),
            Report::Failed { log } => {
                format!("FAILED; the end of its log:\n    {}", log.trim().replace('\n', "\n    "))
            }
        },
    }
}
