//! The whole product without sockets, files or clocks: what comes in -> what is to be written
//! down, and what goes out.
//!
//! [`Master`] holds the snapshot that every decision is made over. The shells feed it requests
//! and entries of the journal; the events it returns must be on the disk before its reply leaves.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::boot::{self, Decision, Grant, Refusal, Release};
use crate::cluster::Cluster;
use crate::dhcp::{Datagram, Dhcp, Ignored, InUse, Step};
use crate::http::report::{self, StageName};
use crate::http::{Endpoint, FilePath, Method, NoEndpoint, NodeEndpoint, Root, route};
use crate::ipxe::Source;
use crate::mac::Mac;
use crate::machine::{Arch, Asker, Hardware, Loader, Machine, Program};
use crate::name::OsName;
use crate::site::Site;
use crate::stage::ladder::Ladder;
use crate::stage::{Entry, Event, Progress, Report, Stage, State, TimestampMs};
use crate::trust::{Secrets, Token};
use crate::{foreign, grub, ipxe, kickstart, media, pxelinux};

/// So many nodes may install at once before others are asked to wait a little.
const FEW: u32 = 4;
/// What is asked for again so soon is not written down again.
const TWICE_MS: u64 = 10_000;
/// No node waits longer than that.
const DELAY_MAX_S: u32 = 120;

/// The core.
#[derive(Debug)]
pub struct Master {
    site: Arc<Site>,
    secrets: Arc<Secrets>,
    state: State,
    /// The tokens that are good for something, by their text. At most one a machine.
    tokens: BTreeMap<Token, Grant>,
    dhcp: Dhcp,
    /// Since when silence means something.
    watched: Option<TimestampMs>,
}

/// A request on the node plane.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who asks. The source of a TCP connection, so it was there to answer.
    pub peer: Ipv4Addr,
    /// GET (also HEAD) or POST.
    pub method: Method,
    /// Target without query.
    pub path: &'a str,
    /// What was posted, at most [`report::BODY_MAX`] bytes.
    pub body: &'a [u8],
}

/// An event to be written down.
pub type Record = (Mac, Event);

/// What makes a decision a text for the program that asks.
type Render = fn(
    &Cluster,
    Mac,
    &Decision<'_>,
    Option<ipxe::Installer<'_>>,
) -> Result<String, ipxe::ScriptError>;

/// What a request leads to.
#[derive(Debug)]
pub struct Outcome {
    /// Must be durable before `reply` leaves; if that fails, a 503 leaves instead.
    pub records: Vec<Record>,
    /// Worth writing down, but `reply` leaves in any case.
    pub notes: Vec<Record>,
    /// The answer.
    pub reply: Reply,
}

/// An answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// 200 with a text made for the asker. Never kept by caches.
    Text(String),
    /// 200 with secret bytes.
    Secret(Vec<u8>),
    /// A program out of memory.
    Program(Program),
    /// A file of an os.
    File {
        /// Which os.
        os: OsName,
        /// Which folder of it.
        root: Root,
        /// The file.
        path: FilePath,
    },
    /// No.
    Refused(Refused),
}

/// Why a request is refused. Its text is one line that helps who reads the installer's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 404.
    #[error("not found")]
    NotFound,
    /// 405.
    #[error("only {allow} here")]
    Method {
        /// The `Allow` header.
        allow: &'static str,
    },
    /// 400.
    #[error("{0}")]
    Malformed(String),
    /// 410: was there once, or belongs to somebody else. Which one is not told to strangers.
    #[error("gone: {0}")]
    Gone(&'static str),
    /// 503: try again.
    #[error("{0}")]
    Unavailable(String),
}

impl Refused {
    /// The status code.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Method { .. } => 405,
            Self::Malformed(_) => 400,
            Self::Gone(_) => 410,
            Self::Unavailable(_) => 503,
        }
    }
}

