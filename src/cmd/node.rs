//! `rekindle node …`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Files, Wrong, out};
use crate::change;
use crate::cluster::edit::{self, NewNode};
use crate::cluster::{self, Cluster};
use crate::mac::Mac;
use crate::name::{NodeName, OsName, Role};
use crate::stage::{Event, Progress, Stage, State};

/// Add, list, remove and reinstall nodes
#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// Add a machine by its MAC; its next network boot installs it and erases its disk
    Add(Add),
    /// List all nodes and how far they are
    List(Json),
    /// Show one node
    Show(Show),
    /// Remove a node; its disk is not touched
    Rm(Named),
    /// Let a node's next network boot install it again, which erases its disk
    Reinstall(Reinstall),
    /// Take the permission to install back
    Disarm(Many),
    /// Add the machines of a CSV file (columns name, mac, ip, os, roles; only mac is needed)
    Import(Import),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// Host name; the next free one when left out
    name: Option<NodeName>,
    /// Hardware address of the card it boots from, in any notation
    #[arg(long)]
    mac: Mac,
    /// Its address; the next free one when left out
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// What to install, when it is not the default
    #[arg(long)]
    os: Option<OsName>,
    /// What it is for; may be given several times
    #[arg(long = "role")]
    roles: Vec<Role>,
    /// Only add it: it boots its own disk until `rekindle node reinstall`
    #[arg(long)]
    no_arm: bool,
}

#[derive(Debug, Args)]
pub(super) struct Json {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// Which
    name: NodeName,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Which
    name: NodeName,
}

#[derive(Debug, Args)]
pub(super) struct Many {
    /// Which
    #[arg(required = true)]
    names: Vec<NodeName>,
}

#[derive(Debug, Args)]
pub(super) struct Reinstall {
    /// Which
    #[arg(required = true)]
    names: Vec<NodeName>,
    /// Its disk was replaced: another one than the last time may be erased
    #[arg(long)]
    new_disk: bool,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file
    file: PathBuf,
    /// Only add them: they boot their own disks until `rekindle node reinstall`
    #[arg(long)]
    no_arm: bool,
}

impl Node {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run(files),
            Self::List(Json { json }) => list(files, json),
            Self::Show(Show { name, json }) => show(files, &name, json),
            Self::Rm(Named { name }) => remove(files, &name),
            Self::Reinstall(Reinstall { names, new_disk }) => reinstall(files, &names, new_disk),
            Self::Disarm(Many { names }) => disarm(files, &names),
            Self::Import(import) => import.run(files),
        }
    }
}

impl Add {
    fn run(self, files: &Files) -> anyhow::Result<()> {
        let Self { name, mac, ip, os, roles, no_arm } = self;
        add(files, vec![Wanted { place: String::new(), name, mac, ip, os, roles }], !no_arm)
    }
}

impl Import {
    fn run(self, files: &Files) -> anyhow::Result<()> {
        let bytes = std::fs::read(&self.file)
            .with_context(|| format!("cannot read {}", self.file.display()))?;
        let text = cluster::utf8(bytes, &self.file)?;
        let rows = cluster::import::parse_csv(&text)
            .map_err(|found| Wrong(found.with_file(&self.file)))?;
        let name = self.file.display();
        if rows.is_empty() {
            return Err(Wrong(format!(
                "{name} names no machine; write a line like worker1,52:54:00:aa:bb:01"
            ))
            .into());
        }
        let wanted = rows
            .into_iter()
            .map(|row| Wanted {
                place: format!("{name}:{}: ", row.line),
                name: row.name,
                mac: row.mac,
                ip: row.ip,
                os: row.os,
                roles: row.roles,
            })
            .collect();
        add(files, wanted, !self.no_arm)
    }
}

/// A node as its owner asks for it.
struct Wanted {
    /// Where that stands, in front of what is wrong with it.
    place: String,
    name: Option<NodeName>,
    mac: Mac,
    ip: Option<Ipv4Addr>,
    os: Option<OsName>,
    roles: Vec<Role>,
}

