//! The cluster's own package repository of an os: RPM files in, an index of them out, exchanged in one step.
//!
//! A node in the middle of a transaction has read an index and fetches what it names: whatever the one before
//! named stays beside the new one until the next change.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use crate::change;
use crate::import::{self, ImportError};
use crate::media::Tree;

/// What the last index named and this one does not: kept for those who still read that one.
const PREVIOUS: &str = ".previous.json";
/// What the owner asked for by name, and where it came from: `repo sync` asks again.
const WISHES: &str = ".wishes.json";
/// Groups and modules, which createrepo_c is told of.
const COMPS: &str = "comps.xml";

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

/// A package as its own header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Version and release.
    pub version: String,
    /// Architecture.
    pub arch: String,
    /// The key that signed it, in rpm's words; `None` when nobody did, and no node takes it.
    pub signed: Option<String>,
    /// Its file in the repository.
    pub file: String,
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
    /// RPM files that come.
    pub add: Vec<PathBuf>,
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

/// Runs a program; what it prints.
fn output(program: &'static str, command: &mut Command) -> Result<String, RepoError> {
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
        _ => "rpm",
    }
}

/// Reads a package's header.
fn header(file: &Path) -> Result<Package, RepoError> {
    let format = "%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\t\
                  %|RSAHEADER?{%{RSAHEADER:pgpsig}}:{%|DSAHEADER?{%{DSAHEADER:pgpsig}}:{}|}|";
    let mut rpm = Command::new("rpm");
    rpm.args(["-qp", "--nosignature", "--qf", format]).arg(file);
    let text = match output("rpm", &mut rpm) {
        Ok(text) => text,
        Err(RepoError::Program { why, .. }) if !why.starts_with("it is not installed") => {
            return Err(RepoError::NoPackage(file.to_owned(), why));
        }
        Err(error) => return Err(error),
    };
    let words: Vec<_> = text.split('\t').collect();
    let &[name, version, arch, signed] = words.as_slice() else {
        return Err(RepoError::NoPackage(file.to_owned(), "it has no name".to_owned()));
    };
    if !matches!(arch, "x86_64" | "x86_64_v2" | "noarch" | "i686") {
        return Err(RepoError::Architecture(file.to_owned(), arch.to_owned()));
    }
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"._+-~^".contains(&it))
    };
    if !is_plain(name) || !is_plain(version) {
        return Err(RepoError::NoPackage(file.to_owned(), format!("`{name}` is an odd name")));
    }
    Ok(Package {
        file: format!("{name}-{version}.{arch}.rpm"),
        name: name.to_owned(),
        version: version.to_owned(),
        arch: arch.to_owned(),
        signed: (!signed.is_empty()).then(|| signed.to_owned()),
    })
}

/// RPM files of a folder, or the file itself.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, RepoError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let all = import::list(path)?;
    Ok(all.into_iter().filter(|file| file.ends_with(".rpm")).map(|file| path.join(file)).collect())
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
    /// replaces other versions of the same package only when it is the same file.
    pub fn publish(self, change: &Change) -> Result<Vec<Package>, RepoError> {
        let parent = self.dir.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(parent).map_err(io_at(parent))?;
        let _held = self.lock()?;
        let coming: Vec<(PathBuf, Package)> = change
            .add
            .iter()
            .map(|file| Ok((file.clone(), header(file)?)))
            .collect::<Result<_, RepoError>>()?;
        self.clean(parent);
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
        for (from, package) in &coming {
            let place = staging.join(&package.file);
            import::remove(&place)?;
            std::fs::copy(from, &place).map_err(io_at(from))?;
            open_to_all(&place)?;
        }
        if let Some(wishes) = &change.wishes {
            write(&staging.join(WISHES), wishes)?;
        }
        self.index(&staging)?;
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
        Ok(coming.into_iter().map(|(_, package)| package).collect())
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

    /// The index; createrepo_c finds modules.yaml by itself, and is told of groups.
    fn index(self, staging: &Path) -> Result<(), RepoError> {
        let mut command = Command::new("createrepo_c");
        command.args(["--quiet", "--update"]);
        if staging.join(COMPS).is_file() {
            command.args(["-g", COMPS]);
        }
        output("createrepo_c", command.arg(staging))?;
        // Files of the one before too: they are the same files.
        for file in import::list(staging)? {
            open_to_all(&staging.join(file))?;
        }
        open_to_all(staging)?;
        open_to_all(&staging.join("repodata"))
    }
}

/// Packages that the owner asked for by name with all that they need, and that the tree does not have: real
/// dnf decides, as if on an empty node. Returns the files, below `to`.
pub fn resolve(
    wishes: &Wishes,
    tree: &Tree,
    tree_dir: &Path,
    repo: Option<&Path>,
    to: &Path,
) -> Result<Vec<PathBuf>, RepoError> {
    let platform = tree.release.to_string();
    let release = platform.trim_start_matches("el");
    let path = |name: &str| to.join(name).display().to_string();
    let mut dnf = Command::new("dnf");
    dnf.args(["-q", "-y", "--forcearch=x86_64"]).arg(format!("--releasever={release}"));
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
    for from in &wishes.from {
        source(if from.contains("://") { from.clone() } else { format!("file://{from}") });
    }
    dnf.args(["download", "--resolve", "--alldeps", "--arch=x86_64,noarch"]);
    dnf.arg(format!("--destdir={}", path("out"))).args(&wishes.names);
    std::fs::create_dir_all(to.join("root")).map_err(io_at(to))?;
    output("dnf", &mut dnf)?;
    let on_tree: BTreeSet<String> = import::list(tree_dir)?
        .into_iter()
        .map(|file| file.rsplit_once('/').map_or(file.as_str(), |it| it.1).to_owned())
        .collect();
    let found = files(&to.join("out"))?;
    let is_new = |file: &PathBuf| {
        file.file_name().is_some_and(|name| !on_tree.contains(name.to_string_lossy().as_ref()))
    };
    Ok(found.into_iter().filter(is_new).collect())
}

fn link(from: &Path, to: &Path) -> Result<(), RepoError> {
    let dir = to.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir).map_err(io_at(dir))?;
    std::fs::hard_link(from, to).map_err(io_at(to))
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
