//! `rekindle media`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Files, Wrong, out};
use crate::cluster::{Cluster, Os};
use crate::import::survey::{self, Depth, Survey};
use crate::import::url::{Mirror, Pace};
use crate::import::{self, Import, Progress, Source};
use crate::media::{self, Tree};
use crate::mirrors::Preset;
use crate::name::OsName;

/// Where trees go that `cluster.toml` does not know yet.
const TREES: &str = "/srv/rekindle/tree";

/// Import install media, look at install trees, remove them
#[derive(Debug, Subcommand)]
pub(super) enum Media {
    /// Make an install tree of a DVD's image, a folder or a mirror's tree; all of it or none
    Import(ImportArgs),
    /// List the mirrors that have a name here: shipped ones, and those of mirrors.toml beside cluster.toml
    Mirrors {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the install trees of cluster.toml
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one
    Show {
        /// Which
        name: OsName,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare every file with what the tree's own lists say; exit code 1 when one is damaged
    Verify {
        /// Which; all when left out
        names: Vec<OsName>,
        /// Only names and lengths, which takes seconds
        #[arg(long)]
        quick: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a tree that no node uses
    Rm {
        /// Which
        name: OsName,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// An ISO file, a folder, http://…, https://…, or a name that `media mirrors` shows
    source: String,
    /// Name of the os in cluster.toml; without, that of its release (el9)
    #[arg(long)]
    name: Option<OsName>,
    /// Take it although its packages are signed with other keys than those of the tree that is there
    #[arg(long)]
    new_keys: bool,
    /// Seconds without a thousand bytes each until a line counts as broken and is tried again
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    patience: u32,
    /// MiB a second at the most, from a mirror; as fast as it goes when left out
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Media {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        match self {
            Self::Import(args) => import(files, args),
            Self::Mirrors { json } => mirrors(&files.mirrors()?, json),
            Self::List { json } => list(&files.cluster()?, json),
            Self::Show { name, json } => show(&files.cluster()?, &name, json),
            Self::Verify { names, quick, json } => verify(&files.cluster()?, &names, quick, json),
            Self::Rm { name, json } => rm(files, &name, json),
        }
    }
}

fn import(files: &Files, args: ImportArgs) -> anyhow::Result<()> {
    let ImportArgs { source: word, name, new_keys, patience: patience_s, rate, json: as_json } =
        args;
    let pace = Pace { patience_s, rate_mib: rate };
    let known = files.mirrors()?;
    // What is there counts before a name.
    let preset = known.get(&word).filter(|_| !Path::new(&word).exists());
    let source = match preset {
        Some(Preset { tree: Some(root), .. }) => Source::Url(root.clone()),
        Some(Preset { tree: None, .. }) => {
            let why = format!(
                "{word} has packages and no install tree: rekindle repo add PACKAGE --from {word}"
            );
            return Err(Wrong(why).into());
        }
        None => Source::recognise(&word)?,
    };
    let medium = match (source.look()?, &source) {
        (Some(medium), _) => Some(medium.tree),
        (None, Source::Url(root)) => Mirror { root, pace, preset }.look()?,
        (None, Source::Folder(_) | Source::Image(_)) => None,
    };
    let name = match (name, medium) {
        (Some(name), _) => name,
        (None, Some(tree)) => tree.release.to_string().parse().context("name of the release")?,
        (None, None) => return Err(Wrong("say what to call it: --name".to_owned()).into()),
    };
    // There may be no cluster yet: media come first.
    let cluster = if files.config.exists() { Some(files.cluster()?) } else { None };
    let os = cluster.as_ref().and_then(|cluster| cluster.systems().get(&name));
    let target = os.map_or_else(|| Path::new(TREES).join(name.as_str()), |os| os.tree.clone());
    let target = std::path::absolute(&target)?;
    let progress = Progress::default();
    let import =
        Import { source: &source, target: &target, progress: &progress, new_keys, pace, preset };
    let done = shown("import", &progress, || import.run())?;
    let advice: Vec<_> = done.medium.advice.iter().map(ToString::to_string).collect();
    if as_json {
        out::json(&json!({
            "name": name, "tree": target, "title": done.medium.tree.title, "packages": done.medium.packages,
            "bytes": done.bytes, "advice": advice, "in_cluster": os.is_some(),
        }))?;
    } else {
        out::text(&format!(
            "{name}: {}, {} packages, {} MiB, in {}",
            done.medium.tree.title,
            done.medium.packages,
            done.bytes >> 20,
            target.display()
        ))?;
        if os.is_none() {
            out::note(&format!(
                "to install it, write into cluster.toml:\n[os.{name}]\ntree = \"{}\"",
                target.display()
            ));
        }
        advice.iter().for_each(|line| out::note(line));
    }
    Ok(())
}

fn mirrors(known: &BTreeMap<String, Preset>, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return out::json(known);
    }
    let row = |(name, preset): (&String, &Preset)| {
        let (what, url) = match (&preset.tree, &preset.repo) {
            (Some(tree), _) => ("tree", tree),
            (None, Some(repo)) => ("packages", repo),
            (None, None) => return None,
        };
        Some(vec![name.clone(), what.to_owned(), url.clone()])
    };
    let rows: Vec<_> = known.iter().filter_map(row).collect();
    out::text(&out::table(&["NAME", "WHAT", "FROM"], &rows))
}

/// Does something that may take long, and tells how far it is.
fn shown<T: Send>(what: &str, progress: &Progress, work: impl FnOnce() -> T + Send) -> T {
    out::patiently(|seconds| format!("{what}: {}", far(progress.now(), seconds)), work)
}

/// `120 of 900 MiB, 40 MiB/s, 19 s to go`.
fn far((done, total): (u64, u64), seconds: u64) -> String {
    let rate = done / seconds.max(1);
    let mut text = match total {
        0 => format!("{} MiB", done >> 20),
        total => format!("{} of {} MiB", done >> 20, total >> 20),
    };
    if rate >= 1 << 20 {
        text.push_str(&format!(", {} MiB/s", rate >> 20));
    } else {
        text.push_str(&format!(", {} KiB/s", rate >> 10));
    }
    if let Some(left) =
        total.checked_sub(done).filter(|left| *left > 0).and_then(|left| left.checked_div(rate))
    {
        text.push_str(&format!(", {left} s to go"));
    }
    text
}

fn os<'c>(cluster: &'c Cluster, name: &OsName) -> anyhow::Result<&'c Os> {
    let known: Vec<_> = cluster.systems().keys().map(OsName::as_str).collect();
    let why =
        || Wrong(format!("there is no [os.{name}] in cluster.toml, only {}", known.join(", ")));
    Ok(cluster.systems().get(name).ok_or_else(why)?)
}

fn users(cluster: &Cluster, name: &OsName) -> Vec<String> {
    cluster.nodes().filter(|node| node.os == *name).map(|node| node.name.to_string()).collect()
}

/// One line of `list`: title, state, users.
struct Row {
    name: OsName,
    tree: PathBuf,
    found: Result<Tree, String>,
    users: Vec<String>,
}

fn row(cluster: &Cluster, name: &OsName, os: &Os) -> Row {
    let found = media::load(name, os).map_err(|error| error.to_string());
    Row { name: name.clone(), tree: os.tree.clone(), found, users: users(cluster, name) }
}

impl Row {
    fn json(&self) -> serde_json::Value {
        json!({
            "name": self.name, "tree": self.tree, "nodes": self.users,
            "title": self.found.as_ref().ok().map(|tree| &tree.title),
            "repositories": self.found.as_ref().ok().map(|tree| {
                tree.repos.iter().map(|(name, path)| json!({ "name": name, "path": path })).collect::<Vec<_>>()
            }),
            "fault": self.found.as_ref().err(),
        })
    }
}

fn list(cluster: &Cluster, as_json: bool) -> anyhow::Result<()> {
    let rows: Vec<_> = cluster.systems().iter().map(|(name, os)| row(cluster, name, os)).collect();
    if as_json {
        return out::json(&rows.iter().map(Row::json).collect::<Vec<_>>());
    }
    let cells: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let title = row
                .found
                .map_or_else(|_| "cannot be used: media show".to_owned(), |tree| tree.title);
            vec![
                row.name.to_string(),
                title,
                row.users.len().to_string(),
                row.tree.display().to_string(),
            ]
        })
        .collect();
    out::text(&out::table(&["NAME", "WHAT", "NODES", "TREE"], &cells))
}

