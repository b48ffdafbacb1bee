//! The daemon: sockets, clock and files around [`Master`]. No decisions here.
//!
//! [`run`] opens everything, says that it is ready, and serves until SIGTERM.

pub mod dhcp;
pub mod http;
pub mod others;
pub mod room;
pub mod sendfile;
pub mod syslog;
pub mod tftp;
mod trials;
pub mod udp;
pub mod watch;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::watch::{Receiver, Sender};

use crate::answers::Answers;
use crate::cluster::{Cluster, DhcpMode, Foreign};
use crate::dhcp::{Answer, Datagram, Ignored, Step};
use crate::http::{FilePath, files};
use crate::journal::{Journal, JournalError, now_ms};
use crate::mac::Mac;
use crate::machine::{Loader, Module, Program};
use crate::master::{Master, Outcome, Record, Refused, Reply, Request};
use crate::media;
use crate::name::{IfName, OsName};
use crate::site::Site;
use crate::snippets::{self, Snippets};
use crate::stage::{Entry, Event, Stage, TimestampMs};
use crate::tftp::{Finished, transfer};

/// How long transfers may go on after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(5);

/// What `serve` was told on the command line.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `cluster.toml`.
    pub config: PathBuf,
    /// Journal, secrets and logs.
    pub state: PathBuf,
    /// Serve although the private interface carries a default route.
    pub on_default_route: bool,
}

/// What all shells share. The core is locked for microseconds, never across a wait.
#[derive(Debug)]
pub struct Shared {
    master: Mutex<Master>,
    journal: Mutex<Journal>,
    /// Loaders and what belongs to them, in memory.
    pub programs: BTreeMap<Program, Bytes>,
    /// Other DHCP servers on our wire.
    others: others::Others,
    complaints: Complaints,
    /// True once, when it is time to go.
    pub stop: Sender<bool>,
}

/// Why a TCP port cannot be ours.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {service} on {at} at {interface}: {reason}")]
pub struct ListenError {
    service: &'static str,
    at: SocketAddrV4,
    interface: IfName,
    reason: String,
}

impl ListenError {
    /// Puts the system's word into the owner's.
    pub fn new(
        service: &'static str,
        at: SocketAddrV4,
        interface: &IfName,
        source: io::Error,
    ) -> Self {
        let kind = source.kind();
        let reason = if kind == io::ErrorKind::AddrInUse {
            let port = at.port();
            format!(
                "another program has TCP port {port}; `ss -ltpn 'sport = :{port}'` names it, \
                 stop it first"
            )
        } else if kind == io::ErrorKind::PermissionDenied {
            "no permission; run it as root or from its systemd unit".to_owned()
        } else if kind == io::ErrorKind::AddrNotAvailable {
            format!("{} is not an address of this machine; give it to {interface} first", at.ip())
        } else {
            source.to_string()
        };
        Self { service, at, interface: interface.clone(), reason }
    }
}

impl Shared {
    fn new(master: Master, journal: Journal, programs: BTreeMap<Program, Bytes>) -> Self {
        Self {
            master: Mutex::new(master),
            journal: Mutex::new(journal),
            programs,
            others: others::Others::default(),
            complaints: Complaints::default(),
            stop: tokio::sync::watch::channel(false).0,
        }
    }

