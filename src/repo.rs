//! The cluster's own package repository of an os: RPM files in, an index of them out, exchanged in one step.
//!
//! A node in the middle of a transaction has read an index and fetches what it names: whatever the one before
//! named stays beside the new one until the next change. The index carries the cluster's own signature.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use crate::change;
use crate::import::{self, ImportError};
use crate::repodata::BadIndex;
use crate::sys::child::ends_with_us;
use key::Key;
use package::{Package, header};

pub mod dnf;
pub mod key;
pub mod package;

/// What the last index named and this one does not: kept for those who still read that one.
const PREVIOUS: &str = ".previous.json";
/// What the owner asked for by name, and where it came from: `repo sync` asks again.
const WISHES: &str = ".wishes.json";
/// Groups, which createrepo_c is told of.
const COMPS: &str = "comps.xml";
/// Modules, which it finds by itself.
const MODULES: &str = "modules.yaml";

/// Why a repository stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The same in other hands.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A program that is needed.
    #[error("{program}: {why}")]
    Program {
        /// Which.
        program: &'static str,
        /// What came of it.
        why: String,
    },
    /// No package.
    #[error("{0} is no RPM package: {1}")]
    NoPackage(PathBuf, String),
    /// Not for these machines.
    #[error("{0} is for {1}; nodes are x86_64")]
    Architecture(PathBuf, String),
    /// A list that cannot be read.
    #[error("{file}: {why}")]
    Index {
        /// Which.
        file: PathBuf,
        /// Why.
        why: BadIndex,
    },
    /// Nothing of that name.
    #[error(
        "there is no package `{0}` in the repository; `rekindle repo list` shows those there are"
    )]
    NotThere(String),
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> RepoError + use<> {
    let path = path.to_owned();
    move |source| RepoError::Io { path, source }
}

/// Names that the owner asked for, and where they come from besides the install tree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wishes {
    /// Package names.
    pub names: BTreeSet<String>,
    /// Repositories: URLs or folders.
    pub from: BTreeSet<String>,
}

/// A change of what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// RPM files that the owner brings: those that nobody signed get the cluster's signature.
    pub add: Vec<PathBuf>,
    /// RPM files from elsewhere, which come as they are.
    pub fetched: Vec<PathBuf>,
    /// Lists of modules that come with them.
    pub modules: Vec<String>,
    /// A list of groups, in the place of the one that is there.
    pub groups: Option<String>,
    /// Keys that packages are signed with: a file's name and its text.
    pub keys: BTreeMap<String, Vec<u8>>,
    /// Names that go, all versions of them.
    pub remove: BTreeSet<String>,
    /// What is asked for by name from now on.
    pub wishes: Option<Wishes>,
}

/// The repository of an os.
#[derive(Debug, Clone, Copy)]
pub struct Repo<'a> {
    /// Its folder, that of `[os.…] repo`.
    pub dir: &'a Path,
}

/// What a publication writes beside packages and their index.
pub fn own_files(dir: &Path) -> Vec<PathBuf> {
    let mut all = vec![change::beside(dir, "lock")];
    all.extend([PREVIOUS, key::FILE].map(|name| dir.join(name)));
    all
}

/// Runs a program; what it prints.
fn output(program: &'static str, command: &mut Command) -> Result<String, RepoError> {
    ends_with_us(command);
    let done = command.stdin(Stdio::null()).output().map_err(|error| {
        let why = if error.kind() == io::ErrorKind::NotFound {
            format!("it is not installed; it comes with the package {}", package_of(program))
        } else {
            error.to_string()
        };
        RepoError::Program { program, why }
    })?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = [done.stderr, done.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    let why = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(RepoError::Program { program, why: why.trim().to_owned() })
}

fn package_of(program: &str) -> &'static str {
    match program {
        "createrepo_c" => "createrepo-c (Debian) or createrepo_c (Enterprise Linux)",
        "dnf" => "dnf and dnf-plugins-core",
        "gpg" => "gnupg (Debian) or gnupg2 (Enterprise Linux)",
        "rpmsign" => "rpm (Debian) or rpm-sign (Enterprise Linux)",
        _ => "rpm",
    }
}