impl Wanted {
    /// Fills in what was left out. What is taken is told here, since the line that it would
    /// stand on is not written yet.
    fn node(self, cluster: &Cluster) -> Result<NewNode, String> {
        let Self { name, mac, ip, os, roles, .. } = self;
        if let Some(taken) = cluster.node_by_mac(mac) {
            let name = &taken.name;
            return Err(format!(
                "{mac} is node `{name}` already; `rekindle node reinstall {name}` installs it again"
            ));
        }
        let name = name.or_else(|| edit::next_name(cluster)).ok_or("no next name; give one")?;
        if cluster.node(&name).is_some() {
            return Err(format!("there is a node `{name}` already; give another name"));
        }
        let ip = ip.or_else(|| edit::next_ip(cluster)).ok_or(
            "all addresses of network.workers are taken; widen the range or give an address",
        )?;
        if let Some(taken) = cluster.node_by_ip(ip) {
            let name = &taken.name;
            return Err(format!("{ip} is already taken by node `{name}`; give another address"));
        }
        Ok(NewNode { name, mac, ip, os, roles })
    }
}

/// Adds all or none: the file first, then the permission to install.
fn add(files: &Files, wanted: Vec<Wanted>, arm: bool) -> anyhow::Result<()> {
    let lock = files.lock()?;
    let journal = files.journal()?;
    let mut text = files.text()?;
    let mut cluster = Cluster::parse(&text, &files.config)?;
    let (mut added, mut wrong) = (vec![], vec![]);
    for one in wanted {
        let place = one.place.clone();
        let node = one.node(&cluster);
        let changed = node.and_then(|node| {
            let text = edit::add_node(&text, &node).map_err(|error| error.to_string())?;
            let parsed = Cluster::parse(&text, &files.config);
            Ok((node, text, parsed.map_err(|found| change::refused(&found))?))
        });
        match changed {
            Ok((node, with_it, parsed)) => {
                (text, cluster) = (with_it, parsed);
                added.push(node);
            }
            Err(message) => wrong.push(format!("{place}{message}")),
        }
    }
    if !wrong.is_empty() {
        return Err(Wrong(wrong.join("\n")).into());
    }
    lock.replace(&text)?;
    let mut report = vec![];
    for node in &added {
        if arm {
            journal.append(node.mac, &Event::Armed).with_context(|| {
                format!("{} is added but not armed; run `rekindle node reinstall {}` when this is mended", node.name, node.name)
            })?;
        }
        let then = if arm {
            "its next network boot installs it and erases its disk"
        } else {
            "it boots its own disk"
        };
        report.push(format!("{} ({}, {}) is added: {then}", node.name, node.mac, node.ip));
    }
    out::text(&report.join("\n"))
}

fn remove(files: &Files, name: &NodeName) -> anyhow::Result<()> {
    let lock = files.lock()?;
    let journal = files.journal()?;
    let text = files.text()?;
    let cluster = Cluster::parse(&text, &files.config)?;
    let mac = node(&cluster, name)?.mac;
    let text = edit::remove_node(&text, name).map_err(|error| Wrong(error.to_string()))?;
    // The permission goes first: a node that is half removed must not be installed.
    journal.append(mac, &Event::Disarmed)?;
    lock.replace(&text)?;
    out::text(&format!("{name} is removed; its disk was not touched"))
}

fn reinstall(files: &Files, names: &[NodeName], new_disk: bool) -> anyhow::Result<()> {
    let cluster = files.cluster()?;
    let nodes = names.iter().map(|name| node(&cluster, name)).collect::<Result<Vec<_>, _>>()?;
    let journal = files.journal()?;
    for node in nodes {
        if new_disk {
            journal.append(node.mac, &Event::NewDiskAllowed)?;
        }
        journal.append(node.mac, &Event::Armed)?;
        out::text(&format!(
            "{}: its next network boot installs it again and erases its disk",
            node.name
        ))?;
    }
    Ok(())
}

fn disarm(files: &Files, names: &[NodeName]) -> anyhow::Result<()> {
    let cluster = files.cluster()?;
    let nodes = names.iter().map(|name| node(&cluster, name)).collect::<Result<Vec<_>, _>>()?;
    let journal = files.journal()?;
    for node in nodes {
        journal.append(node.mac, &Event::Disarmed)?;
        out::text(&format!("{}: it boots its own disk", node.name))?;
    }
    Ok(())
}

fn node<'a>(cluster: &'a Cluster, name: &NodeName) -> Result<&'a cluster::Node, Wrong> {
    let missing = || Wrong(format!("there is no node `{name}`; `rekindle node list` names them"));
    cluster.node(name).ok_or_else(missing)
}

