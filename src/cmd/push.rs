//! `rekindle push`.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{Files, Wrong, out};
use crate::artifacts::{self, NodeFile};
use crate::cluster::Node;
use crate::host;
use crate::name::NodeName;
use crate::push::{self, Change};
use crate::serve;
use crate::site::Site;
use crate::stage::{Stage, State};
use crate::trust::{PublicKeys, store};

/// Nodes that are talked to at one time.
const AT_ONCE: usize = 16;

/// Write the cluster's files on installed nodes as a new installation would get them: shows what differs, asks, writes
#[derive(Debug, Args)]
pub(super) struct Push {
    /// Which; all installed ones when left out
    names: Vec<NodeName>,
    /// Write without asking
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// Only show what differs; exit code 1 when something does
    #[arg(long)]
    dry_run: bool,
    /// What differs and what was done, as JSON
    #[arg(long)]
    json: bool,
}

/// A node, the files it should have, and what became of it.
struct Task<'a> {
    node: &'a Node,
    files: Vec<NodeFile>,
}

impl Push {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        files.cluster()?;
        let site = serve::load_site(&files.config)?;
        let keys = store::load_or_create(&files.state)?.public().clone();
        let state = files.journal()?.state()?;
        let tasks = self.tasks(&site, &state, &keys)?;
        if tasks.is_empty() {
            return out::text("no node is installed yet");
        }
        let ssh = Ssh::new(&files.state, &keys)?;
        let looked = at_once(&tasks, |task| {
            let answer = ssh.bash(task.node, &push::reading(&task.files))?;
            Ok(push::changes(&task.files, push::parse(&answer, &task.files)?))
        });
        let differ: Vec<_> = tasks
            .iter()
            .zip(&looked)
            .filter_map(|(task, looked)| Some((task.node, looked.as_ref().ok()?)))
            .filter(|(_, changes)| !changes.is_empty())
            .collect();
        if !self.json {
            for (node, changes) in &differ {
                changes
                    .iter()
                    .try_for_each(|change| out::text(&change.diff(node.name.as_str())))?;
            }
        }
        let write = !differ.is_empty() && self.may_write(differ.len())?;
        let written = at_once(&differ, |(node, changes)| {
            if write { ssh.bash(node, &push::writing(changes)).map(drop) } else { Ok(()) }
        });
        let outcomes = outcomes(&tasks, &looked, &differ, &written, write);
        self.tell(&outcomes)
    }

    fn tasks<'a>(
        &self,
        site: &'a Site,
        state: &State,
        keys: &PublicKeys,
    ) -> anyhow::Result<Vec<Task<'a>>> {
        let cluster = &site.cluster;
        let is_there = |node: &&Node| {
            state
                .progress(node.mac)
                .is_some_and(|one| matches!(one.stage, Stage::Installed | Stage::Ready))
        };
        let nodes: Vec<&Node> = if self.names.is_empty() {
            // What another system gets is its owner's.
            let is_ours = |node: &&Node| !cluster.installers().contains_key(&node.os);
            cluster.nodes().filter(is_there).filter(is_ours).collect()
        } else {
            let node = |name| {
                let missing =
                    || Wrong(format!("there is no node `{name}`; `rekindle node list` names them"));
                cluster.node(name).ok_or_else(missing)
            };
            self.names.iter().map(node).collect::<Result<_, _>>()?
        };
        nodes
            .into_iter()
            .map(|node| {
                let os = state.progress(node.mac).and_then(|progress| progress.os.as_ref());
                let os = os.unwrap_or(&node.os);
                let tree = site.tree(os).with_context(|| format!("there is no tree of {os}"))?;
                Ok(Task { node, files: artifacts::files(cluster, os, tree, keys)? })
            })
            .collect()
    }

    fn may_write(&self, nodes: usize) -> anyhow::Result<bool> {
        if self.yes || self.dry_run {
            return Ok(self.yes);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Wrong(
                "nothing was written; add --yes to write without a question".to_owned(),
            )
            .into());
        }
        out::ask(&format!("write this to {nodes} nodes?"))
    }

    fn tell(&self, outcomes: &[Outcome]) -> anyhow::Result<()> {
        if self.json {
            let list: Vec<_> = outcomes
                .iter()
                .map(|one| json!({ "node": one.node, "files": one.files, "done": one.done, "error": one.error }))
                .collect();
            out::json(&list)?;
        } else {
            let line = |one: &Outcome| match (&one.error, one.files.len(), one.done) {
                (Some(error), _, _) => format!("{}: {error}", one.node),
                (None, 0, _) => format!("{}: nothing differs", one.node),
                (None, count, true) => format!("{}: {count} files written", one.node),
                (None, count, false) => format!("{}: {count} files differ", one.node),
            };
            out::text(&outcomes.iter().map(line).collect::<Vec<_>>().join("\n"))?;
        }
        let failed = outcomes.iter().filter(|one| one.error.is_some()).count();
        if failed > 0 {
            anyhow::bail!("{failed} of {} nodes could not be brought up to date", outcomes.len());
        }
        let left = outcomes.iter().filter(|one| !one.files.is_empty() && !one.done).count();
        if left > 0 {
            return Err(Wrong(format!("{left} nodes differ")).into());
        }
        Ok(())
    }
}