fn show(cluster: &Cluster, name: &OsName, as_json: bool) -> anyhow::Result<()> {
    let row = row(cluster, name, os(cluster, name)?);
    if as_json {
        return out::json(&row.json());
    }
    let tree = row.found.map_err(Wrong)?;
    let repos: Vec<_> = tree
        .repos
        .iter()
        .map(
            |(name, path)| if path.is_empty() { name.clone() } else { format!("{name} in {path}") },
        )
        .collect();
    out::text(&format!(
        "{}\ntree          {}\nneeds         {}\nrepositories  {}\nnodes         {}",
        tree.title,
        row.tree.display(),
        tree.cpu,
        repos.join(", "),
        if row.users.is_empty() { "none".to_owned() } else { row.users.join(", ") }
    ))
}

fn verify(cluster: &Cluster, names: &[OsName], quick: bool, as_json: bool) -> anyhow::Result<()> {
    let names: Vec<_> =
        if names.is_empty() { cluster.systems().keys().collect() } else { names.iter().collect() };
    let depth = if quick { Depth::Names } else { Depth::Whole };
    let mut found: Vec<(&OsName, Survey)> = vec![];
    for name in names {
        let os = os(cluster, name)?;
        let tree = media::load(name, os)?;
        let progress = Progress::default();
        let survey =
            shown(name.as_str(), &progress, || survey::survey(&os.tree, &tree, depth, &progress))?;
        found.push((name, survey));
    }
    if as_json {
        let list: Vec<_> = found
            .iter()
            .map(|(name, survey)| {
                let bad: Vec<_> = survey
                    .bad
                    .iter()
                    .map(|bad| json!({ "path": bad.path, "why": bad.why }))
                    .collect();
                json!({ "name": name, "files": survey.files, "bytes": survey.bytes, "bad": bad })
            })
            .collect();
        out::json(&list)?;
    }
    let mut bad = 0;
    for (name, survey) in found {
        bad += survey.bad.len();
        if as_json {
            continue;
        }
        for file in &survey.bad {
            out::text(&format!("{name}: {}: {}", file.path, file.why))?;
        }
        if survey.bad.is_empty() {
            out::text(&format!("{name}: {} files are as they should be", survey.files))?;
        }
    }
    if bad > 0 {
        return Err(Wrong(format!("{bad} files are damaged; import the medium again")).into());
    }
    Ok(())
}

