//! Picks up what the owner changes while we serve: a new `cluster.toml`, and entries that the
//! commands appended to the journal. A broken file changes nothing, is complained of once, and is
//! tried again: the tree that it names may come later.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Shared, load_site};
use crate::cluster::Os;
use crate::machine::Program;
use crate::name::IfName;
use crate::repo::key;

/// Short against the minute a machine takes to boot, long against the cost of a stat.
const EVERY: Duration = Duration::from_millis(300);

/// What tells one version of the files from the next: of `cluster.toml` and of all snippets.
pub type Version = Vec<(PathBuf, u64, u64, i64, i64)>;

/// The version of the install trees that are there now: importing a medium puts a new one in the place of the old.
/// The key in a repository comes with its first signature.
fn trees(shared: &Shared) -> Version {
    let site = shared.site();
    let systems = site.cluster.systems().values();
    let files = |os: &Os| {
        let key = os.repo.as_ref().map(|repo| repo.join(key::FILE));
        [os.tree.join(".treeinfo")].into_iter().chain(key)
    };
    let answers = site.cluster.installers().values().map(|it| it.answers.clone());
    stamps(systems.flat_map(files).chain(answers).collect())
}

/// The version that is there now.
pub fn version(config: &Path) -> Version {
    let snippets = std::fs::read_dir(super::snippets_dir(config)).into_iter().flatten().flatten();
    let mut files: Vec<_> = snippets.map(|entry| entry.path()).collect();
    files.push(config.to_owned());
    files.sort();
    stamps(files)
}

fn stamps(files: Vec<PathBuf>) -> Version {
    let version = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok()?;
        Some((path, meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    files.into_iter().filter_map(version).collect()
}

/// Looks until it is time to go. `known` is the version that is in force.
pub async fn run(config: PathBuf, mut known: Version, shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said: Option<String> = None;
    let mut complained = false;
    let mut known_trees = trees(&shared);
    loop {
        tokio::select! {
            () = super::stopped(&mut stop) => return,
            _ = tick.tick() => {}
        }
        let (config, shared) = (config.clone(), Arc::clone(&shared));
        let (before, trees_before) = (std::mem::take(&mut known), std::mem::take(&mut known_trees));
        let looked = tokio::task::spawn_blocking(move || {
            let found = version(&config);
            let found_trees = trees(&shared);
            let is_new = found != before || found_trees != trees_before;
            let complaint = if is_new || said.is_some() {
                // Of a new version the same is said again.
                reload(&config, &shared, said.filter(|_| !is_new))
            } else {
                None
            };
            // Other trees may be in force now.
            let found_trees = if is_new { trees(&shared) } else { found_trees };
            let caught_up = shared.catch_up().and_then(|()| shared.look_for_silence());
            (found, found_trees, complaint, caught_up)
        });
        let Ok((found, found_trees, complaint, caught_up)) = looked.await else { return };
        (known, known_trees, said) = (found, found_trees, complaint);
        match &caught_up {
            Err(error) if !complained => {
                tracing::error!(%error, "commands of the owner are not seen");
            }
            Err(_) | Ok(()) => {}
        }
        complained = caught_up.is_err();
    }
}

/// Ends when `interface` is no longer the one it is now: removed, or a new one of its name. Our
/// sockets hear neither.
pub async fn gone(interface: &IfName) {
    let index = || nix::net::if_::if_nametoindex(interface.as_str()).ok();
    let mut tick = tokio::time::interval(EVERY);
    let bound = index();
    while bound.is_some() && index() == bound {
        tick.tick().await;
    }
}

/// Takes the file as it is now, or returns what is wrong with it; `said` is not said again.
fn reload(config: &Path, shared: &Shared, said: Option<String>) -> Option<String> {
    let complain = |text: String| {
        if said.as_ref() != Some(&text) {
            for line in text.lines() {
                tracing::error!("{line}");
            }
        }
        Some(text)
    };
    let old = shared.site();
    let site = match load_site(config) {
        Ok(mut site) => {
            // What was not there when we started is not in memory.
            site.loaders.retain(|loader| shared.programs.contains_key(&Program::Loader(*loader)));
            site
        }
        Err(error) => {
            let file = config.display();
            return complain(format!(
                "{error:#}\n{file} is broken; the previous one stays in force"
            ));
        }
    };
    let place = |site: &crate::site::Site| {
        let network = site.cluster.network();
        (network.interface.clone(), network.address, network.subnet, network.dhcp)
    };
    if place(&old) != place(&site) {
        return complain(format!(
            "the private interface, its address or `dhcp` changed in {}; the previous one stays in \
             force until rekindle is restarted",
            config.display()
        ));
    }
    let nodes = site.cluster.nodes().len();
    shared.master().reload(Arc::new(site));
    tracing::info!(nodes, "{} read anew", config.display());
    None
}