/// What became of a node.
struct Outcome {
    node: NodeName,
    files: Vec<&'static str>,
    done: bool,
    error: Option<String>,
}

fn outcomes(
    tasks: &[Task<'_>],
    looked: &[anyhow::Result<Vec<Change<'_>>>],
    differ: &[(&Node, &Vec<Change<'_>>)],
    written: &[anyhow::Result<()>],
    write: bool,
) -> Vec<Outcome> {
    let of = |task: &Task<'_>, looked: &anyhow::Result<Vec<Change<'_>>>| {
        let node = task.node.name.clone();
        let changes = match looked {
            Ok(changes) => changes,
            Err(error) => {
                let error = Some(format!("{error:#}"));
                return Outcome { node, files: vec![], done: false, error };
            }
        };
        let place = differ.iter().position(|(other, _)| other.name == node);
        let result = place.and_then(|place| written.get(place));
        let error =
            result.and_then(|result| result.as_ref().err()).map(|error| format!("{error:#}"));
        let files = changes.iter().map(|change| change.file.path).collect();
        Outcome { node, files, done: write && error.is_none(), error }
    };
    tasks.iter().zip(looked).map(|(task, looked)| of(task, looked)).collect()
}

/// Does something for every item, a few at one time; results in the order of the items.
fn at_once<'a, T: Sync, R: Send>(
    items: &'a [T],
    work: impl Fn(&'a T) -> anyhow::Result<R> + Sync,
) -> Vec<anyhow::Result<R>> {
    let next = Mutex::new(0..items.len());
    let results: Vec<Mutex<Option<anyhow::Result<R>>>> =
        items.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.lock().ok().and_then(|mut next| next.next());
                    let Some(index) = index else { return };
                    let (Some(item), Some(place)) = (items.get(index), results.get(index)) else {
                        return;
                    };
                    let result = work(item);
                    if let Ok(mut place) = place.lock() {
                        *place = Some(result);
                    }
                }
            });
        }
    });
    let take = |place: Mutex<Option<anyhow::Result<R>>>| {
        let done = place.into_inner().ok().flatten();
        done.unwrap_or_else(|| Err(anyhow::anyhow!("it was not tried")))
    };
    results.into_iter().map(take).collect()
}

/// The master's way to its nodes: root's key, and the authority that signed their host keys.
struct Ssh {
    key: std::path::PathBuf,
    known_hosts: tempfile::NamedTempFile,
}

impl Ssh {
    fn new(state: &Path, keys: &PublicKeys) -> anyhow::Result<Self> {
        let mut known_hosts = tempfile::NamedTempFile::new().context("make a temporary file")?;
        known_hosts
            .write_all(artifacts::known_hosts(&keys.host_ca).as_bytes())
            .context("write a temporary file")?;
        Ok(Self { key: state.join("secrets/root_ed25519"), known_hosts })
    }

    /// Runs a script by the node's bash and returns what it printed.
    fn bash(&self, node: &Node, script: &str) -> anyhow::Result<String> {
        let known = format!("UserKnownHostsFile={}", self.known_hosts.path().display());
        let options = [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
            "ConnectTimeout=20",
            "ServerAliveInterval=15",
            "LogLevel=ERROR",
            &known,
        ];
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "/dev/null", "-i"]).arg(&self.key);
        ssh.args(options.iter().flat_map(|option| ["-o", option]));
        ssh.arg(format!("root@{}", node.ip)).args(["bash", "-s"]);
        let mut child = ssh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run ssh; install openssh-clients")?;
        let mut input = child.stdin.take().context("ssh has no input")?;
        // Written beside the reading: both pipes may be full at once.
        let done = std::thread::scope(|scope| {
            let feeding = scope.spawn(move || input.write_all(script.as_bytes()));
            let done = child.wait_with_output();
            // A node that hangs up early says why by itself.
            drop(feeding.join());
            done
        })
        .context("run ssh")?;
        if !done.status.success() {
            let last = host::last_words(&done.stderr);
            anyhow::bail!("{}", crate::http::report::printable(&last));
        }
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}