    /// Locks the core.
    pub fn master(&self) -> MutexGuard<'_, Master> {
        self.master.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot of what the owner wants.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(self.master().site())
    }

    /// Takes note of a file that a machine was sent: it may be a node's loader.
    fn file_sent(self: &Arc<Self>, peer: Ipv4Addr, name: &str, bytes: u64) {
        let record = self.master().loader_sent(peer, name, bytes, now_ms());
        if let Some(record) = record {
            self.record_later(vec![record]);
        }
    }

    /// Takes note of what did not happen.
    fn look_for_silence(&self) -> Result<(), JournalError> {
        let overdue = self.master().overdue(now_ms());
        if overdue.is_empty() {
            return Ok(());
        }
        self.record_now(&overdue)?;
        for (mac, event) in &overdue {
            if let Event::LoaderLost { loader } = event {
                let site = self.site();
                let node = site.cluster.node_by_mac(*mac);
                let who = node.map_or_else(|| mac.to_string(), |node| node.name.to_string());
                tracing::warn!(%mac, "nothing was heard from {loader}; `rekindle explain boot {who}` says what is next");
            }
        }
        Ok(())
    }

    /// Asks the core about an HTTP request.
    pub fn handle_http(&self, request: &Request<'_>) -> Outcome {
        self.master().handle_http(request, now_ms())
    }

    /// Writes events down and folds them in. When this returns they are on the disk.
    pub async fn record(self: &Arc<Self>, records: Vec<Record>) -> Result<(), JournalError> {
        let shared = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || shared.record_now(&records)).await;
        written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// The same for events that nobody waits for; a failure is only said.
    pub fn record_later(self: &Arc<Self>, records: Vec<Record>) {
        let shared = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.record_now(&records) {
                tracing::error!(%error, "not written down");
            }
        });
    }

    fn record_now(&self, records: &[Record]) -> Result<(), JournalError> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let written =
            records.iter().try_for_each(|(mac, event)| journal.append(*mac, event).map(drop));
        // Whatever was written counts, also what the owner's commands wrote in between.
        let folded = self.fold(&journal);
        written.and(folded)
    }

    /// Folds in what other processes wrote.
    pub fn catch_up(&self) -> Result<(), JournalError> {
        self.fold(&self.journal.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fold(&self, journal: &Journal) -> Result<(), JournalError> {
        // Its own statement: the core is not locked while the disk is read.
        let known = self.master().state().last_seq();
        let entries = journal.entries_after(known)?;
        for entry in entries {
            let (site, changed) = {
                let mut master = self.master();
                let changed = master.apply(&entry);
                (Arc::clone(master.site()), changed)
            };
            if let Some(change) = changed {
                tell(&site.cluster, &entry, change);
            }
        }
        Ok(())
    }
}

impl tftp::Core for Arc<Shared> {
    async fn find(&self, name: &str, peer: Ipv4Addr) -> tftp::Found {
        let outcome = self.master().handle_tftp(name, peer, now_ms());
        if !outcome.records.is_empty()
            && let Err(error) = self.record(outcome.records).await
        {
            tracing::error!(%peer, %error, "not answered: it could not be written down");
            return tftp::Found::NotNow;
        }
        if !outcome.notes.is_empty() {
            self.record_later(outcome.notes);
        }
        match outcome.reply {
            Reply::Program(program) => match self.programs.get(&program) {
                Some(bytes) => tftp::Found::Content(Arc::new(bytes.clone())),
                None => tftp::Found::Absent,
            },
            Reply::Text(text) => tftp::Found::Text(text),
            Reply::File { os, root: _, path } => {
                let folder = self.site().cluster.folder(&os).map(Path::to_owned);
                let open = move || on_disk(folder.as_deref(), &path);
                tokio::task::spawn_blocking(open).await.unwrap_or(tftp::Found::NotNow)
            }
            Reply::Refused(Refused::Unavailable(why)) => {
                tracing::error!(%peer, name, why, "not answered");
                tftp::Found::NotNow
            }
            Reply::Secret(_) | Reply::Refused(_) => tftp::Found::Absent,
        }
    }

    fn finished(&self, finished: Finished) {
        let Finished { peer, name, bytes, outcome } = finished;
        tracing::debug!(%peer, name, bytes, ?outcome, "TFTP");
        if outcome == transfer::Outcome::Delivered {
            self.file_sent(*peer.ip(), &name, bytes);
        } else if outcome == transfer::Outcome::Abandoned
            && let Some(node) = self.site().cluster.node_by_ip(*peer.ip())
        {
            tracing::warn!(node = %node.name, name, "TFTP transfer given up, the machine does not answer");
        }
    }
}

/// A file of a folder, for TFTP.
fn on_disk(folder: Option<&Path>, path: &FilePath) -> tftp::Found {
    let Some(folder) = folder else { return tftp::Found::Absent };
    match files::open_below(folder, path) {
        Ok(opened) => match tftp::OnDisk::new(opened.file, opened.len) {
            Some(content) => tftp::Found::Content(Arc::new(content)),
            None => tftp::Found::Absent,
        },
        Err(error) if files::is_absence(&error) => tftp::Found::Absent,
        Err(error) => {
            let path = path.as_str();
            tracing::error!(%error, path, "a file that is there cannot be served");
            tftp::Found::NotNow
        }
    }
}

/// Something that is said once a minute at most, however often it happens.
#[derive(Debug, Default)]
struct Seldom(AtomicU64);

impl Seldom {
    fn is_due(&self, now: TimestampMs) -> bool {
        const PAUSE_MS: u64 = 60_000;
        let is_due = now.abs_diff(self.0.load(Ordering::Relaxed)) >= PAUSE_MS;
        if is_due {
            self.0.store(now, Ordering::Relaxed);
        }
        is_due
    }

    /// There is no answer, and that is why.
    fn say(&self, why: &Ignored, now: TimestampMs) -> Option<Step> {
        if self.is_due(now) {
            tracing::warn!(%why, "no DHCP answer");
        } else {
            tracing::debug!(%why, "no DHCP answer");
        }
        None
    }
}

/// What a machine on the wire can make us say as often as it likes.
#[derive(Debug, Default)]
struct Complaints {
    other_server: Seldom,
    declined: Seldom,
    pool_full: Seldom,
    no_loader: Seldom,
}

impl dhcp::Core for Arc<Shared> {
    fn handle(&self, datagram: Datagram<'_>) -> Option<Step> {
        if self.others.forbid() {
            tracing::debug!(from = %datagram.from, "no DHCP answer: that is another server's");
            return None;
        }
        let now = now_ms();
        match self.master().handle_dhcp(datagram, now) {
            Err(Ignored::Malformed(why)) => {
                tracing::debug!(from = %datagram.from, %why, "malformed DHCP datagram dropped");
                None
            }
            Err(why @ Ignored::OtherServer { .. }) => {
                self.others.look_now();
                self.complaints.other_server.say(&why, now)
            }
            Err(why @ Ignored::Declined { .. }) => self.complaints.declined.say(&why, now),
            Err(why @ Ignored::PoolFull(_)) => self.complaints.pool_full.say(&why, now),
            Err(why) => {
                tracing::debug!(%why, "no DHCP answer");
                None
            }
            Ok(Step::Try(ip)) => {
                tracing::debug!(from = %datagram.from, %ip, "is that address free?");
                Some(Step::Try(ip))
            }
            Ok(Step::Answer(answer)) => {
                let Answer { mac, kind, yiaddr, boot, .. } = &answer;
                tracing::debug!(%mac, ?kind, %yiaddr, ?boot, "DHCP");
                if let Some(arch) = answer.no_loader
                    && self.complaints.no_loader.is_due(now)
                {
                    tracing::warn!(%mac, %arch, "there is no loader here for this firmware; it gets an address and cannot boot");
                }
                if let Some(event) = &answer.seen {
                    tracing::info!(%mac, ip = %yiaddr, "an unknown machine asks to boot; `rekindle machines`");
                    self.record_later(vec![(*mac, event.clone())]);
                }
                Some(Step::Answer(answer))
            }
        }
    }

    fn tried(&self, ip: Ipv4Addr, user: Option<Mac>) {
        if let Err(in_use) = self.master().tried_address(ip, user, now_ms()) {
            tracing::warn!("{in_use}");
        }
    }
}

/// One line a stage: the log of an install reads as a story.
fn tell(cluster: &Cluster, entry: &Entry, (from, to): (Stage, Stage)) {
    let node = cluster.node_by_mac(entry.mac).map_or("-", |node| node.name.as_str());
    let (from, to, mac) = (from.word(), to.word(), entry.mac);
    if matches!(to, "failed" | "held") {
        tracing::warn!(node, %mac, from, to, "a person should look: `rekindle log {node}`");
    } else {
        tracing::info!(node, %mac, from, to, "stage");
    }
}

/// A path as it may stand in a log: tokens are secrets.
pub fn mask(path: &str) -> String {
    // As the route table sees it: any number of slashes in front, and perhaps none behind.
    let path = match path.trim_start_matches('/').strip_prefix("node/") {
        Some(rest) => {
            let what = rest.find('/').and_then(|end| rest.get(end..)).unwrap_or_default();
            format!("/node/TOKEN{what}")
        }
        None => path.to_owned(),
    };
    path.chars().take(200).collect()
}

/// Reads `cluster.toml` and looks at every tree it names.
pub fn load_site(config: &Path) -> anyhow::Result<Site> {
    let text = std::fs::read_to_string(config).with_context(|| {
        format!("cannot read {} (`rekindle init` writes one)", config.display())
    })?;
    let cluster = Cluster::parse(&text, config)?;
    let mut trees = BTreeMap::new();
    for (name, os) in cluster.systems() {
        trees.insert(name.clone(), media::load(name, os)?);
    }
    let snippets = load_snippets(&snippets_dir(config), &cluster)?;
    let mut answers = BTreeMap::new();
    for (name, foreign) in cluster.installers() {
        answers.insert(name.clone(), load_foreign(name, foreign)?);
    }
    let loaders = Loader::ALL.into_iter().filter(|loader| is_here(*loader)).collect();
    Ok(Site { cluster, trees, snippets, answers, loaders })
}

/// Looks at the files of another system's installer, and reads its answers.
fn load_foreign(name: &OsName, foreign: &Foreign) -> anyhow::Result<Answers> {
    for file in [&foreign.kernel, &foreign.initrd].map(|file| foreign.folder.join(file)) {
        anyhow::ensure!(file.is_file(), "installer `{name}`: {} is missing", file.display());
    }
    let file = &foreign.answers;
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("installer `{name}`: cannot read {}", file.display()))?;
    Answers::parse(&text).with_context(|| format!("installer `{name}`: {}", file.display()))
}

