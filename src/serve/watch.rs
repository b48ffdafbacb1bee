//! Picks up what the owner changes while we serve: a new `cluster.toml`, and entries that the
//! commands appended to the journal. A broken file changes nothing and is complained of once.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Shared, load_site};

/// Short against the minute a machine takes to boot, long against the cost of a stat.
const EVERY: Duration = Duration::from_millis(300);

/// What tells one version of the files from the next: of `cluster.toml` and of all snippets.
type Version = Vec<(PathBuf, u64, u64, i64, i64)>;

fn version(config: &Path) -> Version {
    let snippets = std::fs::read_dir(super::snippets_dir(config)).into_iter().flatten().flatten();
    let mut files: Vec<_> = snippets.map(|entry| entry.path()).collect();
    files.push(config.to_owned());
    files.sort();
    let version = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok()?;
        Some((path, meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    files.into_iter().filter_map(version).collect()
}

/// Looks until it is time to go.
pub async fn run(config: PathBuf, shared: Arc<Shared>) {
    let mut stop = shared.stop.subscribe();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = version(&config);
    let mut complained = false;
    loop {
        tokio::select! {
            () = super::stopped(&mut stop) => return,
            _ = tick.tick() => {}
        }
        let (config, shared) = (config.clone(), Arc::clone(&shared));
        let before = std::mem::take(&mut known);
        let looked = tokio::task::spawn_blocking(move || {
            let found = version(&config);
            if found != before {
                reload(&config, &shared);
            }
            (found, shared.catch_up())
        });
        let Ok((found, caught_up)) = looked.await else { return };
        known = found;
        match &caught_up {
            Err(error) if !complained => {
                tracing::error!(%error, "commands of the owner are not seen");
            }
            Err(_) | Ok(()) => {}
        }
        complained = caught_up.is_err();
    }
}

fn reload(config: &Path, shared: &Shared) {
    let old = shared.site();
    let site = match load_site(config) {
        Ok(site) => site,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                tracing::error!("{line}");
            }
            tracing::error!("{} is broken; the previous one stays in force", config.display());
            return;
        }
    };
    let place = |site: &crate::site::Site| {
        let network = site.cluster.network();
        (network.interface.clone(), network.address, network.subnet)
    };
    if place(&old) != place(&site) {
        tracing::error!(
            "the private interface or its address changed in {}; the previous one stays in \
             force until rekindle is restarted",
            config.display()
        );
        return;
    }
    let nodes = site.cluster.nodes().len();
    shared.master().reload(Arc::new(site));
    tracing::info!(nodes, "{} read anew", config.display());
}