impl From<NoEndpoint> for Refused {
    fn from(none: NoEndpoint) -> Self {
        match none {
            NoEndpoint::NotFound => Self::NotFound,
            NoEndpoint::Method { allow } => Self::Method { allow },
        }
    }
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self { records: vec![], notes: vec![], reply }
    }
}

impl From<Refused> for Outcome {
    fn from(refused: Refused) -> Self {
        Reply::Refused(refused).into()
    }
}

impl Master {
    /// Starts with nothing known of the past; feed the journal to [`Self::apply`].
    pub fn new(site: Arc<Site>, secrets: Arc<Secrets>) -> Self {
        Self {
            site,
            secrets,
            state: State::default(),
            tokens: BTreeMap::new(),
            dhcp: Dhcp::default(),
            watched: None,
        }
    }

    /// The snapshot of what the owner wants.
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// The fold of the journal.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes a new snapshot.
    pub fn reload(&mut self, site: Arc<Site>) {
        self.site = site;
    }

    /// Takes the next entry of the journal; returns the stage when it changed.
    pub fn apply(&mut self, entry: &Entry) -> Option<(Stage, Stage)> {
        let stage = |state: &State| {
            state.progress(entry.mac).map_or(Stage::Idle, |progress| progress.stage)
        };
        let before = stage(&self.state);
        self.state.apply(entry);
        if matches!(entry.event, Event::Armed | Event::Disarmed) {
            self.tokens.retain(|_, grant| grant.mac != entry.mac);
        }
        if entry.event == Event::Armed {
            self.dhcp.armed(entry.mac);
            let grant = Grant { mac: entry.mac, arm: entry.seq };
            self.tokens.insert(self.secrets.token(grant), grant);
        }
        let after = stage(&self.state);
        (before != after).then_some((before, after))
    }

    /// Answers a DHCP datagram.
    pub fn handle_dhcp(
        &mut self,
        datagram: Datagram<'_>,
        now: TimestampMs,
    ) -> Result<Step, Ignored> {
        self.dhcp.handle_packet(&self.site, &self.state, datagram, now)
    }

    /// Takes note of who answers at an address that is to be offered.
    pub fn tried_address(
        &mut self,
        ip: Ipv4Addr,
        user: Option<Mac>,
        now: TimestampMs,
    ) -> Result<(), InUse> {
        self.dhcp.tried(ip, user, now)
    }

    /// What is to be written down of a loader that was sent whole: nothing, unless it went to a node or to an unknown
    /// machine that is written down, and not twice what just was.
    pub fn loader_sent(
        &mut self,
        peer: Ipv4Addr,
        name: &str,
        bytes: u64,
        now: TimestampMs,
    ) -> Option<Record> {
        let loader: Loader = name.parse().ok()?;
        let mac = self.dhcp.mac_of(peer, &self.site.cluster)?;
        let is_node = self.site.cluster.node_by_mac(mac).is_some();
        if !is_node && self.state.sighting(mac).is_none() {
            return None;
        }
        self.state.sent_loader(mac, now);
        let awaited = self.state.progress(mac).and_then(|it| it.ladder.awaited());
        let is_said = awaited.is_some_and(|(it, at)| it == loader && now.abs_diff(at) < TWICE_MS);
        (!is_said).then_some((mac, Event::LoaderSent { loader, bytes }))
    }

    /// What is to be written down because nothing happened. Asked every few moments.
    pub fn overdue(&mut self, now: TimestampMs) -> Vec<Record> {
        let watched = *self.watched.get_or_insert(now);
        self.state.forget_loaders(now);
        let lost = |(mac, progress): (Mac, &Progress)| {
            let loader = progress.ladder.overdue(watched, now)?;
            Some((mac, Event::LoaderLost { loader }))
        };
        self.state.all().filter_map(lost).collect()
    }