/// The owner's own pieces of kickstarts lie beside `cluster.toml`.
pub fn snippets_dir(config: &Path) -> PathBuf {
    config.with_file_name("kickstart.d")
}

/// Reads the folder of snippets; there need not be one.
fn load_snippets(dir: &Path, cluster: &Cluster) -> anyhow::Result<Snippets> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Snippets::default()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.display())),
    };
    let mut files = vec![];
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if snippets::is_snippet(&name) {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            files.push((name, text));
        }
    }
    let files = files.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    Ok(Snippets::parse(files, cluster)?)
}

/// Reads the loaders into memory: TFTP serves names, never files.
fn load_programs() -> anyhow::Result<BTreeMap<Program, Bytes>> {
    let mut programs = BTreeMap::new();
    for loader in Loader::ALL {
        let Some(files) = files_of(loader) else {
            anyhow::ensure!(
                !loader.is_needed(),
                "loader {loader} is missing; install the package `ipxe` (Debian) or \
                 `ipxe-bootimgs` (Enterprise Linux), looked for it in {}",
                IPXE_FOLDERS.join(" ")
            );
            continue;
        };
        for (program, file) in files {
            let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            programs.insert(program, bytes.into());
        }
    }
    Ok(programs)
}

/// Loaders that are not on this machine and that somebody would miss.
pub fn missing_loaders(cluster: &Cluster) -> Vec<Loader> {
    let is_named = |loader| cluster.nodes().any(|node| node.settings.loader == Some(loader));
    let is_missing =
        |loader: &Loader| !is_here(*loader) && (loader.is_needed() || is_named(*loader));
    let of_packages = Loader::ALL.into_iter().filter(|loader| !loader.is_of_tree());
    of_packages.filter(is_missing).collect()
}

