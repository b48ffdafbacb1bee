//! Whether a tree is whole: what its own lists name is there, as long as they say, and with their sums.

use std::fs::File;
use std::path::Path;

use super::{ImportError, Progress};
use crate::media::{self, Tree};
use crate::repodata::{self, Entry};

/// How closely it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names and lengths.
    Names,
    /// Every byte.
    Whole,
}

/// A file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// Path below the tree.
    pub path: String,
    /// What about it.
    pub why: &'static str,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// What is wrong.
    pub bad: Vec<Bad>,
    /// Files that were looked at.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Files of a repository below `dir`: its lists, and the packages they name.
pub fn entries(dir: &Path, path: &str) -> Result<Vec<Entry>, ImportError> {
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    let read = |name: &str| {
        std::fs::read(dir.join(below(name))).map_err(ImportError::io(&dir.join(below(name))))
    };
    let index = |file: &str| {
        let file = below(file);
        move |why| ImportError::Index { file, why }
    };
    let repomd =
        repodata::repomd(&read("repodata/repomd.xml")?).map_err(index("repodata/repomd.xml"))?;
    let mut found = repomd.files;
    let primary = &repomd.primary.path;
    // When it is damaged this is said of it as of any other file.
    let file = dir.join(below(primary));
    if let Ok(packed) = File::open(&file)
        && is_good(&file, &repomd.primary, Depth::Whole).is_ok_and(|why| why.is_none())
    {
        found.extend(repodata::packages(primary, packed).map_err(index(primary))?);
    }
    for entry in &mut found {
        entry.path = below(&entry.path);
    }
    Ok(found)
}

/// What is wrong with a file.
pub(super) fn is_good(
    file: &Path,
    entry: &Entry,
    depth: Depth,
) -> Result<Option<&'static str>, ImportError> {
    let Ok(about) = std::fs::metadata(file) else { return Ok(Some("it is missing")) };
    if entry.size.is_some_and(|size| size != about.len()) {
        return Ok(Some("it has another length"));
    }
    let Some(wanted) = entry.sha256.as_ref().filter(|_| depth == Depth::Whole) else {
        return Ok(None);
    };
    let found = media::sha256(file).map_err(ImportError::io(file))?;
    Ok((found != *wanted).then_some("its checksum is another"))
}

/// Looks at everything.
pub fn survey(
    dir: &Path,
    tree: &Tree,
    depth: Depth,
    progress: &Progress,
) -> Result<Survey, ImportError> {
    let mut entries = media::sums(dir);
    for (_, path) in &tree.repos {
        entries.extend(self::entries(dir, path)?);
    }
    progress.expect(entries.iter().filter_map(|entry| entry.size).sum());
    let mut found = Survey::default();
    for entry in entries {
        let file = dir.join(&entry.path);
        let why = is_good(&file, &entry, depth)?;
        let size = std::fs::metadata(&file).map_or(0, |about| about.len());
        progress.add(entry.size.map_or(0, |_| size));
        found.files += 1;
        found.bytes += size;
        if let Some(why) = why {
            found.bad.push(Bad { path: entry.path, why });
        }
    }
    Ok(found)
}
