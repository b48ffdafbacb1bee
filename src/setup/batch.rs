//! S13: the servers of Torque and OpenPBS, which are not told by files but by `qmgr`.

use std::collections::BTreeMap;

use super::{Area, Facts, Wish, files};
use crate::cluster::Scheduler;

/// A batch system whose server is spoken to by `qmgr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pbs {
    /// Torque, as EPEL packs it.
    Torque,
    /// OpenPBS, as its makers pack it.
    OpenPbs,
}

impl Pbs {
    /// That of a cluster, if it has one.
    pub fn of(scheduler: Scheduler) -> Option<Self> {
        match scheduler {
            Scheduler::Torque => Some(Self::Torque),
            Scheduler::OpenPbs => Some(Self::OpenPbs),
            Scheduler::Slurm | Scheduler::None => None,
        }
    }

    /// Where its programs are.
    pub fn program(self, name: &str) -> String {
        match self {
            Self::Torque => name.to_owned(),
            Self::OpenPbs => format!("/opt/pbs/bin/{name}"),
        }
    }

    /// What is there once its server has kept its books.
    pub fn database(self) -> &'static str {
        match self {
            Self::Torque => "/var/lib/torque/server_priv/serverdb",
            Self::OpenPbs => "/var/spool/pbs/datastore",
        }
    }

    /// Its services, in the order they are started.
    pub(super) fn units(self) -> &'static [&'static str] {
        match self {
            Self::Torque => &["trqauthd.service", "pbs_server.service", "pbs_sched.service"],
            Self::OpenPbs => &["pbs.service"],
        }
    }

    /// What `qmgr -c "print server"` holds once our settings are in.
    fn mark(self) -> &'static str {
        match self {
            Self::Torque => "create queue batch",
            Self::OpenPbs => "flatuid = True",
        }
    }

    /// The server's own settings: a queue, and jobs from every node, whose users are the same.
    fn settings(self) -> &'static [&'static str] {
        match self {
            // As torque.setup does it.
            Self::Torque => &[
                "create queue batch",
                "set queue batch queue_type = execution",
                "set queue batch resources_default.nodes = 1",
                "set queue batch resources_default.walltime = 3600",
                "set queue batch enabled = true",
                "set queue batch started = true",
                "set server default_queue = batch",
                "set server scheduling = true",
                "set server allow_node_submit = true",
                "set server keep_completed = 300",
            ],
            // It has a queue, workq, from its first start.
            Self::OpenPbs => &["set server flatuid = true", "set server job_history_enable = true"],
        }
    }

    /// A node of ours. On Torque's build for NUMA no job of more than one core starts without the boards
    /// (Red Hat bug 1321154).
    fn create(self, name: &str, cores: u32) -> String {
        match self {
            Self::Torque => {
                format!("create node {name} np={cores},num_node_boards=1,properties={OURS}")
            }
            Self::OpenPbs => format!("create node {name} resources_available.vntype={OURS}"),
        }
    }

    /// One that has another number of cores now. OpenPBS counts them itself.
    fn resize(self, name: &str, known: &Known, cores: u32) -> Option<String> {
        let is_other = self == Self::Torque && known.cores != Some(cores);
        is_other.then(|| format!("set node {name} np = {cores}"))
    }
}

/// What nodes that we made are marked with; others are not ours to take away.
const OURS: &str = "rekindle";

/// What the server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Whether it has kept its books before.
    pub has_database: bool,
    /// Its settings and nodes; `None` when it does not answer.
    pub server: Option<Server>,
}

/// A server that answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// Whether our settings are in.
    pub is_set_up: bool,
    /// Its nodes by name.
    pub nodes: BTreeMap<String, Known>,
}

/// A node that the server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Cores that it gives work to.
    pub cores: Option<u32>,
    /// Whether we made it.
    pub is_ours: bool,
}

