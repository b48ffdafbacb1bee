//! `rekindle repo`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Files, Wrong, out};
use crate::cluster::{Cluster, Os};
use crate::media;
use crate::name::OsName;
use crate::repo::{self, Change, Package, Repo, Wishes};

/// Packages of your own for the nodes
#[derive(Debug, Subcommand)]
pub(super) enum Repository {
    /// Add RPM files, folders of them, or packages by name with all that they need
    Add(Add),
    /// Remove packages by name
    Rm {
        /// Which
        #[arg(required = true)]
        names: Vec<String>,
        /// Of which os; needed where several have a repository
        #[arg(long)]
        os: Option<OsName>,
    },
    /// List what is in it
    List {
        /// Of which os; needed where several have a repository
        #[arg(long)]
        os: Option<OsName>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask again for what was added by name, and take what is newer
    Sync {
        /// Of which os; needed where several have a repository
        #[arg(long)]
        os: Option<OsName>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// FILE.rpm, a folder, or a package's name
    #[arg(required = true)]
    items: Vec<String>,
    /// Where packages come from by name, besides the install tree: the URL or folder of a repository
    #[arg(long)]
    from: Vec<String>,
    /// For which os; needed where several have a repository
    #[arg(long)]
    os: Option<OsName>,
}

impl Repository {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        let cluster = files.cluster()?;
        match self {
            Self::Add(add) => add.run(&cluster),
            Self::Rm { names, os } => {
                let (name, _, dir) = chosen(&cluster, os.as_ref())?;
                let remove: BTreeSet<_> = names.into_iter().collect();
                let repo = Repo { dir };
                let mut wishes = repo.wishes()?;
                wishes.names.retain(|name| !remove.contains(name));
                repo.publish(&Change { remove, wishes: Some(wishes), add: vec![] })?;
                out::text(&format!("{name}: {} packages", repo.files()?.len()))
            }
            Self::List { os, json } => {
                let (_, _, dir) = chosen(&cluster, os.as_ref())?;
                list(&Repo { dir }.packages()?, json)
            }
            Self::Sync { os } => {
                let (name, os, dir) = chosen(&cluster, os.as_ref())?;
                let wishes = Repo { dir }.wishes()?;
                if wishes.names.is_empty() {
                    return out::text("nothing was added by name");
                }
                named(name, os, dir, wishes, vec![])
            }
        }
    }
}

/// The os that is meant, and the folder of its repository.
fn chosen<'c>(
    cluster: &'c Cluster,
    wanted: Option<&OsName>,
) -> anyhow::Result<(&'c OsName, &'c Os, &'c PathBuf)> {
    let all = cluster.systems().iter();
    let mut with: Vec<_> =
        all.filter_map(|(name, os)| Some((name, os, os.repo.as_ref()?))).collect();
    if let Some(wanted) = wanted {
        with.retain(|(name, _, _)| *name == wanted);
    }
    match with.as_slice() {
        [one] => Ok(*one),
        [] => {
            let name = wanted.map_or("el9", OsName::as_str);
            let why = format!(
                "no repository: write repo = \"/srv/rekindle/repo/{name}\" into [os.{name}]"
            );
            Err(Wrong(why).into())
        }
        several => {
            let names: Vec<_> = several.iter().map(|(name, _, _)| name.as_str()).collect();
            Err(Wrong(format!("say which: --os {}", names.join(" or --os "))).into())
        }
    }
}

impl Add {
    fn run(self, cluster: &Cluster) -> anyhow::Result<()> {
        let (name, os, dir) = chosen(cluster, self.os.as_ref())?;
        let (mut add, mut names) = (vec![], BTreeSet::new());
        for item in self.items {
            // What looks like a path is one: a mistake in it is not looked for on a mirror.
            if item.contains('/') || item.ends_with(".rpm") || PathBuf::from(&item).exists() {
                add.extend(repo::files(&std::path::absolute(&item)?)?);
            } else {
                names.insert(item);
            }
        }
        let repo = Repo { dir };
        if names.is_empty() {
            let added = repo.publish(&Change { add, ..Change::default() })?;
            return told(name, &added);
        }
        let mut wishes = repo.wishes()?;
        wishes.names.extend(names);
        for from in self.from {
            let is_url = from.contains("://");
            let from =
                if is_url { from } else { std::path::absolute(&from)?.display().to_string() };
            wishes.from.insert(from);
        }
        named(name, os, dir, wishes, add)
    }
}

/// Fetches what is asked for by name, and publishes it with `add`.
fn named(
    name: &OsName,
    os: &Os,
    dir: &PathBuf,
    wishes: Wishes,
    mut add: Vec<PathBuf>,
) -> anyhow::Result<()> {
    let tree = media::load_tree(name, os)?;
    let room = tempfile::tempdir().context("a folder for what is fetched")?;
    out::note("asking dnf what is needed");
    add.extend(repo::resolve(&wishes, &tree, &os.tree, Some(dir), room.path())?);
    let repo = Repo { dir };
    let have = repo.files()?;
    add.retain(|file| {
        !file.file_name().is_some_and(|name| have.contains(name.to_string_lossy().as_ref()))
    });
    let added = repo.publish(&Change { add, wishes: Some(wishes), ..Change::default() })?;
    told(name, &added)
}

fn told(name: &OsName, added: &[Package]) -> anyhow::Result<()> {
    for package in added {
        out::text(&format!("{name}: {}", package.file))?;
    }
    for package in added.iter().filter(|package| package.signed.is_none()) {
        out::note(&format!(
            "{} is not signed, and the nodes refuse it: rpmsign --addsign, and its key into gpg_keys of [os.{name}]",
            package.file
        ));
    }
    if added.is_empty() { out::text("nothing is new") } else { Ok(()) }
}

fn list(packages: &[Package], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return out::json(&json!(packages));
    }
    let rows: Vec<_> = packages
        .iter()
        .map(|it| {
            let signed = it.signed.clone().unwrap_or_else(|| "not signed".to_owned());
            vec![it.name.clone(), it.version.clone(), it.arch.clone(), signed]
        })
        .collect();
    out::text(&out::table(&["NAME", "VERSION", "ARCH", "SIGNED"], &rows))
}
