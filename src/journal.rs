//! The journal on disk: an SQLite database that entries are only ever appended to.
//!
//! A shell: it does I/O and decides nothing. Several processes may append at once (the server and
//! the owner's commands); each sees what the others wrote by asking for the entries after the
//! last one it knows.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use crate::change::{like_its_folder, private_dir};
use crate::mac::Mac;
use crate::stage::{Entry, Event, State, TimestampMs};

/// How long an append waits for another process's append.
const BUSY: Duration = Duration::from_secs(5);

const SCHEMA_VERSION: u32 = 1;

const SCHEMA: &str = "
CREATE TABLE entry (
    seq   INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    mac   TEXT    NOT NULL,
    event TEXT    NOT NULL
) STRICT;
CREATE INDEX entry_by_mac ON entry (mac, seq);
CREATE TRIGGER entry_is_history BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'the journal is only appended to'); END;
";

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    db: Connection,
    path: PathBuf,
}

/// What can go wrong with the journal. Nothing that was appended before is lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder is missing, not ours, or the file is no database.
    #[error(
        "cannot open the journal {path}: {source}; check that the folder exists, is yours to write and has room"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// No room left on the disk.
    #[error("the disk is full: the journal {path} cannot grow; free some room, nothing was lost")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("journal {path}: {source}")]
    Use {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// A newer rekindle wrote it.
    #[error(
        "the journal {path} has format {found}, this rekindle knows {SCHEMA_VERSION}; use the newer rekindle"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// An entry does not read.
    #[error(
        "journal {path}, entry {seq} is damaged: {reason}; restore the file from a backup or move it away"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The entry.
        seq: u64,
        /// What about it.
        reason: String,
    },
}

impl Journal {
    /// Opens `journal.db` in the state folder, making folder (mode 0700) and file when missing.
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        let path = state_dir.join("journal.db");
        let fail = |source| JournalError::Open { path: path.clone(), source };
        let made = private_dir(state_dir).and_then(|()| {
            // SQLite gives what it makes beside a file that file's owner, but not the file itself.
            let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            match new {
                Ok(_) => like_its_folder(&path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                Err(error) => Err(error),
            }?;
            // Below it no link is followed: the folder is the daemon's, and this may be root.
            std::fs::canonicalize(state_dir)
        });
        let real = match made {
            Ok(dir) => dir.join("journal.db"),
            Err(error) => {
                let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
                return Err(fail(rusqlite::Error::SqliteFailure(code, Some(error.to_string()))));
            }
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(real, flags).map_err(fail)?;
        db.busy_timeout(BUSY).map_err(fail)?;
        let mut journal = Self { db, path };
        journal.prepare()?;
        Ok(journal)
    }

    /// WAL lets the server append while a command reads; full sync makes an append durable.
    fn prepare(&mut self) -> Result<(), JournalError> {
        let path = self.path.clone();
        let fail = |source| failed(&path, source);
        self.db
            .pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))
            .and_then(|()| self.db.pragma_update(None, "synchronous", "FULL"))
            .map_err(fail)?;
        let change = self
            .db
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .map_err(fail)?;
        let found: u32 =
            change.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fail)?;
        match found {
            0 => {
                change.execute_batch(SCHEMA).map_err(fail)?;
                change.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(fail)?;
                change.commit().map_err(fail)
            }
            SCHEMA_VERSION => Ok(()),
            _ => Err(JournalError::Newer { path: self.path.clone(), found }),
        }
    }

    /// Appends one event and returns it with its number. When this returns, it is on the disk.
    pub fn append(&self, mac: Mac, event: &Event) -> Result<Entry, JournalError> {
        let at_ms = now_ms();
        let text =
            serde_json::to_string(event).map_err(|error| self.damaged(0, error.to_string()))?;
        self.db
            .prepare_cached("INSERT INTO entry (at_ms, mac, event) VALUES (?1, ?2, ?3)")
            .and_then(|mut insert| {
                let at = i64::try_from(at_ms).unwrap_or(i64::MAX);
                insert.insert(params![at, mac.to_string(), text])
            })
            .map_err(|source| failed(&self.path, source))
            .map(|seq| Entry {
                seq: u64::try_from(seq).unwrap_or_default(),
                at_ms,
                mac,
                event: event.clone(),
            })
    }

    /// Every entry after `seq`, oldest first.
    pub fn entries_after(&self, seq: u64) -> Result<Vec<Entry>, JournalError> {
        let fail = |source| failed(&self.path, source);
        let mut select = self
            .db
            .prepare_cached("SELECT seq, at_ms, mac, event FROM entry WHERE seq > ?1 ORDER BY seq")
            .map_err(fail)?;
        let after = i64::try_from(seq).unwrap_or(i64::MAX);
        let rows = select
            .query_map([after], |row| {
                let number = |index| row.get(index).map(|value: i64| u64::try_from(value));
                let (seq, at_ms) = (number(0)?, number(1)?);
                Ok((seq.unwrap_or(0), at_ms.unwrap_or(0), row.get(2)?, row.get(3)?))
            })
            .map_err(fail)?;
        rows.map(|row| {
            let (seq, at_ms, mac, event): (u64, u64, String, String) = row.map_err(fail)?;
            let mac = mac.parse().map_err(|error| self.damaged(seq, format!("{error}")))?;
            let event = serde_json::from_str(&event)
                .map_err(|error| self.damaged(seq, error.to_string()))?;
            Ok(Entry { seq, at_ms, mac, event })
        })
        .collect()
    }

    /// The state that the whole journal folds to.
    pub fn state(&self) -> Result<State, JournalError> {
        Ok(State::from_entries(&self.entries_after(0)?))
    }

    fn damaged(&self, seq: u64, reason: String) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), seq, reason }
    }
}

fn failed(path: &Path, source: rusqlite::Error) -> JournalError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => JournalError::Full { path },
        Some(_) | None => JournalError::Use { path, source },
    }
}

/// The wall clock, in the journal's unit.
#[expect(clippy::disallowed_methods, reason = "the journal is a shell: it stamps what it writes")]
pub fn now_ms() -> TimestampMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
