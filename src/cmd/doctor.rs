//! `rekindle doctor`.

use std::net::Ipv4Addr;

use clap::Args;
use serde_json::json;

use super::{Files, Wrong, out};
use crate::apply::{Record, look, signs};
use crate::cluster::{Cluster, Findings};
use crate::doctor::{self, Broken, Finding, Passing, Signs, What};
use crate::journal::{self, Journal};
use crate::media::{self, BadTree};
use crate::setup::{self, Area, Paths, Wish};
use crate::stage::{Stage, State};
use crate::trust::store;
use crate::{host, serve};

/// Look for everything that may be wrong with this master; exit code 1 when something is
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Read the install trees whole and compare them with their own checksums
    #[arg(long)]
    checksums: bool,
    /// Do not ask the private wire for other servers and for nodes
    #[arg(long)]
    silent: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        let findings = match files.cluster() {
            Ok(cluster) => self.diagnose(files, &cluster)?,
            Err(error) => config(&error),
        };
        if self.json {
            let list: Vec<_> = findings
                .iter()
                .map(|it| json!({ "check": it.check, "evidence": it.evidence, "fix": it.fix }))
                .collect();
            out::json(
                &json!({ "ok": findings.is_empty(), "checks": doctor::CHECKS.len(), "findings": list }),
            )?;
        } else {
            for Finding { check, evidence, fix } in &findings {
                out::text(&format!("{check}: {evidence}\n  {fix}"))?;
            }
        }
        if !findings.is_empty() {
            let count = findings.len();
            return Err(Wrong(format!(
                "{count} of {} checks found something",
                doctor::CHECKS.len()
            ))
            .into());
        }
        if self.json {
            Ok(())
        } else {
            out::text(&format!("{} checks found nothing", doctor::CHECKS.len()))
        }
    }

    fn diagnose(&self, files: &Files, cluster: &Cluster) -> anyhow::Result<Vec<Finding>> {
        let (secrets, why) = match store::load_or_create(&files.state) {
            Ok(secrets) => (Some(secrets), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (state, broken_journal) = match Journal::open(&files.state).and_then(|it| it.state()) {
            Ok(state) => (state, None),
            Err(error) => (State::default(), Some(error.to_string())),
        };
        let munge_key = secrets.as_ref().map(|it| it.munge_key()).unwrap_or_default();
        let facts = look::facts(cluster, munge_key)?;
        let host_ca = secrets.as_ref().map(|it| it.public().host_ca.clone()).unwrap_or_default();
        let wish = Wish { cluster, state: &state, host_ca: &host_ca, paths: &Paths::default() };
        let plan = setup::plan(&wish, &facts, &Area::ALL);
        let signs = Signs {
            wires: signs::wires(facts.links.iter().map(|link| link.name.clone())),
            listeners: signs::listeners(),
            loaders_missing: serve::missing_loaders(cluster),
            broken: self.broken(cluster),
            free_mib: signs::free_mib(&files.state),
            secrets: why,
            journal: broken_journal,
            now_ms: journal::now_ms(),
            clock_kept: signs::clock_kept(),
            offers: if self.silent { vec![] } else { offers(cluster) },
            passing: if self.silent { Passing::default() } else { passing(cluster) },
            mislabelled: std::env::current_exe().ok().and_then(|exe| signs::mislabelled(&exe)),
            hidden: cluster
                .systems()
                .values()
                .map(|os| os.tree.join(".treeinfo"))
                .chain([files.config.clone()])
                .filter_map(|path| signs::hidden(&files.state, &path))
                .collect(),
            answers: if self.silent {
                Default::default()
            } else {
                signs::answers(&ready(cluster, &state))?
            },
            is_pending: match Record::existing(&files.state) {
                Some(record) => record.pending()?.is_some(),
                None => false,
            },
            facts,
        };
        Ok(doctor::diagnose(cluster, &state, &plan, &signs))
    }

    fn broken(&self, cluster: &Cluster) -> Vec<Broken> {
        let mut found = vec![];
        for (name, os) in cluster.systems() {
            let mut add = |what, why: String| found.push(Broken { os: name.clone(), what, why });
            match media::load(name, os) {
                Err(BadTree::Incomplete { file, .. })
                    if os.repo.as_ref().is_some_and(|repo| file.starts_with(repo)) =>
                {
                    add(What::Repository, format!("{} is missing", file.display()));
                }
                Err(error) => add(What::Tree, error.to_string()),
                Ok(_) if self.checksums => {
                    for file in media::damaged(&os.tree) {
                        add(What::Checksum, format!("{file} is not what .treeinfo says"));
                    }
                }
                Ok(_) => {}
            }
            if let Some(repo) = &os.repo
                && let Some(words) = signs::unindexed(repo)
            {
                add(What::Stale, words);
            }
        }
        found
    }
}

/// A broken cluster.toml: nothing else can be looked for.
fn config(error: &anyhow::Error) -> Vec<Finding> {
    let fix = "mend it; `rekindle check` looks again".to_owned();
    let one = |evidence: String| Finding { check: "config", evidence, fix: fix.clone() };
    match error.downcast_ref::<Findings>() {
        Some(findings) => findings.to_string().lines().map(|line| one(line.to_owned())).collect(),
        None => vec![one(format!("{error:#}"))],
    }
}

// Where it cannot be asked there is another finding: no interface, link down.
fn offers(cluster: &Cluster) -> Vec<Ipv4Addr> {
    let network = cluster.network();
    let ask = |mac| signs::offers(&network.interface, mac, network.address, signs::PATIENCE).ok();
    host::running_card(&network.interface).and_then(ask).unwrap_or_default()
}

fn passing(cluster: &Cluster) -> Passing {
    let network = cluster.network();
    let look = |mac| signs::passing(&network.interface, mac, network.address).ok();
    host::running_card(&network.interface).and_then(look).unwrap_or_default()
}

fn ready(cluster: &Cluster, state: &State) -> Vec<Ipv4Addr> {
    let is_ready = |mac| state.progress(mac).is_some_and(|progress| progress.stage == Stage::Ready);
    cluster.nodes().filter(|node| is_ready(node.mac)).map(|node| node.ip).collect()
}
