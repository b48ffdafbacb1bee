//! What happened: journal entries, and the pure fold of them that is a node's state.
//!
//! Entries come in one at a time in journal order through [`State::apply`]; [`State`] comes out.
//! Nothing else in rekindle changes a stage.

pub mod ladder;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::mac::Mac;
use crate::machine::{Arch, BiosDrive, Loader};
use crate::name::OsName;
use ladder::Ladder;

/// Milliseconds since 1970-01-01 UTC.
pub type TimestampMs = u64;

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Position in the journal, from 1, never reused.
    pub seq: u64,
    /// When it was written, by the master's clock.
    pub at_ms: TimestampMs,
    /// Whose event it is.
    pub mac: Mac,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Everything that can happen to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The owner allows one installation. The entry's `seq` names this arming.
    Armed,
    /// The owner took the permission back.
    Disarmed,
    /// The owner says that the next installation may take another disk than the last one did.
    NewDiskAllowed,
    /// A machine that is not in the cluster asked to boot.
    Seen {
        /// What it runs on.
        arch: Arch,
        /// The address it was lent.
        ip: Ipv4Addr,
    },
    /// A loader was sent whole.
    LoaderSent {
        /// Which.
        loader: Loader,
        /// Its size.
        bytes: u64,
    },
    /// Nothing was heard from a loader that was sent.
    LoaderLost {
        /// Which.
        loader: Loader,
    },
    /// An iPXE script was handed out.
    ScriptSent {
        /// What it makes the machine do.
        plan: Plan,
        /// The os it installs, when that is not the node's own one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        os: Option<OsName>,
        /// Why it does not install although it may; empty otherwise.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// The kickstart of an arming was released. Durable before its first byte leaves.
    Released {
        /// The arming.
        arm: u64,
    },
    /// The node told us how far it is.
    Reported {
        /// The arming whose token it showed.
        arm: u64,
        /// How far.
        report: Report,
    },
}

/// What a script makes a machine do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plan {
    /// Run the installer.
    Install,
    /// Boot the local disk.
    Local,
    /// Wait, and say on the screen for what.
    Hold,
}

/// What a node reports about its installation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Report {
    /// `%pre` runs.
    Pre {
        /// Kernel, memory, whatever it says of itself.
        detail: String,
    },
    /// The disk is chosen and about to be written.
    Disk {
        /// Which.
        detail: String,
        /// Its serial number, when it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serial: Option<String>,
        /// Its number, when the machine has a BIOS that told it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drive: Option<BiosDrive>,
    },
    /// Packages are going in.
    Packages {
        /// Installed so far.
        done: u32,
        /// In all.
        total: u32,
    },
    /// `%post` runs.
    Post,
    /// The installer is through; the disk boots from now on.
    Installed,
    /// The installed system came up.
    FirstBoot {
        /// Kernel, cores, whatever it says of itself.
        detail: String,
        /// How many cores it has; hardware threads do not count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cores: Option<u32>,
    },
    /// The installer gave up.
    Failed {
        /// The tail of its log.
        log: String,
    },
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// In the cluster, never armed: it boots its own disk.
    Idle,
    /// Armed; nothing was heard from it yet.
    Waiting,
    /// Loads its first program.
    Loader,
    /// Has the script that starts the installer.
    Script,
    /// Has its kickstart.
    Kickstart,
    /// The installer looks at the machine.
    Pre,
    /// The disk is being prepared.
    Disk,
    /// Packages are going in.
    Packages,
    /// The installer finishes.
    Post,
    /// Installed; its first boot is awaited.
    Installed,
    /// Its installed system came up and reported.
    Ready,
    /// The installer gave up; the next boot tries again.
    Failed,
    /// Tried often enough; waits for its owner.
    Held,
}

