//! What a medium is good for, told from its list of files: never from a list of names, so that the next
//! minor release just works.

use std::collections::BTreeSet;

use super::{Tree, TreeInfoFault};

/// A medium as a list of paths below its root.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'a> {
    /// Text of its `.treeinfo`.
    pub treeinfo: Option<&'a str>,
    /// Paths of its files.
    pub files: &'a BTreeSet<String>,
}

/// A medium that can be installed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// What its description says.
    pub tree: Tree,
    /// Packages on it.
    pub packages: usize,
    /// What its owner should know.
    pub advice: Vec<Advice>,
}

/// Something that is missing and that one can live without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// A package that nodes are to have and that the medium lacks.
    Lacks(&'static str),
    /// No keys to check packages with.
    NoKeys,
}

impl std::fmt::Display for Advice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lacks(name) => write!(
                f,
                "no {name} on it (a minimal medium?): put it into the cluster's own repository, or take the whole DVD"
            ),
            Self::NoKeys => f.write_str(
                "no RPM-GPG-KEY file on it: name the vendor's key file in gpg_keys of its [os.…]",
            ),
        }
    }
}

/// Why nothing can be installed from a medium.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Not the root of an install tree.
    #[error("no .treeinfo in it: {0}")]
    NoDescription(&'static str),
    /// The description does not do.
    #[error(transparent)]
    Description(#[from] TreeInfoFault),
    /// An installer without packages.
    #[error(
        "{0} without packages (boot.iso): nothing can be installed from it; take the DVD, or the URL of a mirror's tree"
    )]
    NoPackages(String),
    /// A part of the tree is not there.
    #[error("{0}: {1} is missing; the copy is not complete")]
    Incomplete(String, String),
}

/// The packages that make a node of a cluster out of a computer, beyond what is on every medium.
const WANTED: [&str; 2] = ["openmpi", "chrony"];

/// The name of a package from its file's name.
fn package(path: &str) -> Option<&str> {
    let (_, file) = path.rsplit_once('/').unwrap_or(("", path));
    let name = file.strip_suffix(".rpm")?;
    let (name, _release) = name.rsplit_once('-')?;
    Some(name.rsplit_once('-')?.0)
}

/// Tells what a medium is good for.
pub fn judge(listing: Listing<'_>) -> Result<Medium, Unusable> {
    let Listing { treeinfo, files } = listing;
    let Some(text) = treeinfo else {
        let has = |part: &str| files.iter().any(|path| path.contains(part));
        return Err(Unusable::NoDescription(if has("repodata/repomd.xml") {
            "a package repository; an installer needs a whole install tree with images/ and .treeinfo"
        } else if has("LiveOS/squashfs.img") {
            "a live image; take the DVD"
        } else if has("/os/.treeinfo") || has("x86_64/os/") {
            "a mirror's folder above the trees; go down to BaseOS/x86_64/os"
        } else {
            "this is no install medium of an Enterprise Linux"
        }));
    };
    let tree = Tree::parse(text)?;
    let names: BTreeSet<&str> = files.iter().filter_map(|path| package(path)).collect();
    let has_index = |path: &str| {
        let file = if path.is_empty() { String::new() } else { format!("{path}/") };
        files.contains(&format!("{file}repodata/repomd.xml"))
    };
    if !tree.repos.iter().any(|(_, path)| has_index(path)) {
        return Err(Unusable::NoPackages(tree.title));
    }
    let missing = tree.repos.iter().find(|(_, path)| !has_index(path));
    if let Some((_, path)) = missing {
        return Err(Unusable::Incomplete(tree.title, format!("{path}/repodata/repomd.xml")));
    }
    if let Some(image) = [&tree.kernel, &tree.initrd].into_iter().find(|it| !files.contains(*it)) {
        return Err(Unusable::Incomplete(tree.title.clone(), image.clone()));
    }
    let lacks = WANTED.into_iter().filter(|name| !names.contains(name)).map(Advice::Lacks);
    let is_key = |path: &String| path.starts_with("RPM-GPG-KEY");
    let advice = lacks.chain((!files.iter().any(is_key)).then_some(Advice::NoKeys)).collect();
    let packages = files.iter().filter(|path| path.ends_with(".rpm")).count();
    Ok(Medium { tree, packages, advice })
}

#[cfg(test)]
mod tests;
