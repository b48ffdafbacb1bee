//! This machine as a plan sees it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{ApplyError, MUNGE_KEY, io_error, output, signs, there};
use crate::cluster::{Cluster, Scheduler};
use crate::host;
use crate::name::IfName;
use crate::setup::batch::{Batch, Pbs, Server};
use crate::setup::{Area, Facts, Filter, Found, Link, SYSCTLS, Wiring, files};

/// Looks at everything that a plan needs; changes nothing.
pub fn facts(cluster: &Cluster, munge_key: &[u8]) -> Result<Facts, ApplyError> {
    let network = cluster.network();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let wiring = wiring(&release);
    let filter = if wiring == Wiring::Ifcfg { Filter::Iptables } else { Filter::Nft };
    let mut found = BTreeMap::new();
    for path in files::paths(network) {
        if let Some(file) = file(Path::new(&path))? {
            found.insert(path, file);
        }
    }
    let setting = |name: &&str| {
        let text = std::fs::read_to_string(sysctl_path(name)).ok()?;
        Some(((*name).to_owned(), text.trim().parse().ok()?))
    };
    let tables = output("nft", &["list", "tables"]).unwrap_or_default();
    let other = |line: &str| {
        let table = line.strip_prefix("table ")?.trim();
        (table != "inet rekindle").then(|| table.to_owned())
    };
    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '-';
    Ok(Facts {
        host_name: host_name.chars().take_while(is_plain).collect(),
        ssh_ports: signs::ssh_ports(),
        links: links()?,
        sysctls: SYSCTLS.iter().filter_map(setting).collect(),
        rules_loaded: match filter {
            Filter::Nft => output("nft", &["list", "table", "inet", "rekindle"]).is_some(),
            Filter::Iptables => output("iptables", &["-S", "LAN"]).is_some(),
        },
        has_munge_key: std::fs::read(MUNGE_KEY).is_ok_and(|key| key == munge_key),
        unindexed: cluster
            .systems()
            .values()
            .filter_map(|os| os.repo.clone())
            .filter(|repo| {
                !repo.join("repodata/repomd.xml").exists() || signs::unindexed(repo).is_some()
            })
            .collect(),
        batch: Pbs::of(cluster.scheduler()).map(batch).unwrap_or_default(),
        other_filters: ["firewalld", "ufw"]
            .into_iter()
            .filter(|it| is_active(it))
            .map(str::to_owned)
            .collect(),
        other_tables: tables.lines().filter_map(other).collect(),
        tools_missing: ["tcpdump", "nmap", "iftop"]
            .into_iter()
            .filter(|it| !is_there(it))
            .collect(),
        missing: missing(filter, cluster, &release),
        files: found,
        wiring,
        filter,
    })
}

/// What the server of the batch system says of itself.
fn batch(pbs: Pbs) -> Batch {
    let ask = |program: &str, words: &[&str]| output(&pbs.program(program), words);
    let settings = ask("qmgr", &["-c", "print server"]);
    // It fails when there is no node yet.
    let nodes = || ask("pbsnodes", &["-a"]).unwrap_or_default();
    Batch {
        has_database: Path::new(pbs.database()).exists(),
        server: settings.map(|settings| Server::parse(pbs, &settings, &nodes())),
    }
}

/// Where the kernel keeps a setting.
pub(super) fn sysctl_path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

/// Whether systemd runs this machine.
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Whether an interface is switched on.
pub(super) fn is_up(link: &IfName) -> bool {
    host::interfaces().is_ok_and(|all| all.iter().any(|one| one.name == *link && one.is_up))
}

fn file(path: &Path) -> Result<Option<Found>, ApplyError> {
    let read = || -> io::Result<Found> {
        let mode = std::fs::metadata(path)?.mode() & 0o7777;
        Ok(Found { mode, text: std::fs::read_to_string(path)? })
    };
    there(path, read())
}

fn links() -> Result<Vec<Link>, ApplyError> {
    let all = host::interfaces().map_err(|source| io_error(Path::new("/proc/net"), source))?;
    let link = |one: host::Interface| Link {
        name: one.name,
        addresses: one.addresses,
        is_up: one.is_up,
        has_default_route: one.has_default_route,
    };
    Ok(all.into_iter().map(link).collect())
}

/// Who configures the interfaces, by the release and by what runs.
fn wiring(os_release: &str) -> Wiring {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    let like = format!("{} {}", value("ID"), value("ID_LIKE"));
    let is_el = ["rhel", "centos", "fedora"]
        .iter()
        .any(|id| like.split_whitespace().any(|word| word == *id));
    if is_el {
        let version = value("VERSION_ID");
        return if version.starts_with('7') { Wiring::Ifcfg } else { Wiring::NetworkManager };
    }
    if is_active("NetworkManager") {
        Wiring::NetworkManager
    } else if is_active("systemd-networkd") || !Path::new("/etc/network/interfaces").exists() {
        Wiring::Networkd
    } else {
        Wiring::Ifupdown
    }
}

/// Whether a unit runs.
pub(super) fn is_active(unit: &str) -> bool {
    has_systemd() && output("systemctl", &["is-active", unit]).is_some()
}

/// Whether a program is where root looks for it, also when this is started without root's own PATH.
fn is_there(program: &str) -> bool {
    let mut folders: Vec<_> =
        ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/opt/pbs/bin"].map(PathBuf::from).into();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    folders.iter().any(|folder| folder.join(program).exists())
}

/// Packages of programs that an area needs.
fn missing(filter: Filter, cluster: &Cluster, os_release: &str) -> BTreeMap<Area, Vec<String>> {
    let has_repo = cluster.systems().values().any(|os| os.repo.is_some());
    let is_debian = os_release.lines().any(|line| line == "ID=debian" || line == "ID_LIKE=debian");
    let rules = match filter {
        Filter::Nft => ("nft", "nftables"),
        Filter::Iptables => ("iptables-restore", "iptables-services"),
    };
    let ban = ("fail2ban-server", if is_debian { "fail2ban" } else { "fail2ban-server" });
    // Only who has such a folder needs it.
    let index = if is_debian {
        [("createrepo_c", "createrepo-c"), ("gpg", "gnupg")]
    } else {
        [("createrepo_c", "createrepo_c"), ("gpg", "gnupg2")]
    };
    let index = index.iter().filter(|_| has_repo).map(|it| (Area::Repo, *it));
    let batch: &[_] = match cluster.scheduler() {
        Scheduler::None => &[],
        Scheduler::Slurm if is_debian => &[("munged", "munge"), ("slurmctld", "slurmctld")],
        Scheduler::Slurm => &[("munged", "munge"), ("slurmctld", "slurm-slurmctld")],
        Scheduler::Torque => &[
            ("munged", "munge"),
            ("trqauthd", "torque"),
            ("pbs_server", "torque-server"),
            ("pbs_sched", "torque-scheduler"),
            ("qmgr", "torque-client"),
        ],
        Scheduler::OpenPbs => &[("qmgr", "openpbs-server")],
    };
    let needed =
        [(Area::Firewall, rules), (Area::Time, ("chronyd", "chrony")), (Area::Fail2ban, ban)];
    let batch = batch.iter().map(|it| (Area::Scheduler, *it));
    let needed =
        needed.into_iter().chain(index).chain(batch).filter(|(_, (program, _))| !is_there(program));
    needed.fold(BTreeMap::new(), |mut found, (area, (_, package))| {
        found.entry(area).or_insert_with(Vec::new).push(package.to_owned());
        found
    })
}
