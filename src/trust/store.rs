//! The folder of secrets: made once with mode 0700, every file 0600, refused when others can read.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::{PublicKeys, Secrets};
use crate::change;

/// munge(8) takes keys of 32 to 1024 bytes.
const MUNGE_KEY_LEN: usize = 1024;

/// Why the secrets cannot be used. rekindle does not start without them.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error(
        "{path}: {source}; the folder of secrets must be readable and writable by rekindle alone"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Someone else can read it.
    #[error(
        "{path} can be read by others (mode {mode:o}); run `chmod 600 {path}` and, if someone may have read it, remove it to get a new one"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not what it should be.
    #[error(
        "{path} is damaged: {reason}; restore it from a backup, or remove it to get a new one and reinstall the nodes"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What about it.
        reason: String,
    },
}

/// Reads the secrets of a cluster from `STATE/secrets`, making those that do not exist yet.
pub fn load_or_create(state_dir: &Path) -> Result<Secrets, StoreError> {
    let dir = state_dir.join("secrets");
    change::private_dir(&dir).map_err(|source| io(&dir, source))?;
    let token = dir.join("token.key");
    let token_key = load(&token, || random(32))?
        .try_into()
        .map_err(|bytes: Vec<u8>| damaged(&token, format!("{} bytes, not 32", bytes.len())))?;
    let munge = dir.join("munge.key");
    let munge_key = load(&munge, || random(MUNGE_KEY_LEN))?;
    if !(32..=MUNGE_KEY_LEN).contains(&munge_key.len()) {
        return Err(damaged(&munge, format!("{} bytes, not 32 to 1024", munge_key.len())));
    }
    let host_ca = load_ssh(&dir.join("host_ca"), "rekindle host CA")?;
    let root = load_ssh(&dir.join("root_ed25519"), "root@master (rekindle)")?;
    let public = PublicKeys { host_ca: line(&host_ca)?, master_root: line(&root)? };
    publish(&dir.join("host_ca.pub"), &public.host_ca)?;
    publish(&dir.join("root_ed25519.pub"), &public.master_root)?;
    Ok(Secrets { token_key, host_ca, munge_key, public })
}

fn line(key: &PrivateKey) -> Result<String, StoreError> {
    key.public_key().to_openssh().map_err(|error| damaged(Path::new("ssh key"), error.to_string()))
}

/// Reads a secret; a missing one is made first. Two processes that make it at the same time end
/// up with the same one: a file appears whole or not at all, and the first one stays.
fn load(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, StoreError> {
    if !path.exists() {
        let content = make().map_err(|reason| damaged(path, reason))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut fresh = tempfile::NamedTempFile::new_in(dir).map_err(|source| io(path, source))?;
        fresh.write_all(&content).map_err(|source| io(path, source))?;
        fresh.as_file().sync_all().map_err(|source| io(path, source))?;
        change::like_its_folder(fresh.path()).map_err(|source| io(path, source))?;
        match fresh.persist_noclobber(path) {
            Ok(_) => {}
            Err(failed) if failed.error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(failed) => return Err(io(path, failed.error)),
        }
        sync_dir(dir).map_err(|source| io(dir, source))?;
    }
    let mut file = File::open(path).map_err(|source| io(path, source))?;
    let mode = file.metadata().map_err(|source| io(path, source))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = vec![];
    file.read_to_end(&mut content).map_err(|source| io(path, source))?;
    Ok(content)
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn load_ssh(path: &Path, comment: &str) -> Result<PrivateKey, StoreError> {
    let make = || {
        let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519)
            .map_err(|error| error.to_string())?;
        key.set_comment(comment);
        let text = key.to_openssh(LineEnding::LF).map_err(|error| error.to_string())?;
        Ok(text.as_bytes().to_vec())
    };
    PrivateKey::from_openssh(load(path, make)?).map_err(|error| damaged(path, error.to_string()))
}

/// Public halves lie beside the private ones for people and scripts.
fn publish(path: &Path, line: &str) -> Result<(), StoreError> {
    let text = format!("{line}\n");
    if std::fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    change::put(path, text.as_bytes(), 0o600, None)
        .and_then(|()| change::like_its_folder(path))
        .map_err(|source| io(path, source))
}

fn random(len: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn io(path: &Path, source: std::io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path, reason: String) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), reason }
}
