//! What the owner wants and what was found of it: one immutable snapshot that all decisions are
//! made over.

use std::collections::{BTreeMap, BTreeSet};

use crate::answers::Answers;
use crate::cluster::{Cluster, Node};
use crate::machine::{Arch, Loader};
use crate::media::Tree;
use crate::name::OsName;
use crate::snippets::Snippets;

/// The snapshot.
#[derive(Debug, Clone)]
pub struct Site {
    /// `cluster.toml`.
    pub cluster: Cluster,
    /// The install tree of every os in it.
    pub trees: BTreeMap<OsName, Tree>,
    /// The owner's own pieces of kickstarts.
    pub snippets: Snippets,
    /// The answer file of every installer of another system.
    pub answers: BTreeMap<OsName, Answers>,
    /// The loaders that are on this machine.
    pub loaders: BTreeSet<Loader>,
}

impl Site {
    /// The tree of an os.
    pub fn tree(&self, os: &OsName) -> Option<&Tree> {
        self.trees.get(os)
    }

    /// The loaders for an architecture that there are, the best first: for a node whose owner named one, that.
    pub fn rungs(&self, node: Option<&Node>, arch: Arch) -> impl Iterator<Item = Loader> {
        let ladder = Loader::ladder(arch);
        let has_shim = self.signed(node).is_some();
        let is_there = move |it: &Loader| {
            if it.is_of_tree() { has_shim } else { self.loaders.contains(it) }
        };
        let here = move |it: &Loader| ladder.contains(it) && is_there(it);
        let named = node.and_then(|node| node.settings.loader).filter(here);
        let is_one = move |it: &Loader| named.is_none_or(|named| named == *it);
        ladder.iter().copied().filter(here).filter(is_one)
    }

    /// The os whose signed loaders a machine is sent: a node's own, or any for one that only waits.
    pub fn signed(&self, node: Option<&Node>) -> Option<&OsName> {
        let is_its = |os: &OsName| node.is_none_or(|node| node.os == *os);
        self.trees.iter().find(|(os, tree)| tree.has_shim && is_its(os)).map(|(os, _)| os)
    }

    /// The os that is installed on a node whose own one does not fit, with its tree.
    pub fn fallback(&self, node: &Node) -> Option<(&OsName, &Tree)> {
        let name = self.cluster.systems().get(&node.os)?.fallback.as_ref()?;
        Some((name, self.trees.get(name)?))
    }
}