fn list(files: &Files, json: bool) -> anyhow::Result<()> {
    let cluster = files.cluster()?;
    let state = files.journal()?.state()?;
    if json {
        let all: Vec<Value> = cluster.nodes().map(|node| as_json(node, &state)).collect();
        return out::json(&all);
    }
    let rows: Vec<Vec<String>> = cluster.nodes().map(|node| as_row(node, &state)).collect();
    if rows.is_empty() {
        return out::text("there is no node yet; rekindle node add --mac MAC");
    }
    out::text(&out::table(&["NAME", "MAC", "IP", "OS", "STAGE", "SINCE", "TRIES"], &rows))
}

fn as_row(node: &cluster::Node, state: &State) -> Vec<String> {
    let progress = state.progress(node.mac);
    let stage = progress.map_or(Stage::Idle, |progress| progress.stage);
    let packages = progress.and_then(|progress| progress.packages);
    let stage = match (stage, packages) {
        (Stage::Packages, Some((done, total))) => format!("packages {done}/{total}"),
        (stage, _) => stage.to_string(),
    };
    let tries = progress.and_then(|progress| progress.arm).map(|arm| arm.tries.to_string());
    vec![
        node.name.to_string(),
        node.mac.to_string(),
        node.ip.to_string(),
        node.os.to_string(),
        stage,
        progress.map_or_else(|| "-".to_owned(), |progress| out::time(progress.since_ms)),
        tries.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn as_json(node: &cluster::Node, state: &State) -> Value {
    let progress = state.progress(node.mac);
    let arm = progress.and_then(|progress| progress.arm);
    let packages = progress
        .and_then(|progress| progress.packages)
        .map(|(done, total)| json!({ "done": done, "total": total }));
    json!({
        "name": node.name, "mac": node.mac, "ip": node.ip, "os": node.os, "roles": node.roles,
        "stage": progress.map_or(Stage::Idle, |progress| progress.stage),
        "since": progress.map(|progress| out::time(progress.since_ms)),
        "armed": arm.is_some(), "tries": arm.map_or(0, |arm| arm.tries), "packages": packages,
        "detail": progress.map(|progress| progress.detail.as_str()),
    })
}

fn show(files: &Files, name: &NodeName, json: bool) -> anyhow::Result<()> {
    let cluster = files.cluster()?;
    let node = node(&cluster, name)?;
    let state = files.journal()?.state()?;
    if json {
        return out::json(&as_json(node, &state));
    }
    let roles: Vec<_> = node.roles.iter().map(Role::as_str).collect();
    let progress = state.progress(node.mac);
    let mut lines = vec![
        ("name", node.name.to_string()),
        ("mac", node.mac.to_string()),
        ("ip", node.ip.to_string()),
        ("os", node.os.to_string()),
        ("roles", if roles.is_empty() { "-".to_owned() } else { roles.join(" ") }),
        ("disk", disk(&node.settings.disk)),
    ];
    lines.extend(progress.map(told).into_iter().flatten());
    let lines: Vec<String> =
        lines.iter().map(|(key, value)| format!("{key:<10} {value}")).collect();
    out::text(&lines.join("\n"))
}

fn disk(rule: &cluster::DiskRule) -> String {
    let mut words = vec![format!("the smallest fixed one of {} GiB or more", rule.min_gib)];
    words.extend(rule.max_gib.map(|max| format!("{max} GiB at most")));
    words.extend(rule.serial.iter().map(|serial| format!("serial {serial}")));
    words.extend(rule.wwn.iter().map(|wwn| format!("WWN {wwn}")));
    words.extend(rule.model.iter().map(|model| format!("model {model}")));
    words.extend(rule.path.iter().map(|path| format!("path {path}")));
    words.extend(rule.keep.iter().map(|mount| format!("{mount} is kept")));
    words.join(", ")
}

fn told(progress: &Progress) -> Vec<(&'static str, String)> {
    let armed = progress.arm.map_or_else(
        || "no: it boots its own disk".to_owned(),
        |arm| format!("yes: its next network boot installs it ({} tries so far)", arm.tries),
    );
    let mut lines = vec![
        ("stage", format!("{} since {}", progress.stage, out::time(progress.since_ms))),
        ("armed", armed),
    ];
    if !progress.detail.is_empty() {
        // A log's tail has many lines; each stays recognizable as the node's own words.
        lines.push(("said", progress.detail.trim().replace('\n', "\n           ")));
    }
    lines
}
