//! Changing files on disk: one writer at a time, the new text whole or not at all, for the right owner.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, Flock, FlockArg, RenameFlags, renameat2};

use crate::cluster::Findings;

/// Why the file stays as it is.
#[derive(Debug, thiserror::Error)]
#[error("cannot change {path}: {source}; it stays as it is")]
pub struct ChangeError {
    path: PathBuf,
    source: io::Error,
}

/// The right to change the file; other commands wait for it.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _held: Flock<File>,
}

impl Lock {
    /// Waits until no other command changes the file. Of a link, the file it leads to is locked
    /// and later replaced: people keep theirs in git and link to it.
    pub fn take(path: &Path) -> Result<Self, ChangeError> {
        let fail = |source| ChangeError { path: path.to_owned(), source };
        let path = std::fs::canonicalize(path).map_err(fail)?;
        // A name of its own: the file itself is replaced, and a lock on the old one is worth nothing.
        let lock = PathBuf::from(format!("{}.lock", path.display()));
        Ok(Self { path, _held: self::lock(&lock).map_err(fail)? })
    }

    /// Puts the new text in place of the old in one step; mode and owner stay.
    pub fn replace(&self, text: &str) -> Result<(), ChangeError> {
        let change = || -> io::Result<()> {
            let old = std::fs::metadata(&self.path)?;
            put(&self.path, text.as_bytes(), old.mode() & 0o7777, Some((old.uid(), old.gid())))
        };
        change().map_err(|source| ChangeError { path: self.path.clone(), source })
    }
}

/// Waits for a lock, whose file is made when it is not there. It ends with its holder, however that ends.
pub fn lock(path: &Path) -> io::Result<Flock<File>> {
    take(path, FlockArg::LockExclusive)
}

/// The same without waiting: `WouldBlock` when somebody else has it.
pub fn try_lock(path: &Path) -> io::Result<Flock<File>> {
    take(path, FlockArg::LockExclusiveNonblock)
}

fn take(path: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    Flock::lock(file, how).map_err(|(_, errno)| io::Error::from(errno))
}

/// `.NAME.WHAT` in the folder of NAME: where something is made that takes its place.
pub fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}"))
}

/// Writes a file whole or not at all, and durably. `owner`: user and group; nothing: our own.
pub fn put(path: &Path, content: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut fresh = tempfile::NamedTempFile::new_in(dir)?;
    fresh.write_all(content)?;
    fresh.as_file().set_permissions(PermissionsExt::from_mode(mode))?;
    if let Some((uid, gid)) = owner {
        fchown(fresh.as_file(), Some(uid), Some(gid))?;
    }
    fresh.as_file().sync_all()?;
    fresh.persist(path)?;
    File::open(dir)?.sync_all()
}

/// Puts a folder in the place of another in one step, durably: there is always one of them. Whether there
/// was another, which is now where the new one was made.
pub fn exchange(new: &Path, place: &Path) -> io::Result<bool> {
    nix::unistd::syncfs(File::open(new)?)?;
    let has_old = place.symlink_metadata().is_ok();
    let flags = if has_old { RenameFlags::RENAME_EXCHANGE } else { RenameFlags::RENAME_NOREPLACE };
    renameat2(AT_FDCWD, new, AT_FDCWD, place, flags)?;
    let dir = place.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()?;
    Ok(has_old)
}

/// What is served must be readable by the server's own user, wherever it came from.
pub fn open_to_all(path: &Path) -> io::Result<()> {
    let mode = if path.symlink_metadata()?.is_dir() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

/// Makes a folder that only its owner can look into; one that is there stays as it is.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    like_its_folder(dir)
}

/// What root makes in the daemon's folder belongs to the daemon's user, or that one could not use it.
pub fn like_its_folder(path: &Path) -> io::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let about = std::fs::metadata(dir)?;
    lchown(path, Some(about.uid()), Some(about.gid()))
}

/// What a change would break, told as a refusal.
pub fn refused(found: &Findings) -> String {
    let messages: Vec<_> = found.list.iter().map(|finding| finding.message.as_str()).collect();
    format!("not added: {}", messages.join("; "))
}
