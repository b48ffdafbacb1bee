//! `rekindle repo`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Files, Wrong, out};
use crate::cluster::{Cluster, Os};
use crate::import::keys;
use crate::import::url::Pace;
use crate::media;
use crate::mirrors::Preset;
use crate::name::OsName;
use crate::repo::key::Key;
use crate::repo::package::{self, Package};
use crate::repo::{Change, Repo, Wishes, dnf};
use crate::setup;

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
        #[command(flatten)]
        which: Which,
    },
    /// List what is in it
    List(Which),
    /// Ask again for what was added by name, and take what is newer
    Sync(Which),
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// Of which os; needed where several have a repository
    #[arg(long)]
    os: Option<OsName>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// FILE.rpm, a folder, or a package's name
    #[arg(required = true)]
    items: Vec<String>,
    /// Where packages come from by name, besides the install tree: a repository's URL or folder, or a name that
    /// `rekindle media mirrors` shows (epel)
    #[arg(long)]
    from: Vec<String>,
    #[command(flatten)]
    which: Which,
}

impl Repository {
    pub(super) fn run(self, files: &Files) -> anyhow::Result<()> {
        let cluster = files.cluster()?;
        let which = match &self {
            Self::Add(Add { which, .. })
            | Self::Rm { which, .. }
            | Self::List(which)
            | Self::Sync(which) => which,
        };
        let (name, os, dir) = chosen(&cluster, which.os.as_ref())?;
        let key = Key::in_record(&setup::record_dir(&files.state));
        let place = Place { name, os, repo: Repo { dir }, key, as_json: which.json };
        match self {
            Self::Add(Add { items, from, .. }) => place.add(files, items, from),
            Self::Rm { names, .. } => place.remove(names.into_iter().collect()),
            Self::List(_) => list(&place.repo.packages()?, place.as_json),
            Self::Sync(_) => place.sync(files),
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

/// The repository that is meant.
struct Place<'c> {
    name: &'c OsName,
    os: &'c Os,
    repo: Repo<'c>,
    key: Key,
    as_json: bool,
}

impl Place<'_> {
    fn add(&self, files: &Files, items: Vec<String>, from: Vec<String>) -> anyhow::Result<()> {
        let (mut change, mut names) = (Change::default(), BTreeSet::new());
        for item in items {
            // What looks like a path is one: a mistake in it is not looked for on a mirror.
            if item.contains('/') || item.ends_with(".rpm") || PathBuf::from(&item).exists() {
                let folder = package::folder(&std::path::absolute(&item)?)?;
                change.add.extend(folder.packages);
                change.modules.extend(folder.modules);
                change.groups = folder.groups.or(change.groups);
            } else {
                names.insert(item);
            }
        }
        if names.is_empty() {
            return self.published(&change);
        }
        let mut wishes = self.repo.wishes()?;
        wishes.names.extend(names);
        let known = files.mirrors()?;
        for from in from {
            let is_known = from.contains("://") || self.preset(&known, &from).is_some();
            let from = if is_known {
                from
            } else {
                let dir = std::path::absolute(&from)?;
                if !dir.is_dir() {
                    let why = format!(
                        "{from} is no folder, no URL, and no name that `rekindle media mirrors` shows"
                    );
                    return Err(Wrong(why).into());
                }
                dir.display().to_string()
            };
            wishes.from.insert(from);
        }
        self.named(&known, wishes, change)
    }

    fn remove(&self, remove: BTreeSet<String>) -> anyhow::Result<()> {
        let mut wishes = self.repo.wishes()?;
        wishes.names.retain(|name| !remove.contains(name));
        let change = Change { remove, wishes: Some(wishes), ..Change::default() };
        self.publish(&change)?;
        let (name, left) = (self.name, self.repo.files()?.len());
        if self.as_json {
            return out::json(&json!({ "os": name, "removed": change.remove, "packages": left }));
        }
        out::text(&format!("{name}: {left} packages"))
    }

    fn sync(&self, files: &Files) -> anyhow::Result<()> {
        let wishes = self.repo.wishes()?;
        if wishes.names.is_empty() {
            return self.told(&[]);
        }
        self.named(&files.mirrors()?, wishes, Change::default())
    }

    /// What is known by a name, or by a name and the release: `epel` is `epel9` here.
    fn preset<'p>(&self, known: &'p BTreeMap<String, Preset>, name: &str) -> Option<&'p Preset> {
        let found = known.get(name).or_else(|| {
            let tree = media::load_tree(self.name, self.os).ok()?;
            known.get(&format!("{name}{}", tree.release.number()))
        });
        found.filter(|preset| preset.repo.is_some())
    }

    /// Fetches what is asked for by name, and publishes it with what else changes.
    fn named(
        &self,
        known: &BTreeMap<String, Preset>,
        wishes: Wishes,
        mut change: Change,
    ) -> anyhow::Result<()> {
        let tree = media::load_tree(self.name, self.os)?;
        let room = tempfile::tempdir().context("a folder for what is fetched")?;
        let mut from = vec![];
        for word in &wishes.from {
            let Some(preset) = self.preset(known, word) else {
                from.push(word.clone());
                continue;
            };
            from.extend(preset.repo.clone());
            for file in keys::fetch(preset, room.path(), Pace::default())? {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                change.keys.insert(name, std::fs::read(&file)?);
            }
        }
        let asked = dnf::Asked { names: &wishes.names, from: &from };
        let (os_tree, repo) = (&self.os.tree, self.repo.dir);
        change.fetched = patiently("dnf fetches what is needed", || {
            dnf::resolve(asked, &tree, os_tree, Some(repo), room.path())
        })?;
        change.wishes = Some(wishes);
        self.published(&change)
    }

    fn publish(&self, change: &Change) -> anyhow::Result<Vec<Package>> {
        Ok(patiently("indexing", || self.repo.publish(change, &self.key))?)
    }

    fn published(&self, change: &Change) -> anyhow::Result<()> {
        self.told(&self.publish(change)?)
    }

    fn told(&self, added: &[Package]) -> anyhow::Result<()> {
        let name = self.name;
        if self.as_json {
            out::json(
                &json!({ "os": name, "added": added, "packages": self.repo.files()?.len() }),
            )?;
        } else {
            for package in added {
                out::text(&format!("{name}: {}", package.file))?;
            }
            if added.is_empty() {
                out::text("nothing is new")?;
            }
        }
        for package in added.iter().filter(|package| package.signed.is_none()) {
            out::note(&format!(
                "{} is not signed, and the nodes refuse it: whoever made it should sign it, or you vouch for it: rekindle repo add FILE.rpm",
                package.file
            ));
        }
        Ok(())
    }
}

/// How long something has taken so far, once it takes long.
fn patiently<T: Send>(what: &str, work: impl FnOnce() -> T + Send) -> T {
    out::patiently(|seconds| format!("{what}, {seconds} s"), work)
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
