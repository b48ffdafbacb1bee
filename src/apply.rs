//! A [`Plan`] carried out on this machine, and the way back.
//!
//! Before anything is changed, what undoes it is on the disk (`undo.jsonl`, one line a step). Steps that
//! can lock the admin out are undone by a process of its own unless they are confirmed in time; it
//! lives on when this one, or the admin's ssh session, does not.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use crate::change;
use crate::host;
use crate::repo::key::Key;
use crate::repo::{self, Repo, RepoError};
use crate::setup::batch::Pbs;
use crate::setup::{self, Action, Filter, Plan, files};

pub mod look;
pub mod signs;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A file.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A program.
    #[error("`{command}` failed: {said}")]
    Command {
        /// What was run.
        command: String,
        /// Its last words.
        said: String,
    },
    /// The cluster's own packages.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// An earlier change still waits.
    #[error(
        "an earlier change waits to be confirmed or undone; `rekindle master confirm` keeps it, `rekindle master rollback` undoes it"
    )]
    Pending,
    /// The record of what was done cannot be read.
    #[error(
        "{path} is damaged on line {line}; what was done before it can still be undone by hand from there"
    )]
    Damaged {
        /// The record.
        path: PathBuf,
        /// Where.
        line: usize,
    },
}

/// What undoes a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
enum Undo {
    /// A file as it was; removed when it was not there.
    File { path: PathBuf, before: Option<Kept> },
    /// A folder that was not there; it goes unless somebody else put something in.
    Folder { path: PathBuf },
    /// A setting as it was.
    Sysctl { name: String, before: u64 },
    /// An address that was not there.
    Address { link: String, address: String, was_up: bool },
    /// Rules as they were, in the words of their own program; none: our table is removed.
    Rules { program: String, before: Option<String> },
    /// An index that was not there.
    Index { path: PathBuf },
    /// What a batch system's server is told then.
    Qmgr { program: String, lines: Vec<String> },
    /// A unit that did not run, or was not switched on.
    Service { unit: String, was_enabled: bool, was_active: bool },
}

/// A file as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    mode: u32,
    uid: u32,
    gid: u32,
    text: Vec<u8>,
}

/// Where the record lies.
#[derive(Debug)]
pub struct Record {
    dir: PathBuf,
}

/// The waiting of a change for its confirmation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Tells this change from a later one.
    pub id: u64,
    /// Lines of the record that were there before.
    lines: usize,
}

impl Record {
    /// In `STATE-master`, which only root reads: it holds old texts of private files, and root does what it
    /// says. So it is not in the daemon's own folder.
    pub fn open(state: &Path) -> Result<Self, ApplyError> {
        let dir = setup::record_dir(state);
        change::private_dir(&dir).map_err(|source| io_error(&dir, source))?;
        Ok(Self { dir })
    }

    /// The same where there is one already; looks, and makes nothing.
    pub fn existing(state: &Path) -> Option<Self> {
        let dir = setup::record_dir(state);
        dir.is_dir().then_some(Self { dir })
    }

    /// The right to change this machine; others wait for it. It ends with its holder, however that ends.
    pub fn lock(&self) -> Result<Flock<File>, ApplyError> {
        let path = self.dir.join("lock");
        change::lock(&path).map_err(|source| io_error(&path, source))
    }

    /// What signs the cluster's own packages: only root reads it.
    pub fn key(&self) -> Key {
        Key::in_record(&self.dir)
    }

    fn undo_file(&self) -> PathBuf {
        self.dir.join("undo.jsonl")
    }

    fn pending_file(&self) -> PathBuf {
        self.dir.join(files::PENDING)
    }

    /// The change that waits, when there is one.
    pub fn pending(&self) -> Result<Option<Pending>, ApplyError> {
        let path = self.pending_file();
        let text = there(&path, std::fs::read(&path))?;
        let parse = |text: Vec<u8>| serde_json::from_slice(&text);
        text.map(parse).transpose().map_err(|error| io_error(&path, error.into()))
    }

