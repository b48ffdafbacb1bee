//! What the owner wants and what was found of it: one immutable snapshot that all decisions are
//! made over.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Node};
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
}

impl Site {
    /// The tree of an os.
    pub fn tree(&self, os: &OsName) -> Option<&Tree> {
        self.trees.get(os)
    }

    /// The os that is installed on a node whose own one does not fit, with its tree.
    pub fn fallback(&self, node: &Node) -> Option<(&OsName, &Tree)> {
        let name = self.cluster.systems().get(&node.os)?.fallback.as_ref()?;
        Some((name, self.trees.get(name)?))
    }
}