fn is_here(loader: Loader) -> bool {
    files_of(loader).is_some()
}

/// Where distributions put iPXE's loaders: Debian, and Enterprise Linux.
const IPXE_FOLDERS: [&str; 2] = ["/usr/lib/ipxe", "/usr/share/ipxe"];
/// Where they put PXELINUX, and its modules: the same.
const PXELINUX_FOLDERS: [(&str, &str); 2] = [
    ("/usr/lib/PXELINUX", "/usr/lib/syslinux/modules/bios"),
    ("/usr/share/syslinux", "/usr/share/syslinux"),
];

/// The files of a loader and of what belongs to it, if all of them are on this machine.
fn files_of(loader: Loader) -> Option<Vec<(Program, PathBuf)>> {
    let name = loader.file_name();
    let file = |folder: &str, program: Program, name: &str| {
        let path = Path::new(folder).join(name);
        path.is_file().then_some((program, path))
    };
    let one = Program::Loader(loader);
    let el = match loader {
        Loader::Pxelinux => {
            // Its modules are of one version with it, or it stops.
            return PXELINUX_FOLDERS.into_iter().find_map(|(folder, modules)| {
                let module = |it: Module| file(modules, Program::Module(it), it.file_name());
                let first = std::iter::once(file(folder, one, name));
                first.chain(Module::ALL.into_iter().map(module)).collect()
            });
        }
        Loader::SnponlyX64 => "ipxe-snponly-x86_64.efi",
        Loader::IpxeX64 => "ipxe-x86_64.efi",
        Loader::Undionly
        | Loader::Undionlyk
        | Loader::IpxePxe
        | Loader::IpxeIa32
        | Loader::Shim => name,
    };
    IPXE_FOLDERS.into_iter().find_map(|folder| {
        let found = file(folder, one, el).or_else(|| file(folder, one, name));
        Some(vec![found?])
    })
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    // Taken first: what is changed while we start is seen as a change.
    let version = watch::version(&settings.config);
    let site = load_site(&settings.config)?;
    let network = site.cluster.network().clone();
    crate::host::fit_to_serve(&network, settings.on_default_route)?;
    // As every file is opened later: a sandbox may forbid it, and every installation would fail.
    for os in site.cluster.systems().values() {
        let file = os.tree.join(".treeinfo");
        files::open_named(&file)
            .with_context(|| format!("files cannot be served: openat2 of {}", file.display()))?;
    }
    let programs = load_programs()?;
    let secrets = Arc::new(crate::trust::store::load_or_create(&settings.state)?);
    let journal = Journal::open(&settings.state)?;
    let shared = Arc::new(Shared::new(Master::new(Arc::new(site), secrets), journal, programs));
    shared.catch_up()?;

    let dhcp = dhcp::DhcpSocket::bind(&network.interface, network.address)?;
    let tftp = tftp::TftpSocket::bind(&network.interface, network.address)?;
    let http = http::bind(&network.interface, network.address)?;
    let logs = syslog::bind(&network.interface, network.address)?;
    // From here on a signal ends us well, whoever was quick to send it.
    let signal = signals()?;
    let is_alone = network.dhcp == DhcpMode::Serve;
    // What arrives meanwhile waits in the sockets.
    if is_alone {
        shared.others.glance(&network).await;
    }
    // A datagram is answered by the thread that it woke, and no disk that anything else waits for keeps it waiting.
    let (for_dhcp, for_tftp) = (one_thread()?, one_thread()?);
    let mut tasks = tokio::task::JoinSet::new();
    let core = Arc::clone(&shared);
    tasks.spawn_blocking(move || {
        for_dhcp.block_on(until_stop(dhcp::run(dhcp, Arc::clone(&core)), &core, "DHCP"));
    });
    let core = Arc::clone(&shared);
    tasks.spawn_blocking(move || {
        for_tftp.block_on(until_stop(tftp::run(tftp, Arc::clone(&core)), &core, "TFTP"));
    });
    tasks.spawn(http::run(http, Arc::clone(&shared)));
    for log in logs {
        tasks.spawn(syslog::run(log, settings.state.join("logs"), Arc::clone(&shared)));
    }
    tasks.spawn(watch::run(settings.config.clone(), version, Arc::clone(&shared)));
    if is_alone {
        tasks.spawn(others::run(network.clone(), Arc::clone(&shared)));
    }
    if !settings.on_default_route {
        tasks.spawn(others::watch_way_out(network.clone(), Arc::clone(&shared)));
    }

    let nodes = shared.site().cluster.nodes().len();
    let what = match network.dhcp {
        DhcpMode::Proxy => "proxy DHCP, TFTP and HTTP",
        DhcpMode::Serve if shared.others.are_there() => "TFTP and HTTP",
        DhcpMode::Serve => "DHCP, TFTP and HTTP",
    };
    tracing::info!(interface = %network.interface, address = %network.address, nodes, "serving {what}");
    tell_manager(sd_notify::NotifyState::Ready);
    let ended = tokio::select! {
        signal = signal => Ok(signal),
        () = watch::gone(&network.interface) => Err(anyhow::anyhow!(
            "{} is gone; rekindle must be started again when it is back",
            network.interface
        )),
        Some(ended) = tasks.join_next() => Err(match ended {
            Ok(()) => anyhow::anyhow!("a part of the server ended; the lines above say why"),
            Err(panic) => anyhow::Error::from(panic).context("a part of the server broke"),
        }),
    };
    tell_manager(sd_notify::NotifyState::Stopping);
    shared.stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
    tracing::info!(why = ended?, "stopped");
    Ok(())
}

fn tell_manager(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "no service manager told");
    }
}

/// An event loop for a thread of its own.
fn one_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("an event loop")
}

/// Runs a service that only a broken socket ends.
async fn until_stop(
    service: impl Future<Output = io::Result<Infallible>>,
    shared: &Shared,
    name: &'static str,
) {
    let mut stop = shared.stop.subscribe();
    tokio::select! {
        () = stopped(&mut stop) => {}
        Err(error) = service => tracing::error!(%error, "{name} ended"),
    }
}

/// Waits until it is time to go.
async fn stopped(stop: &mut Receiver<bool>) {
    // A dropped sender means the same.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Listens for signals at once; the future ends with the first one's name.
fn signals() -> anyhow::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