    fn entries(&self) -> Result<Vec<Undo>, ApplyError> {
        let path = self.undo_file();
        let text = there(&path, std::fs::read_to_string(&path))?.unwrap_or_default();
        // A last line without its end was being written when the power failed: its step was not begun.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse = |(index, line): (usize, &str)| {
            let damaged = |_| ApplyError::Damaged { path: path.clone(), line: index + 1 };
            serde_json::from_str(line).map_err(damaged)
        };
        whole.lines().enumerate().map(parse).collect()
    }

    fn keep(&self, entries: &[Undo]) -> Result<(), ApplyError> {
        let path = self.undo_file();
        let mut text = String::new();
        for entry in entries {
            text.push_str(
                &serde_json::to_string(entry).map_err(|error| io_error(&path, error.into()))?,
            );
            text.push('\n');
        }
        put(&path, text.as_bytes(), 0o600, None)
    }

    fn add(&self, undo: Vec<Undo>) -> Result<(), ApplyError> {
        let mut entries = self.entries()?;
        entries.extend(undo);
        self.keep(&entries)
    }

    /// Says that a change begins; from now on it is undone unless it is confirmed.
    pub fn begin(&self, id: u64) -> Result<Pending, ApplyError> {
        if self.pending()?.is_some() {
            return Err(ApplyError::Pending);
        }
        let pending = Pending { id, lines: self.entries()?.len() };
        let path = self.pending_file();
        let text = serde_json::to_vec(&pending).map_err(|error| io_error(&path, error.into()))?;
        put(&path, &text, 0o600, None)?;
        Ok(pending)
    }

    /// Keeps what was done. `false` when nothing waits.
    pub fn confirm(&self) -> Result<bool, ApplyError> {
        let path = self.pending_file();
        let kept = there(&path, std::fs::remove_file(&path))?.is_some();
        // Else a power cut brings it back, and what was kept is undone at boot.
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| io_error(&self.dir, source))?;
        Ok(kept)
    }

    /// Whether that change waits no more and is in force.
    pub fn is_kept(&self, change: &Pending) -> Result<bool, ApplyError> {
        let waits = self.pending()?.is_some_and(|pending| pending.id == change.id);
        Ok(!waits && self.entries()?.len() > change.lines)
    }

    /// Undoes the change that waits, or that one only when `id` is given. `false` when it does not wait.
    pub fn roll_back(&self, id: Option<u64>) -> Result<bool, ApplyError> {
        let Some(pending) = self.pending()?.filter(|pending| id.is_none_or(|id| id == pending.id))
        else {
            return Ok(false);
        };
        self.undo_from(pending.lines)?;
        self.confirm()
    }

    /// Undoes everything that was ever done.
    pub fn revert(&self) -> Result<usize, ApplyError> {
        let count = self.entries()?.len();
        self.undo_from(0)?;
        self.confirm()?;
        Ok(count)
    }

    /// Last first; each line goes when it is done, so that a second try goes on there.
    fn undo_from(&self, first: usize) -> Result<(), ApplyError> {
        let mut entries = self.entries()?;
        while entries.len() > first {
            if let Some(last) = entries.last() {
                undo(last)?;
            }
            entries.pop();
            self.keep(&entries)?;
        }
        forget();
        Ok(())
    }
}

/// Lets those who read files at boot forget the ones that are gone: else a unit is still known, and the
/// interface gets its address again as soon as it is seen.
fn forget() {
    if !look::has_systemd() {
        return;
    }
    output("systemctl", &["daemon-reload"]);
    let readers: [(&str, &[&str]); 2] = [
        ("NetworkManager", &["nmcli", "connection", "reload"]),
        ("systemd-networkd", &["networkctl", "reload"]),
    ];
    for (unit, command) in readers {
        if let ([program, words @ ..], true) = (command, look::is_active(unit)) {
            output(program, words);
        }
    }
}

