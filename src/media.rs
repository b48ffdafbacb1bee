//! Install trees: the text of a `.treeinfo` -> what kickstarts and scripts need to know of it.

use std::fmt;

/// The generation of Anaconda a tree installs with: it decides which kickstart is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// Enterprise Linux 7.
    El7,
    /// Enterprise Linux 8.
    El8,
    /// Enterprise Linux 9.
    El9,
    /// Enterprise Linux 10.
    El10,
}

/// What is known of an install tree. Paths are relative to the tree's root and were checked to
/// stay inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Like `AlmaLinux 9.8`.
    pub title: String,
    /// Generation.
    pub release: Release,
    /// Kernel of the installer.
    pub kernel: String,
    /// Its initrd.
    pub initrd: String,
    /// The package repositories inside the tree: name and path (empty: the root), base first.
    pub repos: Vec<(String, String)>,
    /// Package-signing keys found in the tree's root (file names), or given by the owner.
    pub gpg_keys: Vec<String>,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::El7 => "el7",
            Self::El8 => "el8",
            Self::El9 => "el9",
            Self::El10 => "el10",
        })
    }
}