impl Server {
    /// Reads what `qmgr -c "print server"` and `pbsnodes -a` print. A node begins at the margin, what is
    /// known of it is indented, on both systems.
    pub fn parse(pbs: Pbs, settings: &str, nodes: &str) -> Self {
        let mut found = Self { is_set_up: settings.contains(pbs.mark()), nodes: BTreeMap::new() };
        let mut last = None;
        for line in nodes.lines().filter(|line| !line.trim().is_empty()) {
            if !line.starts_with(char::is_whitespace) {
                last = Some(found.nodes.entry(line.trim().to_owned()).or_default());
                continue;
            }
            let (Some(node), Some((key, value))) = (last.as_deref_mut(), line.split_once('='))
            else {
                continue;
            };
            match key.trim() {
                "np" => node.cores = value.trim().parse().ok(),
                "properties" | "resources_available.vntype" => {
                    node.is_ours |= value.split(',').any(|word| word.trim() == OURS);
                }
                _ => {}
            }
        }
        found
    }
}

/// What `qmgr` is to be told, and what takes it back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Line by line.
    pub lines: Vec<String>,
    /// Nodes go again; settings stay, they do nothing without nodes.
    pub undo: Vec<String>,
}

/// Brings the server's nodes in line with those that are up. A server that has books and does not answer
/// is told nothing: nobody knows what is in them.
pub(super) fn told(pbs: Pbs, wish: &Wish<'_>, batch: &Batch) -> Told {
    let new = Server::default();
    let Some(server) = batch.server.as_ref().or((!batch.has_database).then_some(&new)) else {
        return Told::default();
    };
    let mut told = Told::default();
    if !server.is_set_up {
        told.lines.extend(pbs.settings().iter().map(|line| (*line).to_owned()));
    }
    let ready = files::ready(wish);
    for (node, cores) in &ready {
        let name = node.name.as_str();
        match server.nodes.get(name) {
            None => {
                told.lines.push(pbs.create(name, *cores));
                told.undo.push(format!("delete node {name}"));
            }
            Some(known) => told.lines.extend(pbs.resize(name, known, *cores)),
        }
    }
    let is_ready = |name: &str| ready.iter().any(|(node, _)| node.name.as_str() == name);
    let gone = server.nodes.iter().filter(|(name, known)| known.is_ours && !is_ready(name));
    told.lines.extend(gone.map(|(name, _)| format!("delete node {name}")));
    told
}

/// What an owner may wonder about.
pub(super) fn left_alone(pbs: Pbs, facts: &Facts, areas: &[Area]) -> Option<String> {
    let is_mute = facts.batch.has_database && facts.batch.server.is_none();
    (areas.contains(&Area::Scheduler) && is_mute).then(|| {
        let unit = pbs.units().iter().find(|unit| unit.starts_with("pbs")).unwrap_or(&"pbs");
        format!("{unit} does not answer: it is started, and told its nodes the next time")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TORQUE: &str = "worker1\n     state = free\n     np = 4\n     properties = rekindle\n     ntype = cluster\n     \
                          status = rectime=1,ncpus=4\n\nbig\n     state = down\n     np = 64\n\n";

    #[test]
    fn nodes_are_read_with_who_made_them() {
        let server =
            Server::parse(Pbs::Torque, "#\n# Create queues\n#\ncreate queue batch\n", TORQUE);
        assert!(server.is_set_up);
        assert_eq!(server.nodes["worker1"], Known { cores: Some(4), is_ours: true });
        assert_eq!(server.nodes["big"], Known { cores: Some(64), is_ours: false });
        let openpbs = "worker1\n     Mom = worker1.cluster.lan\n     resources_available.ncpus = 4\n     \
                       resources_available.vntype = gpu,rekindle\n";
        let server = Server::parse(Pbs::OpenPbs, "set server scheduling = True\n", openpbs);
        assert!(!server.is_set_up);
        assert_eq!(server.nodes["worker1"], Known { cores: None, is_ours: true });
        assert_eq!(Server::parse(Pbs::Torque, "", "  np = 4\nnonsense").nodes.len(), 1);
    }
}