/// Carries out a plan, step by step; `told` hears of each before it is done.
pub fn carry_out(
    record: &Record,
    plan: &Plan,
    munge_key: &[u8],
    mut told: impl FnMut(usize),
) -> Result<(), ApplyError> {
    for (index, step) in plan.steps.iter().enumerate() {
        told(index);
        record.add(before(&step.action)?)?;
        act(&step.action, munge_key, record)?;
    }
    Ok(())
}

/// What will undo an action, from how things are now.
fn before(action: &Action) -> Result<Vec<Undo>, ApplyError> {
    Ok(vec![match action {
        Action::Write { path, .. } => {
            let path = PathBuf::from(path);
            let mut undo = new_folders(&path);
            undo.push(Undo::File { before: kept(&path)?, path });
            return Ok(undo);
        }
        Action::Sysctl { name, before, .. } => match before {
            Some(before) => Undo::Sysctl { name: (*name).to_owned(), before: *before },
            None => return Ok(vec![]),
        },
        Action::Address { link, address, prefix } => Undo::Address {
            link: link.to_string(),
            address: format!("{address}/{prefix}"),
            was_up: look::is_up(link),
        },
        Action::LoadRules(Filter::Nft) => Undo::Rules {
            program: "nft".to_owned(),
            before: output("nft", &["list", "table", "inet", "rekindle"]),
        },
        Action::LoadRules(Filter::Iptables) => {
            let family = |program: &str| {
                let saved = output(&format!("{program}-save"), &[]).unwrap_or_default();
                Undo::Rules { program: program.to_owned(), before: Some(whole(saved)) }
            };
            return Ok(vec![family("iptables"), family("ip6tables")]);
        }
        Action::MungeKey => {
            let path = PathBuf::from(MUNGE_KEY);
            Undo::File { before: kept(&path)?, path }
        }
        Action::Index(dir) => {
            let index = dir.join("repodata");
            if index.exists() {
                return Ok(vec![]);
            }
            let mut undo = new_folders(&index);
            for path in repo::own_files(dir) {
                undo.push(Undo::File { before: kept(&path)?, path });
            }
            undo.push(Undo::Index { path: index });
            return Ok(undo);
        }
        Action::TorqueDatabase => {
            let path = PathBuf::from(Pbs::Torque.database());
            Undo::File { before: kept(&path)?, path }
        }
        Action::Qmgr(pbs, told) => {
            Undo::Qmgr { program: pbs.program("qmgr"), lines: told.undo.clone() }
        }
        Action::Enable { unit } => Undo::Service {
            unit: (*unit).to_owned(),
            was_enabled: output("systemctl", &["is-enabled", unit]).is_some(),
            // It may be the one that is undoing this.
            was_active: true,
        },
        Action::Service { unit } => Undo::Service {
            unit: (*unit).to_owned(),
            was_enabled: output("systemctl", &["is-enabled", unit]).is_some(),
            was_active: output("systemctl", &["is-active", unit]).is_some(),
        },
    }])
}

/// Folders that a new file needs; the outermost first, so that it goes last.
fn new_folders(path: &Path) -> Vec<Undo> {
    let new = path.ancestors().skip(1).take_while(|dir| !dir.exists());
    let mut undo: Vec<_> = new.map(|dir| Undo::Folder { path: dir.to_owned() }).collect();
    undo.reverse();
    undo
}

/// Saved rules with the tables that nobody has used yet, empty: what is not named is not restored.
fn whole(mut saved: String) -> String {
    let empty = [
        ("*filter", ":INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"),
        (
            "*nat",
            ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             :POSTROUTING ACCEPT [0:0]\n",
        ),
    ];
    for (table, chains) in empty {
        if !saved.lines().any(|line| line == table) {
            saved.push_str(&format!("{table}\n{chains}COMMIT\n"));
        }
    }
    saved
}

/// Where munge looks for its key.
pub(crate) const MUNGE_KEY: &str = "/etc/munge/munge.key";