impl Repo<'_> {
    /// The files of its packages; not those that only the last index named.
    pub fn files(self) -> Result<BTreeSet<String>, RepoError> {
        let (mut files, previous) = (self.list()?, self.previous()?);
        files.retain(|file| file.ends_with(".rpm") && !previous.contains(file));
        Ok(files)
    }

    /// What is in it, by file.
    pub fn packages(self) -> Result<Vec<Package>, RepoError> {
        let package =
            |file: String| Ok(Package { file: file.clone(), ..header(&self.dir.join(file))? });
        self.files()?.into_iter().map(package).collect()
    }

    /// What was asked for by name.
    pub fn wishes(self) -> Result<Wishes, RepoError> {
        let path = self.dir.join(WISHES);
        Ok(read(&path)?.unwrap_or_default())
    }

    fn list(self) -> Result<BTreeSet<String>, RepoError> {
        if self.dir.exists() { Ok(import::list(self.dir)?) } else { Ok(BTreeSet::new()) }
    }

    fn previous(self) -> Result<BTreeSet<String>, RepoError> {
        Ok(read(&self.dir.join(PREVIOUS))?.unwrap_or_default())
    }

    fn beside(self, what: &str) -> PathBuf {
        change::beside(self.dir, what)
    }

    /// Others wait.
    fn lock(self) -> Result<Flock<File>, RepoError> {
        let path = self.beside("lock");
        change::lock(&path).map_err(io_at(&path))
    }

    /// Removes what killed ones left. What cannot go yet goes the next time.
    fn clean(self, parent: &Path) {
        let begin = self.beside("new-");
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry
                .path()
                .as_os_str()
                .as_encoded_bytes()
                .starts_with(begin.as_os_str().as_encoded_bytes())
            {
                import::remove(&entry.path()).unwrap_or_default();
            }
        }
    }

    /// Makes the repository as it should be beside the one that is served, and exchanges them. What is added
    /// replaces other versions of the same package only when it is the same file. Returns what is new.
    pub fn publish(self, change: &Change, key: &Key) -> Result<Vec<Package>, RepoError> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(io_at(parent))?;
        let _held = self.lock()?;
        let own = change.add.iter().map(|file| (file, true));
        let all = own.chain(change.fetched.iter().map(|file| (file, false)));
        let coming: Vec<Coming<'_>> = all
            .map(|(from, is_own)| Ok(Coming { from, is_own, package: header(from)? }))
            .collect::<Result<_, RepoError>>()?;
        self.clean(parent);
        let bytes = |one: &Coming<'_>| std::fs::metadata(one.from).map_or(0, |about| about.len());
        import::room(parent, coming.iter().map(bytes).sum())?;
        // A name of its own: the createrepo_c of one that was killed may still be at work in the last one.
        let staging = self.beside(&format!("new-{}", std::process::id()));
        import::remove(&staging)?;
        std::fs::create_dir_all(&staging).map_err(io_at(&staging))?;

        let (old, previous) = (self.list()?, self.previous()?);
        let mut gone = self.called(&change.remove)?;
        let is_replaced =
            |file: &str| file == PREVIOUS || (file == WISHES && change.wishes.is_some());
        for file in
            old.difference(&previous).filter(|file| !is_replaced(file) && !gone.contains(*file))
        {
            link(&self.dir.join(file), &staging.join(file))?;
        }
        let added = place(coming, &staging, key)?;
        if let Some(wishes) = &change.wishes {
            write(&staging.join(WISHES), wishes)?;
        }
        describe(change, &staging)?;
        self.index(&staging, key)?;
        // Whoever has read the last index finds all that it names.
        let new = import::list(&staging)?;
        let outdated =
            old.iter().filter(|file| file.starts_with("repodata/") && !new.contains(*file));
        gone.extend(outdated.filter(|file| !previous.contains(*file)).cloned());
        for file in &gone {
            link(&self.dir.join(file), &staging.join(file))?;
        }
        write(&staging.join(PREVIOUS), &gone)?;
        if change::exchange(&staging, self.dir).map_err(io_at(self.dir))? {
            import::remove(&staging)?;
        }
        Ok(added)
    }

    /// The files of packages of these names; each must be there.
    fn called(self, names: &BTreeSet<String>) -> Result<BTreeSet<String>, RepoError> {
        if names.is_empty() {
            return Ok(BTreeSet::new());
        }
        let packages = self.packages()?;
        if let Some(name) = names.iter().find(|name| !packages.iter().any(|it| it.name == **name)) {
            return Err(RepoError::NotThere(name.clone()));
        }
        let meant = packages.into_iter().filter(|package| names.contains(&package.name));
        Ok(meant.map(|package| package.file).collect())
    }

    /// The index, and who made it. The signature there is, if there is one, is of another index.
    fn index(self, staging: &Path, key: &Key) -> Result<(), RepoError> {
        let mut command = Command::new("createrepo_c");
        command.args(["--quiet", "--update"]);
        if staging.join(COMPS).is_file() {
            command.args(["-g", COMPS]);
        }
        output("createrepo_c", command.arg(staging))?;
        import::remove(&staging.join("repodata/repomd.xml.asc"))?;
        key.sign_index(&staging.join("repodata/repomd.xml"))?;
        // The same file for as long as it is the same key: who watches it sees no change.
        replace(&staging.join(key::FILE), key.public()?.as_bytes())?;
        // Files of the one before too: they are the same files.
        for file in import::list(staging)? {
            open_to_all(&staging.join(file))?;
        }
        open_to_all(staging)?;
        open_to_all(&staging.join("repodata"))
    }
}