    /// Answers a request of the node plane.
    pub fn handle_http(&self, request: &Request<'_>, now: TimestampMs) -> Outcome {
        match route(request.method, request.path) {
            Err(none) => Refused::from(none).into(),
            Ok(Endpoint::Script(mac, hardware)) => {
                self.order(mac, hardware, request.peer, ipxe::render, now)
            }
            Ok(Endpoint::Loader(loader)) => Reply::Program(Program::Loader(loader)).into(),
            Ok(Endpoint::File { os, root, path }) => {
                match self.site.cluster.installers().get(&os) {
                    // The folder may be any; these two are for everybody.
                    Some(it)
                        if ![&it.kernel, &it.initrd]
                            .map(String::as_str)
                            .contains(&path.as_str()) =>
                    {
                        Refused::NotFound.into()
                    }
                    Some(_) if root != Root::Tree => Refused::NotFound.into(),
                    Some(_) | None => Reply::File { os, root, path }.into(),
                }
            }
            Ok(Endpoint::Node { token, what }) => match self.tokens.get(token.as_str()) {
                None => Refused::Gone("this token is not valid (any more)").into(),
                Some(grant) => self.node(*grant, what, request, now),
            },
        }
    }

    /// Answers a request for a file by TFTP: a loader, and what some load after it. `name` is in plain form (see
    /// [`packet::clean`](crate::tftp::packet::clean)), so in lower case.
    pub fn handle_tftp(&self, name: &str, peer: Ipv4Addr, now: TimestampMs) -> Outcome {
        if let Some(program) = Program::named(name).filter(|it| !it.is_of_tree()) {
            return Reply::Program(program).into();
        }
        if name.starts_with("pxelinux.cfg/01-") {
            return self.menu(peer, Arch::Bios, Loader::Pxelinux, pxelinux::render, now);
        }
        // Each asks in a folder of its own choice.
        let file = name.rsplit('/').next().unwrap_or_default();
        let found = match file {
            "shimx64.efi" => self.signed(peer, media::SHIM),
            "grubx64.efi" => self.signed(peer, media::GRUB),
            _ if file == "grub.cfg" || file.starts_with("grub.cfg-01-") => {
                return self.menu(peer, Arch::UefiX64, Loader::Shim, grub::render, now);
            }
            _ => self.boot_file(name),
        };
        found.map_or_else(|| Refused::NotFound.into(), Outcome::from)
    }

    /// A loader of the tree that a node is installed from, or of any for a machine that only waits.
    fn signed(&self, peer: Ipv4Addr, path: &str) -> Option<Reply> {
        let mac = self.dhcp.mac_of(peer, &self.site.cluster)?;
        let os = self.site.signed(self.site.cluster.node_by_mac(mac))?;
        let path = FilePath::plain(path)?;
        Some(Reply::File { os: os.clone(), root: Root::Tree, path })
    }

    /// Kernel or initrd of a tree, by the path that its installer's configuration names.
    fn boot_file(&self, name: &str) -> Option<Reply> {
        let trees = self.site.trees.iter().map(|(os, tree)| (os, [&tree.kernel, &tree.initrd]));
        let others = self.site.cluster.installers().iter();
        let others = others.map(|(os, it)| (os, [&it.kernel, &it.initrd]));
        trees.chain(others).find_map(|(os, files)| {
            let is_asked_for =
                |path: &&String| format!("tree/{os}/{path}").eq_ignore_ascii_case(name);
            let path = files.into_iter().find(is_asked_for)?;
            let path = FilePath::plain(path)?;
            Some(Reply::File { os: os.clone(), root: Root::Tree, path })
        })
    }

