//! What a package needs, by the real dnf.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{RepoError, io_at, output, package};
use crate::import;
use crate::media::Tree;

/// What is looked for, and where besides the tree.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Package names.
    pub names: &'a BTreeSet<String>,
    /// Repositories: URLs or folders.
    pub from: &'a [String],
}

/// Packages that the owner asked for by name with all that they need, and that the tree does not have: real
/// dnf decides, as if on an empty node. Returns the files, below `to`.
pub fn resolve(
    asked: Asked<'_>,
    tree: &Tree,
    tree_dir: &Path,
    repo: Option<&Path>,
    to: &Path,
) -> Result<Vec<PathBuf>, RepoError> {
    let platform = tree.release.to_string();
    let release = tree.release.number();
    let path = |name: &str| to.join(name).display().to_string();
    let mut dnf = Command::new("dnf");
    // That plugin would keep what is fetched in a repository of this machine's.
    dnf.args(["-q", "-y", "--forcearch=x86_64", "--disableplugin=local"])
        .arg(format!("--releasever={release}"));
    dnf.arg(format!("--installroot={}", path("root")));
    dnf.arg(format!("--setopt=module_platform_id=platform:{platform}"));
    dnf.arg(format!("--setopt=cachedir={}", path("cache")));
    dnf.args([
        "--setopt=reposdir=/nonexistent",
        "--setopt=install_weak_deps=False",
        "--nogpgcheck",
    ]);
    // The nodes check signatures; here it only matters that everything is there.
    let mut number = 0;
    let mut source = |what: String| {
        number += 1;
        dnf.arg(format!("--repofrompath=source{number},{what}"));
    };
    for (_, below) in &tree.repos {
        source(format!("file://{}", tree_dir.join(below).display()));
    }
    if let Some(repo) = repo.filter(|repo| repo.join("repodata/repomd.xml").is_file()) {
        source(format!("file://{}", repo.display()));
    }
    for from in asked.from {
        source(if from.contains("://") { from.clone() } else { format!("file://{from}") });
    }
    dnf.args(["download", "--resolve", "--alldeps", "--arch=x86_64,noarch"]);
    dnf.arg(format!("--destdir={}", path("out"))).args(asked.names);
    std::fs::create_dir_all(to.join("root")).map_err(io_at(to))?;
    output("dnf", &mut dnf)?;
    let on_tree: BTreeSet<String> = import::list(tree_dir)?
        .into_iter()
        .map(|file| file.rsplit_once('/').map_or(file.as_str(), |it| it.1).to_owned())
        .collect();
    let found = package::folder(&to.join("out"))?.packages;
    let is_new = |file: &PathBuf| {
        file.file_name().is_some_and(|name| !on_tree.contains(name.to_string_lossy().as_ref()))
    };
    Ok(found.into_iter().filter(is_new).collect())
}