fn rm(files: &Files, name: &OsName, as_json: bool) -> anyhow::Result<()> {
    let cluster = files.cluster()?;
    let os = os(&cluster, name)?;
    let users = users(&cluster, name);
    if !users.is_empty() {
        let why = format!("{} would have nothing to install: {}", users.len(), users.join(", "));
        return Err(Wrong(why).into());
    }
    let fallback =
        cluster.systems().iter().find(|(_, other)| other.fallback.as_ref() == Some(name));
    if let Some((other, _)) = fallback {
        return Err(Wrong(format!(
            "{other} falls back to it; take that out of [os.{other}] first"
        ))
        .into());
    }
    // Nothing else is removed by mistake: `tree = "/"` is easily written.
    if !os.tree.join(".treeinfo").is_file() {
        let dir = os.tree.display();
        return Err(
            Wrong(format!("{dir} holds no install tree (.treeinfo); remove it by hand")).into()
        );
    }
    import::withdraw(&os.tree)?;
    if as_json {
        return out::json(&json!({ "name": name, "removed": os.tree }));
    }
    out::text(&format!("{} is gone; take [os.{name}] out of cluster.toml", os.tree.display()))
}

#[cfg(test)]
mod tests {
    use super::far;

    #[test]
    fn how_far_it_is_reads_well() {
        assert_eq!(far((120 << 20, 900 << 20), 3), "120 of 900 MiB, 40 MiB/s, 19 s to go");
        assert_eq!(far((0, 0), 0), "0 MiB, 0 KiB/s");
        assert_eq!(far((900 << 20, 900 << 20), 9), "900 of 900 MiB, 100 MiB/s");
    }
}