fn kept(path: &Path) -> Result<Option<Kept>, ApplyError> {
    let read = || -> io::Result<Kept> {
        let about = std::fs::metadata(path)?;
        let (mode, uid, gid) = (about.mode() & 0o7777, about.uid(), about.gid());
        Ok(Kept { mode, uid, gid, text: std::fs::read(path)? })
    };
    there(path, read())
}

fn act(action: &Action, munge_key: &[u8], record: &Record) -> Result<(), ApplyError> {
    match action {
        Action::Write { path, after, .. } => {
            let path = Path::new(path);
            let owner = std::fs::metadata(path).ok().map(|about| (about.uid(), about.gid()));
            put(path, after.text.as_bytes(), after.mode, owner)
        }
        Action::Sysctl { name, after, .. } => sysctl(name, *after),
        Action::Address { link, address, prefix } => {
            run("ip", &["addr", "replace", &format!("{address}/{prefix}"), "dev", link.as_str()])?;
            run("ip", &["link", "set", "dev", link.as_str(), "up"])
        }
        Action::LoadRules(Filter::Nft) => run("nft", &["-f", files::NFT]),
        Action::LoadRules(Filter::Iptables) => {
            run("iptables-restore", &[files::IPTABLES])?;
            run("ip6tables-restore", &[files::IP6TABLES])
        }
        Action::MungeKey => {
            let user = nix::unistd::User::from_name("munge").ok().flatten();
            let owner = user.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
            put(Path::new(MUNGE_KEY), munge_key, 0o400, owner)
        }
        Action::Index(dir) => {
            Repo { dir }.publish(&repo::Change::default(), &record.key())?;
            Ok(())
        }
        // It makes its books and stays: only its end by the clock is asked for.
        Action::TorqueDatabase => {
            let words = ["10", "pbs_server", "-D", "-a", "0", "-f", "-t", "create"];
            match run("timeout", &words) {
                Err(_) if Path::new(Pbs::Torque.database()).exists() => Ok(()),
                done => done,
            }
        }
        // Line by line: of a whole text nobody learns which line was refused.
        Action::Qmgr(pbs, told) => {
            let program = pbs.program("qmgr");
            told.lines.iter().try_for_each(|line| run(&program, &["-c", line]))
        }
        Action::Enable { unit } => {
            if !look::has_systemd() {
                return Ok(());
            }
            enable(unit)
        }
        Action::Service { unit } => {
            if !look::has_systemd() {
                return Ok(());
            }
            enable(unit)?;
            run("systemctl", &["reload-or-restart", unit])
        }
    }
}

fn undo(entry: &Undo) -> Result<(), ApplyError> {
    match entry {
        Undo::File { path, before: Some(Kept { mode, uid, gid, text }) } => {
            put(path, text, *mode, Some((*uid, *gid)))
        }
        Undo::File { path, before: None } => there(path, std::fs::remove_file(path)).map(drop),
        Undo::Folder { path } => {
            std::fs::remove_dir(path).unwrap_or_default();
            Ok(())
        }
        Undo::Sysctl { name, before } => sysctl(name, *before),
        Undo::Address { link, address, was_up } => {
            // Somebody may have removed it meanwhile.
            output("ip", &["addr", "del", address, "dev", link]);
            if *was_up { Ok(()) } else { run("ip", &["link", "set", "dev", link, "down"]) }
        }
        Undo::Rules { program, before } if program == "nft" => {
            output("nft", &["delete", "table", "inet", "rekindle"]);
            before.as_ref().map_or(Ok(()), |rules| feed("nft", &["-f", "-"], rules))
        }
        Undo::Rules { program, before } => {
            feed(&format!("{program}-restore"), &[], before.as_deref().unwrap_or_default())
        }
        Undo::Index { path } => there(path, std::fs::remove_dir_all(path)).map(drop),
        // A node that went meanwhile is gone already.
        Undo::Qmgr { program, lines } => {
            for line in lines {
                output(program, &["-c", line]);
            }
            Ok(())
        }
        Undo::Service { unit, was_enabled, was_active } => {
            if !look::has_systemd() {
                return Ok(());
            }
            // What cannot be stopped is not worth a half undone master.
            if !was_enabled {
                output("systemctl", &["disable", unit]);
            }
            if !was_active {
                output("systemctl", &["stop", unit]);
            }
            Ok(())
        }
    }
}