    /// The configuration of a loader that loads by TFTP. A datagram's sender is easily invented, and what is handed out
    /// is counted: so only for a machine that was sent to that loader. Another one that is known starts over: without a
    /// configuration such loaders stop at a prompt.
    fn menu(
        &self,
        peer: Ipv4Addr,
        arch: Arch,
        loader: Loader,
        render: Render,
        now: TimestampMs,
    ) -> Outcome {
        let cluster = &self.site.cluster;
        let Some(mac) = self.dhcp.mac_of(peer, cluster) else { return Refused::NotFound.into() };
        let progress = self.state.progress(mac);
        let awaited = progress.and_then(|it| it.ladder.awaited()).map(|(loader, _)| loader);
        let next = boot::loaders(&self.site, &self.state, mac, arch).first().copied();
        if ![awaited, next].contains(&Some(loader)) {
            let node = cluster.node_by_mac(mac);
            let hold = node.map_or(boot::Hold::Unknown, boot::Hold::OldAddress);
            return match render(cluster, mac, &Decision::Hold(hold), None) {
                Ok(text) => Reply::Text(text).into(),
                Err(error) => Refused::Unavailable(error.to_string()).into(),
            };
        }
        let mut outcome = self.order(mac, Some(Hardware::default()), peer, render, now);
        // GRUB reads it twice: to see whether it is there, and to run it.
        let arm = progress.and_then(|it| it.arm).filter(|arm| !arm.is_released);
        let counted = arm.and_then(|arm| arm.window_ms);
        if counted.is_some_and(|at| now.abs_diff(at) < TWICE_MS) {
            outcome.records.clear();
        }
        outcome
    }

    fn order(
        &self,
        mac: Mac,
        hardware: Option<Hardware>,
        peer: Ipv4Addr,
        render: Render,
        now: TimestampMs,
    ) -> Outcome {
        let asker = Asker::Ipxe { arch: Arch::Bios, http: true };
        let machine = Machine { mac, asker, ip: Some(peer), hardware };
        let mut decision = boot::decide(&self.site, &self.state, &machine);
        // A program of the system that still runs there would get at what only its installer may have.
        if let Some(node) = decision.installs().filter(|_| !self.dhcp.has_booted(mac)) {
            decision = Decision::Hold(boot::Hold::OldAddress(node));
        }
        let order = match decision {
            Decision::Install { os, arm, .. } => {
                let Some(source) = self.source(os) else {
                    return Refused::Unavailable(format!("no tree of {os} here")).into();
                };
                let token = self.secrets.token(Grant { mac, arm: arm.seq });
                let delay_s = self.delay_s(mac);
                let installer = ipxe::Installer { source, token: &token, delay_s };
                render(&self.site.cluster, mac, &decision, Some(installer))
            }
            Decision::Hold(_)
            | Decision::LocalBoot { .. }
            | Decision::Probe(_)
            | Decision::Ignore(_)
            | Decision::Address
            | Decision::NoLoader(_)
            | Decision::Chainload(_) => render(&self.site.cluster, mac, &decision, None),
        };
        match order {
            Err(error) => Refused::Unavailable(error.to_string()).into(),
            Ok(text) => {
                let record = self.script_record(mac, &decision, now);
                // An installed node boots its disk even when ours is full.
                let is_harmless = matches!(decision, Decision::LocalBoot { unfit: None, .. });
                let (records, notes) =
                    if is_harmless { (vec![], record) } else { (record, vec![]) };
                Outcome { records, notes, reply: Reply::Text(text) }
            }
        }
    }

