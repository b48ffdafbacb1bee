//! Install media into install trees: a folder, an ISO image or a URL -> a whole tree, checked, put in place in
//! one step.
//!
//! Everything is made beside the target, in `.NAME.importing`. However this ends, the target is the old tree or
//! the new one; what was made so far is gone on with by the next import of the same source, or thrown away.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::Flock;

use crate::change;
use crate::media::judge::{self, Listing, Medium, Unusable};
use crate::mirrors::Preset;
use crate::repodata::BadIndex;

pub mod folder;
pub mod image;
pub mod keys;
pub mod survey;
pub mod url;

/// Where a tree comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder with a medium's content.
    Folder(PathBuf),
    /// An ISO image.
    Image(PathBuf),
    /// The root of a tree on a mirror.
    Url(String),
}

/// Why there is no new tree. The old one, if there was one, is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// No source of any known kind.
    #[error(
        "{0} is neither a folder, nor an ISO image, nor a URL that begins with http:// or https://"
    )]
    Unknown(String),
    /// Nothing can be installed from it.
    #[error("{medium}: {why}")]
    Unusable {
        /// The source.
        medium: String,
        /// Why.
        why: Unusable,
    },
    /// It is not whole.
    #[error("{medium}: {count} files are missing or damaged, {first} for one; {hint}")]
    Damaged {
        /// The source.
        medium: String,
        /// How many.
        count: usize,
        /// The first of them, and what about it.
        first: String,
        /// What to do.
        hint: &'static str,
    },
    /// Signed by somebody else.
    #[error(
        "{medium}: its {name} is another key than that of the tree that is there; if the vendor says that it changed: --new-keys"
    )]
    NewKey {
        /// The source.
        medium: String,
        /// The key's file.
        name: String,
    },
    /// A vendor's key that is not the vendor's.
    #[error(
        "{url}: this is {found} and should be {wanted}; take another mirror, or if the vendor says that it changed: write it into mirrors.toml"
    )]
    WrongKey {
        /// The key.
        url: String,
        /// What came.
        found: String,
        /// What should have come.
        wanted: String,
    },
    /// No room.
    #[error(
        "{dir} has {free_mib} MiB free, and this takes {needed_mib} MiB; make room, or import to another disk"
    )]
    Full {
        /// Where.
        dir: PathBuf,
        /// Free there.
        free_mib: u64,
        /// Needed.
        needed_mib: u64,
    },
    /// Somebody else imports.
    #[error("another import to {0} is at work; wait for its end")]
    Busy(PathBuf),
    /// A program.
    #[error("{0}")]
    Program(String),
    /// A list of packages.
    #[error("{file}: {why}")]
    Index {
        /// The list.
        file: String,
        /// Why it cannot be used.
        why: BadIndex,
    },
    /// The other side.
    #[error("{url}: {why}")]
    Fetch {
        /// What was asked for.
        url: String,
        /// What came of it.
        why: String,
    },
}

impl ImportError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// How far it is; read by whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    fn expect(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that are done, and bytes in all (0: not known yet).
    pub fn now(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

impl Source {
    /// Tells what a word of the command line is.
    pub fn recognise(word: &str) -> Result<Self, ImportError> {
        if word.starts_with("http://") || word.starts_with("https://") {
            return Ok(Self::Url(word.trim_end_matches('/').to_owned()));
        }
        let path = Path::new(word);
        let about = std::fs::metadata(path).map_err(ImportError::io(path))?;
        if about.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        if image::is_image(path).map_err(ImportError::io(path))? {
            return Ok(Self::Image(path.to_owned()));
        }
        Err(ImportError::Unknown(word.to_owned()))
    }

    fn words(&self) -> String {
        match self {
            Self::Folder(path) | Self::Image(path) => path.display().to_string(),
            Self::Url(url) => url.clone(),
        }
    }

    /// What the source says that it is, before anything is copied; a URL tells it only bit by bit.
    pub fn look(&self) -> Result<Option<Medium>, ImportError> {
        let (treeinfo, files) = match self {
            Self::Folder(dir) => (text_of(&dir.join(".treeinfo"))?, list(dir)?),
            Self::Image(file) => image::look(file)?,
            Self::Url(_) => return Ok(None),
        };
        self.judge(treeinfo.as_deref(), &files).map(Some)
    }

    fn judge(
        &self,
        treeinfo: Option<&str>,
        files: &BTreeSet<String>,
    ) -> Result<Medium, ImportError> {
        judge::judge(Listing { treeinfo, files })
            .map_err(|why| ImportError::Unusable { medium: self.words(), why })
    }
}

/// A text file; `None` where there is none.
fn text_of(path: &Path) -> Result<Option<String>, ImportError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImportError::io(path)(error)),
    }
}