impl Stage {
    /// The word users see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Loader => "loader",
            Self::Script => "script",
            Self::Kickstart => "kickstart",
            Self::Pre => "pre",
            Self::Disk => "disk",
            Self::Packages => "packages",
            Self::Post => "post",
            Self::Installed => "installed",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Held => "held",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Fold of the journal. A flood of strangers cannot grow it past [`SEEN_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    nodes: BTreeMap<Mac, Progress>,
    seen: BTreeMap<Mac, Sighting>,
    last_seq: u64,
    /// Who was sent a loader a moment ago, whether or not that could be written down.
    sent: BTreeMap<Mac, TimestampMs>,
}

/// How many unknown machines are remembered; the longest unseen goes first.
pub const SEEN_MAX: usize = 256;

/// A machine that is not in the cluster and asked to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// What it runs on.
    pub arch: Arch,
    /// The address it was lent last.
    pub ip: Ipv4Addr,
    /// First time.
    pub first_ms: TimestampMs,
    /// Last time that was written down.
    pub last_ms: TimestampMs,
}

/// One machine's way through its installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// How far it is.
    pub stage: Stage,
    /// Since when.
    pub since_ms: TimestampMs,
    /// The permission to install, until it is used up.
    pub arm: Option<Arm>,
    /// The arming that installed the system now on the disk; its token still reports the first boot.
    pub installed_by: Option<u64>,
    /// Packages installed and in all, once known.
    pub packages: Option<(u32, u32)>,
    /// What it last said of itself, or what was said of it.
    pub detail: String,
    /// The os that its last script installs, when that is not the node's own one.
    pub os: Option<OsName>,
    /// How many cores it has, once it said so.
    pub cores: Option<u32>,
    /// What the last installation wrote to, what this one chose.
    pub disks: Disks,
    /// What came of the loaders it was sent.
    pub ladder: Ladder,
}

/// Which disk of a node may be written without a question, and which is booted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disks {
    /// The one that the system now installed is on.
    installed: Disk,
    /// The one that the installation under way has chosen.
    chosen: Disk,
    /// Its owner said that another one will do.
    another_will_do: bool,
}

/// A disk as far as the installer could tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Disk {
    serial: Option<String>,
    drive: Option<BiosDrive>,
}

impl Disks {
    /// The disk that the next installation must choose too; `None` when any will do.
    pub fn expected(&self) -> Option<&str> {
        self.installed.serial.as_deref().filter(|_| !self.another_will_do)
    }

    /// The disk that a BIOS must boot.
    pub fn boots_from(&self) -> BiosDrive {
        self.installed.drive.unwrap_or(BiosDrive::FIRST)
    }
}

/// A permission to install once. The same arming covers repeated tries, up to the cluster's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arm {
    /// The journal position of the arming; tokens are derived from it.
    pub seq: u64,
    /// Scripts handed out that start the installer.
    pub boots: u32,
    /// Kickstarts released, not counting repeated requests of one boot.
    pub tries: u32,
    /// When the last install script was handed out, while its kickstart may still be asked for.
    pub window_ms: Option<TimestampMs>,
    /// Whether the kickstart of that script was released: once released is a try, asked for again it is none.
    pub is_released: bool,
}

impl Arm {
    /// A permission that nothing was done with yet.
    pub fn new(seq: u64) -> Self {
        Self { seq, boots: 0, tries: 0, window_ms: None, is_released: false }
    }
}

impl State {
    /// Folds entries, oldest first.
    pub fn from_entries<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut state = Self::default();
        for entry in entries {
            state.apply(entry);
        }
        state
    }

    /// The last entry folded in.
    pub fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// What is known of a machine; `None` when it was never armed and never booted through us.
    pub fn progress(&self, mac: Mac) -> Option<&Progress> {
        self.nodes.get(&mac)
    }

    /// Every machine with progress.
    pub fn all(&self) -> impl Iterator<Item = (Mac, &Progress)> {
        self.nodes.iter().map(|(mac, progress)| (*mac, progress))
    }

    /// Machines that asked to boot and are not in the cluster, as far as the journal tells.
    pub fn seen(&self) -> impl Iterator<Item = (Mac, &Sighting)> {
        self.seen.iter().map(|(mac, sighting)| (*mac, sighting))
    }

    /// When a machine that is not in the cluster was last written down.
    pub fn sighting(&self, mac: Mac) -> Option<&Sighting> {
        self.seen.get(&mac)
    }

    /// Takes note of a loader that left, before it is written down.
    pub fn sent_loader(&mut self, mac: Mac, now: TimestampMs) {
        self.sent.insert(mac, now);
    }

    /// Forgets those of whom nothing was heard for too long.
    pub fn forget_loaders(&mut self, now: TimestampMs) {
        self.sent.retain(|_, at| now.abs_diff(*at) < ladder::PATIENCE_MS);
    }

    /// Whether a machine was sent a loader that nothing was heard from yet.
    pub fn awaits(&self, mac: Mac) -> bool {
        let is_awaited = |progress: &Progress| progress.ladder.awaited().is_some();
        self.sent.contains_key(&mac) || self.progress(mac).is_some_and(is_awaited)
    }

    /// Takes the next entry. Entries at or below [`Self::last_seq`] are ignored.
    pub fn apply(&mut self, entry: &Entry) {
        if entry.seq <= self.last_seq {
            return;
        }
        self.last_seq = entry.seq;
        if let Event::Seen { arch, ip } = entry.event {
            self.saw(entry, arch, ip);
            return;
        }
        if matches!(entry.event, Event::ScriptSent { .. } | Event::LoaderLost { .. }) {
            self.sent.remove(&entry.mac);
        }
        let progress =
            self.nodes.entry(entry.mac).or_insert_with(|| Progress::new(Stage::Idle, entry.at_ms));
        progress.apply(entry);
    }

    fn saw(&mut self, entry: &Entry, arch: Arch, ip: Ipv4Addr) {
        let (at, first) = (entry.at_ms, self.seen.get(&entry.mac).map(|seen| seen.first_ms));
        let sighting = Sighting { arch, ip, first_ms: first.unwrap_or(at), last_ms: at };
        self.seen.insert(entry.mac, sighting);
        if self.seen.len() > SEEN_MAX {
            let oldest = self.seen.iter().min_by_key(|(_, seen)| seen.last_ms).map(|(mac, _)| *mac);
            if let Some(mac) = oldest {
                self.seen.remove(&mac);
            }
        }
    }
}

impl Progress {
    fn new(stage: Stage, since_ms: TimestampMs) -> Self {
        Self {
            stage,
            since_ms,
            arm: None,
            installed_by: None,
            packages: None,
            detail: String::new(),
            os: None,
            cores: None,
            disks: Disks::default(),
            ladder: Ladder::default(),
        }
    }

    fn apply(&mut self, entry: &Entry) {
        let (seq, at) = (entry.seq, entry.at_ms);
        match &entry.event {
            Event::Armed => {
                let disks = Disks { chosen: Disk::default(), ..std::mem::take(&mut self.disks) };
                let ladder = std::mem::take(&mut self.ladder);
                *self = Self { disks, ladder, ..Self::new(Stage::Waiting, at) };
                self.arm = Some(Arm::new(seq));
            }
            Event::Disarmed => {
                self.arm = None;
                self.enter(Stage::Idle, at);
            }
            Event::NewDiskAllowed => self.disks.another_will_do = true,
            Event::LoaderSent { loader, .. } => {
                let is_new = self.ladder.sent(*loader, at);
                if is_new && self.arm.is_some() && self.stage != Stage::Held {
                    self.enter(Stage::Loader, at);
                }
            }
            Event::LoaderLost { loader } => {
                self.ladder.gave_up(*loader);
                if self.stage == Stage::Loader {
                    self.detail = format!("nothing was heard from {loader}");
                }
            }
            Event::ScriptSent { plan, os, why } => {
                self.ladder.came_back(at);
                self.script(*plan, os.as_ref(), why, at);
            }
            Event::Released { arm } => self.released(*arm, at),
            Event::Reported { arm, report } => self.reported(*arm, report, at),
            Event::Seen { .. } => {}
        }
    }

    fn enter(&mut self, stage: Stage, at: TimestampMs) {
        if self.stage != stage {
            self.stage = stage;
            self.since_ms = at;
        }
    }

    fn script(&mut self, plan: Plan, os: Option<&OsName>, why: &str, at: TimestampMs) {
        let Some(arm) = &mut self.arm else { return };
        if !why.is_empty() {
            why.clone_into(&mut self.detail);
        }
        match plan {
            Plan::Install => {
                arm.boots += 1;
                arm.window_ms = Some(at);
                arm.is_released = false;
                self.os = os.cloned();
                self.packages = None;
                self.enter(Stage::Script, at);
            }
            Plan::Hold => {
                arm.window_ms = None;
                self.enter(Stage::Held, at);
            }
            // It may be installed and is not: somebody should know.
            Plan::Local if !why.is_empty() => self.enter(Stage::Held, at),
            Plan::Local => {}
        }
    }

    /// Counts the first release of a boot as a try; the same boot may ask again. Not the stage tells whether it is the
    /// first: that a loader was sent may be written down when its script has long been fetched, because many ROMs do not
    /// acknowledge the last block.
    fn released(&mut self, seq: u64, at: TimestampMs) {
        let Some(arm) = self.arm.as_mut().filter(|arm| arm.seq == seq) else { return };
        if !std::mem::replace(&mut arm.is_released, true) {
            arm.tries += 1;
        }
        self.enter(Stage::Kickstart, at);
    }

    fn reported(&mut self, seq: u64, report: &Report, at: TimestampMs) {
        if let (Stage::Installed, Report::FirstBoot { detail, cores }) = (self.stage, report)
            && self.installed_by == Some(seq)
        {
            self.cores = *cores;
            self.say(Stage::Ready, detail, at);
            return;
        }
        let Some(arm) = self.arm.as_mut().filter(|arm| arm.seq == seq) else { return };
        // The installer is past its kickstart: whoever asks for it now is somebody else.
        arm.window_ms = None;
        match report {
            Report::Pre { detail } => self.say(Stage::Pre, detail, at),
            Report::Disk { detail, serial, drive } => {
                self.disks.chosen = Disk { serial: serial.clone(), drive: *drive };
                self.say(Stage::Disk, detail, at);
            }
            Report::Packages { done, total } => {
                self.packages = Some((*done, *total));
                self.enter(Stage::Packages, at);
            }
            Report::Post => self.enter(Stage::Post, at),
            Report::Failed { log } => self.say(Stage::Failed, log, at),
            Report::Installed => {
                self.used_up(seq);
                self.enter(Stage::Installed, at);
            }
            // The report of `installed` was lost, yet the system runs: the arming is used up.
            Report::FirstBoot { detail, cores } => {
                self.used_up(seq);
                self.cores = *cores;
                self.say(Stage::Ready, detail, at);
            }
        }
    }

    fn used_up(&mut self, seq: u64) {
        self.arm = None;
        self.installed_by = Some(seq);
        let installed = std::mem::take(&mut self.disks.chosen);
        self.disks = Disks { installed, ..Disks::default() };
    }

    fn say(&mut self, stage: Stage, detail: &str, at: TimestampMs) {
        detail.clone_into(&mut self.detail);
        self.enter(stage, at);
    }
}

#[cfg(test)]
pub(crate) mod tests;