    fn source(&self, os: &OsName) -> Option<Source<'_>> {
        let foreign = || self.site.cluster.installers().get(os).map(Source::Foreign);
        self.site.tree(os).map(Source::Tree).or_else(foreign)
    }

    /// How long a node lets others begin: nothing while few install, then up to two seconds for each
    /// that does, spread by the MAC so that a room that is switched on at once falls apart.
    fn delay_s(&self, mac: Mac) -> u32 {
        let is_busy = |progress: &Progress| {
            matches!(
                progress.stage,
                Stage::Script | Stage::Kickstart | Stage::Pre | Stage::Disk | Stage::Packages
            )
        };
        let others = self.state.all().filter(|(other, one)| *other != mac && is_busy(one)).count();
        match u32::try_from(others) {
            Ok(others) if others > FEW => {
                let [.., a, b] = mac.octets();
                u32::from(u16::from_be_bytes([a, b])) % (others * 2).min(DELAY_MAX_S)
            }
            Ok(_) | Err(_) => 0,
        }
    }

    /// Scripts of nodes are written down; a waiting machine asks every few seconds, once is enough.
    fn script_record(&self, mac: Mac, decision: &Decision<'_>, now: TimestampMs) -> Vec<Record> {
        let Some(plan) = decision.plan() else { return vec![] };
        let progress = self.state.progress(mac);
        let stage = progress.map(|progress| progress.stage);
        let ladder = progress.map(|progress| &progress.ladder);
        // Its loader came back: that is news the first time.
        let is_awaited = ladder.is_some_and(|ladder| ladder.awaited().is_some());
        let is_recent = |at: TimestampMs| now.abs_diff(at) < TWICE_MS;
        let is_said = match decision {
            // Whoever asks may be anybody.
            Decision::LocalBoot { node: None, .. } | Decision::Hold(boot::Hold::OldAddress(_)) => {
                return vec![];
            }
            Decision::Hold(boot::Hold::Unknown) => true,
            Decision::Hold(_) => stage == Some(Stage::Held),
            Decision::LocalBoot { .. } => ladder.and_then(Ladder::back_ms).is_some_and(is_recent),
            Decision::Install { .. }
            | Decision::Probe(_)
            | Decision::Ignore(_)
            | Decision::Address
            | Decision::NoLoader(_)
            | Decision::Chainload(_) => false,
        };
        if is_said && !is_awaited {
            return vec![];
        }
        let why = decision.why_not().map(|unfit| unfit.to_string()).unwrap_or_default();
        // The node's own os goes without saying.
        let os = if let Decision::Install { node, os, .. } = decision {
            Some(*os).filter(|os| **os != node.os).cloned()
        } else {
            None
        };
        vec![(mac, Event::ScriptSent { plan, os, why })]
    }

    fn node(
        &self,
        grant: Grant,
        what: NodeEndpoint,
        request: &Request<'_>,
        now: TimestampMs,
    ) -> Outcome {
        let outcome = match what {
            NodeEndpoint::Kickstart => self.kickstart(grant, request.peer, now),
            NodeEndpoint::MungeKey => self.munge_key(grant, request.peer),
            NodeEndpoint::HostCertificate => self.host_certificate(grant, request),
            NodeEndpoint::Event(stage) => self.event(grant, stage, request),
        };
        outcome.unwrap_or_else(Outcome::from)
    }

    fn kickstart(
        &self,
        grant: Grant,
        peer: Ipv4Addr,
        now: TimestampMs,
    ) -> Result<Outcome, Refused> {
        let cluster = &self.site.cluster;
        let node = granted(boot::release_kickstart(cluster, &self.state, grant, peer, now))?;
        let progress = self.state.progress(grant.mac);
        let os = progress.and_then(|progress| progress.os.as_ref()).unwrap_or(&node.os);
        let token = self.secrets.token(grant);
        let text = if let Some(answers) = self.site.answers.get(os) {
            foreign::render(answers, cluster, node, &token)
        } else {
            let tree = self.site.tree(os);
            let tree = tree.ok_or_else(|| Refused::Unavailable(format!("no tree of {os} here")))?;
            let order = kickstart::Order {
                cluster,
                node,
                os,
                tree,
                token: &token,
                keys: self.secrets.public(),
                snippets: &self.site.snippets,
                known_disk: progress.and_then(|progress| progress.disks.expected()),
            };
            kickstart::render(&order).map_err(|error| Refused::Unavailable(error.to_string()))?
        };
        let arm = progress.and_then(|progress| progress.arm);
        let first = arm.is_none_or(|arm| !arm.is_released);
        let release = (grant.mac, Event::Released { arm: grant.arm });
        let records = if first { vec![release] } else { vec![] };
        Ok(Outcome { records, notes: vec![], reply: Reply::Text(text) })
    }

    fn munge_key(&self, grant: Grant, peer: Ipv4Addr) -> Result<Outcome, Refused> {
        granted(boot::release_secret(&self.site.cluster, &self.state, grant, peer))?;
        if !self.site.cluster.scheduler().uses_munge() {
            return Err(Refused::NotFound);
        }
        Ok(Reply::Secret(self.secrets.munge_key().to_vec()).into())
    }

    fn host_certificate(&self, grant: Grant, request: &Request<'_>) -> Result<Outcome, Refused> {
        let cluster = &self.site.cluster;
        let node = granted(boot::release_secret(cluster, &self.state, grant, request.peer))?;
        let key = String::from_utf8_lossy(request.body);
        self.secrets
            .sign_host_key(cluster, node, &key)
            .map(|certificate| Reply::Text(format!("{certificate}\n")).into())
            .map_err(|error| Refused::Malformed(error.to_string()))
    }

    fn event(
        &self,
        grant: Grant,
        stage: StageName,
        request: &Request<'_>,
    ) -> Result<Outcome, Refused> {
        let node = self.site.cluster.node_by_mac(grant.mac);
        if node.is_none_or(|node| node.ip != request.peer) {
            return Err(Refused::Gone("this token is not valid (any more)"));
        }
        let report = report::report(stage, request.body)
            .ok_or_else(|| Refused::Malformed("packages are reported as DONE/TOTAL".to_owned()))?;
        let news = self.is_news(grant, &report)?;
        let event = Event::Reported { arm: grant.arm, report };
        let records = if news { vec![(grant.mac, event)] } else { vec![] };
        Ok(Outcome { records, notes: vec![], reply: Reply::Text("ok\n".to_owned()) })
    }

    /// Whether a report says something new. Repeating the last word is fine (its answer may have
    /// been lost) and changes nothing; reports of a used-up arming are refused.
    fn is_news(&self, grant: Grant, report: &Report) -> Result<bool, Refused> {
        let progress = self.state.progress(grant.mac);
        let armed = progress.and_then(|progress| progress.arm).is_some();
        let by = progress.and_then(|progress| progress.installed_by);
        match (report, self.stage(grant.mac)) {
            (Report::Packages { done, total }, _) if armed => {
                let before = progress.and_then(|progress| progress.packages);
                Ok(report::is_milestone(before, *done, *total))
            }
            _ if armed => Ok(true),
            (Report::FirstBoot { .. }, Stage::Installed) if by == Some(grant.arm) => Ok(true),
            (Report::FirstBoot { .. }, Stage::Ready) | (Report::Installed, Stage::Installed)
                if by == Some(grant.arm) =>
            {
                Ok(false)
            }
            _ => Err(Refused::Gone("this permission to install is over")),
        }
    }

    /// Takes a line that an installer wrote into its log stream. The peer's address is all that
    /// names it, so it moves nothing but the package counter of a node that is installing.
    pub fn handle_log_line(&self, peer: Ipv4Addr, line: &str) -> Option<Record> {
        let (done, total) = report::packages_in_log(line)?;
        let node = self.site.cluster.node_by_ip(peer)?;
        let progress = self.state.progress(node.mac)?;
        let arm = progress.arm?;
        let installing = matches!(progress.stage, Stage::Pre | Stage::Disk | Stage::Packages);
        if !installing || !report::is_milestone(progress.packages, done, total) {
            return None;
        }
        let report = Report::Packages { done, total };
        Some((node.mac, Event::Reported { arm: arm.seq, report }))
    }

    fn stage(&self, mac: Mac) -> Stage {
        self.state.progress(mac).map_or(Stage::Idle, |progress| progress.stage)
    }
}

fn granted(release: Release<'_>) -> Result<&crate::cluster::Node, Refused> {
    match release {
        Release::Granted(node) => Ok(node),
        Release::Refused(Refusal::Passed) => {
            Err(Refused::Gone("already fetched; the next boot of the node gets a new one"))
        }
        Release::Refused(Refusal::Over | Refusal::WrongAddress { .. }) => {
            Err(Refused::Gone("this token is not valid (any more)"))
        }
    }
}

#[cfg(test)]
mod tests;