/// Paths of all files below a folder.
pub fn list(dir: &Path) -> Result<BTreeSet<String>, ImportError> {
    let mut found = BTreeSet::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).map_err(ImportError::io(&folder))? {
            let path = entry.map_err(ImportError::io(&folder))?.path();
            // Not through links: a tree has none that matter, and they may lead anywhere.
            let about = path.symlink_metadata().map_err(ImportError::io(&path))?;
            if about.is_dir() {
                open.push(path);
            } else if about.is_file()
                && let Ok(rest) = path.strip_prefix(dir)
            {
                found.insert(rest.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

/// One import at work.
#[derive(Debug)]
pub struct Import<'a> {
    /// Where from.
    pub source: &'a Source,
    /// Where to.
    pub target: &'a Path,
    /// How far it is.
    pub progress: &'a Progress,
    /// Whether other keys than before are taken.
    pub new_keys: bool,
    /// How a mirror is fetched from.
    pub pace: url::Pace,
    /// What is known of the mirror besides its URL.
    pub preset: Option<&'a Preset>,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// What it is.
    pub medium: Medium,
    /// Bytes of it.
    pub bytes: u64,
}

impl Import<'_> {
    /// Copies, checks and puts in place.
    pub fn run(&self) -> Result<Imported, ImportError> {
        let parent = self.target.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(ImportError::io(parent))?;
        let _held = self.lock()?;
        let staging = self.beside("importing");
        self.begin(&staging)?;
        match self.source {
            Source::Folder(dir) => {
                folder::copy(dir, &staging, self.target, self.progress)?;
            }
            Source::Image(file) => image::extract(file, &staging, self.progress)?,
            Source::Url(root) => {
                let Self { pace, preset, .. } = *self;
                url::Mirror { root, pace, preset }.fetch(&staging, self.target, self.progress)?;
            }
        }
        let files = list(&staging)?;
        let medium = self.source.judge(text_of(&staging.join(".treeinfo"))?.as_deref(), &files)?;
        let bytes = self.check(&staging, &medium)?;
        self.compare_keys(&staging, &files)?;
        self.publish(&staging)?;
        Ok(Imported { medium, bytes })
    }

    fn beside(&self, what: &str) -> PathBuf {
        change::beside(self.target, what)
    }

    fn lock(&self) -> Result<Flock<File>, ImportError> {
        let path = self.beside("lock");
        change::try_lock(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                return ImportError::Busy(self.target.to_owned());
            }
            ImportError::io(&path)(error)
        })
    }

    /// What is there of another source is thrown away.
    fn begin(&self, staging: &Path) -> Result<(), ImportError> {
        remove(&self.beside("old"))?;
        let note = self.beside("source");
        let words = self.source.words();
        if text_of(&note)?.as_deref() != Some(&words) || matches!(self.source, Source::Image(_)) {
            remove(staging)?;
        }
        std::fs::write(&note, words).map_err(ImportError::io(&note))?;
        std::fs::create_dir_all(staging).map_err(ImportError::io(staging))
    }

    /// Every file that the tree's own lists name is there, and is what they say.
    fn check(&self, staging: &Path, medium: &Medium) -> Result<u64, ImportError> {
        let found = survey::survey(staging, &medium.tree, survey::Depth::Whole, self.progress)?;
        let Some(first) = found.bad.first() else { return Ok(found.bytes) };
        for bad in &found.bad {
            // The next try gets it anew.
            remove(&staging.join(&bad.path))?;
        }
        Err(ImportError::Damaged {
            medium: self.source.words(),
            count: found.bad.len(),
            first: format!("{} ({})", first.path, first.why),
            hint: match self.source {
                Source::Folder(_) | Source::Image(_) => {
                    "copy or download it again, and check the disk"
                }
                Source::Url(_) => {
                    "import it again: only those are fetched; if it stays, take another mirror"
                }
            },
        })
    }

    /// Whoever could put other packages on a mirror could put other keys there too: the first ones count.
    fn compare_keys(&self, staging: &Path, files: &BTreeSet<String>) -> Result<(), ImportError> {
        for name in files.iter().filter(|name| name.starts_with("RPM-GPG-KEY")) {
            let old = text_of(&self.target.join(name))?;
            if !self.new_keys && old.is_some() && old != text_of(&staging.join(name))? {
                return Err(ImportError::NewKey {
                    medium: self.source.words(),
                    name: name.clone(),
                });
            }
        }
        Ok(())
    }

    /// In one step: there is never half a tree, and never none where there was one.
    fn publish(&self, staging: &Path) -> Result<(), ImportError> {
        let has_old =
            change::exchange(staging, self.target).map_err(ImportError::io(self.target))?;
        remove(&self.beside("source"))?;
        if has_old {
            // Whoever reads it by an open file reads on.
            let old = self.beside("old");
            std::fs::rename(staging, &old).map_err(ImportError::io(staging))?;
            remove(&old)?;
        }
        Ok(())
    }
}

/// Takes a tree away, in one step for those who look.
pub fn withdraw(tree: &Path) -> Result<(), ImportError> {
    let old = change::beside(tree, "old");
    remove(&old)?;
    std::fs::rename(tree, &old).map_err(ImportError::io(tree))?;
    remove(&old)
}

/// Removes a file or a folder with all that is in it; nothing where there is none.
pub fn remove(path: &Path) -> Result<(), ImportError> {
    let done = match path.symlink_metadata() {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ImportError::io(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether there is room for so many bytes and a little more.
pub(crate) fn room(dir: &Path, bytes: u64) -> Result<(), ImportError> {
    let about = nix::sys::statvfs::statvfs(dir)
        .map_err(|errno| ImportError::io(dir)(io::Error::from(errno)))?;
    let free = about.blocks_available().saturating_mul(about.fragment_size());
    // Folders and blocks that are not full.
    let needed = bytes + bytes / 50 + (32 << 20);
    if free >= needed {
        return Ok(());
    }
    Err(ImportError::Full { dir: dir.to_owned(), free_mib: free >> 20, needed_mib: needed >> 20 })
}

/// Bytes in all files below a folder.
fn weight(dir: &Path, files: &BTreeSet<String>) -> u64 {
    files.iter().filter_map(|file| std::fs::metadata(dir.join(file)).ok()).map(|it| it.size()).sum()
}