/// A package on its way in.
struct Coming<'c> {
    from: &'c Path,
    is_own: bool,
    package: Package,
}

/// Copies what is not there yet, and signs what is the owner's and nobody's.
fn place(coming: Vec<Coming<'_>>, staging: &Path, key: &Key) -> Result<Vec<Package>, RepoError> {
    let (mut added, mut to_sign) = (vec![], vec![]);
    for Coming { from, is_own, package } in coming {
        let place = staging.join(&package.file);
        if place.exists() {
            let there = header(&place)?;
            // A new signature would be another file, and some node may be fetching this one.
            if there.is_same_build(&package) && (there.signed.is_some() || !is_own) {
                continue;
            }
        }
        import::remove(&place)?;
        std::fs::copy(from, &place).map_err(io_at(from))?;
        if is_own && package.signed.is_none() {
            to_sign.push(place);
        }
        added.push(package);
    }
    key.sign_packages(&to_sign)?;
    added
        .into_iter()
        .map(|it| {
            let place = staging.join(&it.file);
            if to_sign.contains(&place) { header(&place) } else { Ok(it) }
        })
        .collect()
}

/// Groups, modules and keys, as they come with packages.
fn describe(change: &Change, staging: &Path) -> Result<(), RepoError> {
    if !change.modules.is_empty() {
        let file = staging.join(MODULES);
        let there = if file.exists() {
            std::fs::read_to_string(&file).map_err(io_at(&file))?
        } else {
            String::new()
        };
        let all = change.modules.iter().fold(there, |all, new| package::merged(&all, new));
        replace(&file, all.as_bytes())?;
    }
    if let Some(groups) = &change.groups {
        replace(&staging.join(COMPS), groups.as_bytes())?;
    }
    for (name, text) in &change.keys {
        replace(&staging.join(name), text)?;
    }
    Ok(())
}

fn link(from: &Path, to: &Path) -> Result<(), RepoError> {
    let dir = to.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir).map_err(io_at(dir))?;
    std::fs::hard_link(from, to).map_err(io_at(to))
}

/// Writes a file anew: what is there is also a file of the repository that is served.
fn replace(path: &Path, text: &[u8]) -> Result<(), RepoError> {
    if std::fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    import::remove(path)?;
    std::fs::write(path, text).map_err(io_at(path))
}

fn open_to_all(path: &Path) -> Result<(), RepoError> {
    change::open_to_all(path).map_err(io_at(path))
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, RepoError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let parsed = serde_json::from_slice(&bytes);
            parsed.map(Some).map_err(|error| io_at(path)(error.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_at(path)(error)),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), RepoError> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| io_at(path)(error.into()))?;
    std::fs::write(path, text).map_err(io_at(path))?;
    open_to_all(path)
}