fn sysctl(name: &str, value: u64) -> Result<(), ApplyError> {
    let path = look::sysctl_path(name);
    if !path.exists() {
        // Its settings are unknown before the module is loaded.
        output("modprobe", &["-q", "nf_conntrack"]);
    }
    std::fs::write(&path, format!("{value}\n")).map_err(|source| io_error(&path, source))
}

/// Writes a file whole or not at all, its folder too.
fn put(path: &Path, text: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<(), ApplyError> {
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        change::put(path, text, mode, owner)
    };
    write().map_err(|source| io_error(path, source))?;
    // A new file has the label of its folder, which is not always the file's own.
    if Path::new("/sys/fs/selinux/enforce").exists() {
        run("restorecon", &[&path.display().to_string()])?;
    }
    Ok(())
}

/// Starts the process that undoes the change `id` after so many seconds unless it was confirmed. It has
/// a session of its own: neither the end of ours nor of the admin's ends it.
pub fn guard(
    exe: &Path,
    config: &Path,
    state: &Path,
    id: u64,
    seconds: u64,
) -> Result<(), ApplyError> {
    let (id, seconds) = (id.to_string(), seconds.to_string());
    let log_file = setup::record_dir(state).join("rollback.log");
    let log = OpenOptions::new().create(true).append(true).open(&log_file);
    let log = log.map_err(|source| io_error(&log_file, source))?;
    // systemd would end what an ssh session left, where it was told to.
    let unit = format!("--unit=rekindle-rollback-{id}");
    let program = if look::has_systemd() { "systemd-run" } else { "setsid" };
    let mut guard = Command::new(program);
    if look::has_systemd() {
        guard.args(["--quiet", "--collect", &unit]);
    }
    guard.arg(exe).arg("--config").arg(config).arg("--state").arg(state);
    guard.args(["master", "rollback", "--id", &id, "--after", &seconds]);
    guard.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    guard.spawn().map(drop).map_err(|source| io_error(Path::new(program), source))
}

/// Runs a program; its last words when it fails.
fn run(program: &str, words: &[&str]) -> Result<(), ApplyError> {
    feed(program, words, "")
}

fn feed(program: &str, words: &[&str], input: &str) -> Result<(), ApplyError> {
    let failed = |said: String| ApplyError::Command {
        command: format!("{program} {}", words.join(" ")),
        said,
    };
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).map_err(|error| failed(error.to_string()))?;
    }
    let done = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(host::last_words(&done.stderr)))
}

/// Lets a unit start at boot; its file may be new.
fn enable(unit: &str) -> Result<(), ApplyError> {
    run("systemctl", &["daemon-reload"])?;
    run("systemctl", &["enable", unit])
}

/// Stops what lets nodes join by themselves.
pub fn stop_joining() {
    if look::has_systemd() {
        // Where it is not installed there is nothing to stop.
        output("systemctl", &["stop", files::JOIN_TIMER, files::JOIN_SERVICE]);
    }
}

/// Waits so long, whoever wakes us.
pub fn pause(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    // Nothing is ever sent: only time ends it.
    receiver.recv_timeout(time).unwrap_or_default();
}

/// What a program prints; `None` when it fails or is not there.
fn output(program: &str, words: &[&str]) -> Option<String> {
    let done = Command::new(program).args(words).stdin(Stdio::null()).output().ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What was done with a file, or nothing where it is not there.
fn there<T>(path: &Path, done: io::Result<T>) -> Result<Option<T>, ApplyError> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io_error(path, source)),
    }
}

fn io_error(path: &Path, source: io::Error) -> ApplyError {
    ApplyError::Io { path: path.to_owned(), source }
}
