//! Files that every node gets: the cluster -> their text. Pure, and the same on all nodes.
//!
//! A new installation writes them in `%post`, and `rekindle push` later brings them up to date: one
//! list serves both. The texts live in `kickstart/node/`.

use std::fmt::Write;
use std::net::Ipv4Addr;

use askama::Template;
use ipnet::Ipv4Net;

use crate::cluster::{Cluster, Network, Scheduler, edit};
use crate::escape::{HereLine, Unwritable};
use crate::firewall::{self, text};
use crate::media::{Release, Tree};
use crate::name::{NodeName, OsName};
use crate::trust::PublicKeys;

/// Most names in `/etc/hosts` of nodes that are not there yet.
const FUTURE_MAX: usize = 250;

/// A file of a node, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFile {
    /// Where.
    pub path: &'static str,
    /// Permission bits.
    pub mode: u16,
    /// What is in it; ends with a line break.
    pub text: String,
    /// What makes a running system notice that it changed; nothing when programs read it anew.
    pub reload: Option<&'static str>,
}

impl NodeFile {
    /// Permission bits as chmod(1) takes them.
    pub fn mode(&self) -> String {
        format!("{:o}", self.mode)
    }
}

/// Why the files of a node cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A value does not fit.
    #[error(transparent)]
    Value(#[from] Unwritable),
    /// The template engine failed.
    #[error("a file of the node: {0}")]
    Template(#[from] askama::Error),
}

/// Seconds after which a node asks for the index of the cluster's own repository again.
const REPO_EXPIRES: u32 = 60;

/// What the files are made of.
struct Words {
    master: Ipv4Addr,
    master_name: NodeName,
    subnet: Ipv4Net,
    home_over_nfs: bool,
}

macro_rules! texts {
    ($($name:ident $path:literal),* $(,)?) => {$(
        #[derive(Template)]
        #[template(path = $path, syntax = "ks")]
        struct $name<'a> {
            #[allow(dead_code, reason = "some texts are the same for every cluster")]
            cluster: &'a Words,
        }
    )*};
}

texts! {
    Chrony "node/chrony.conf", Sshd "node/sshd.conf", SshdWhole "node/sshd-whole.conf",
    Ssh "node/ssh.conf", SshWhole "node/ssh-whole.conf", Mpi "node/mpi.conf", MpiPath "node/mpi.sh",
    Limits "node/limits.conf", UnitLimits "node/unit-limits.conf", Rsyslog "node/rsyslog.conf", TorqueMom "node/torque-mom.conf",
    Pbs "node/pbs.conf", PbsMom "node/pbs-mom.conf", Slurmd "node/slurmd.conf", Home "node/home.mount",
}

/// Every file that a node has from the cluster, in the form of its release.
pub fn files(
    cluster: &Cluster,
    os: &OsName,
    tree: &Tree,
    keys: &PublicKeys,
) -> Result<Vec<NodeFile>, FileError> {
    let network = cluster.network();
    let words = &Words {
        master: network.address,
        master_name: network.master.clone(),
        subnet: network.subnet,
        home_over_nfs: cluster.home_over_nfs(),
    };
    let mut files = Files::default();
    files.add("/etc/hosts", 0o644, hosts(cluster), None);
    files.add("/etc/yum.repos.d/rekindle.repo", 0o644, repo_file(cluster, os, tree), None);
    files.add("/root/.ssh/authorized_keys", 0o600, root_keys(cluster, keys)?, None);
    firewall(&mut files, tree.release, network);
    let chronyd = Some("systemctl try-restart chronyd");
    files.add("/etc/chrony.conf", 0o644, Chrony { cluster: words }.render()?, chronyd);
    ssh(&mut files, tree.release, words)?;
    files.add("/etc/ssh/ssh_known_hosts", 0o644, known_hosts(&keys.host_ca), None);
    files.add("/etc/ssh/shosts.equiv", 0o644, shosts(cluster), None);
    let mpi = Mpi { cluster: words }.render()?;
    files.add("/etc/openmpi-x86_64/openmpi-mca-params.conf", 0o644, mpi, None);
    files.add("/etc/profile.d/rekindle-mpi.sh", 0o644, MpiPath { cluster: words }.render()?, None);
    files.add("/etc/rekindle/hostfile", 0o644, hostfile(cluster), None);
    let limits = Limits { cluster: words }.render()?;
    files.add("/etc/security/limits.d/90-rekindle.conf", 0o644, limits, None);
    let rsyslog = Some("systemctl try-restart rsyslog");
    files.add("/etc/rsyslog.d/rekindle.conf", 0o644, Rsyslog { cluster: words }.render()?, rsyslog);
    scheduler(&mut files, cluster.scheduler(), words)?;
    if cluster.home_over_nfs() {
        let home = Home { cluster: words }.render()?;
        let mount = Some("systemctl daemon-reload && systemctl enable --now home.mount");
        files.add("/etc/systemd/system/home.mount", 0o644, home, mount);
    }
    Ok(files.0)
}

#[derive(Default)]
struct Files(Vec<NodeFile>);

impl Files {
    /// Templates lose their last line break.
    fn add(&mut self, path: &'static str, mode: u16, text: String, reload: Option<&'static str>) {
        let text = format!("{}\n", text.trim_end_matches('\n'));
        self.0.push(NodeFile { path, mode, text, reload });
    }
}

/// S6 in the release's own form.
fn firewall(files: &mut Files, release: Release, network: &Network) {
    let rules = firewall::worker(network);
    match release {
        Release::El7 | Release::El8 => {
            let (v4, v6) = (text::iptables(&rules), text::ip6tables(&rules));
            let (load4, load6) =
                (Some("systemctl restart iptables"), Some("systemctl restart ip6tables"));
            files.add("/etc/sysconfig/iptables", 0o600, v4, load4);
            files.add("/etc/sysconfig/ip6tables", 0o600, v6, load6);
        }
        Release::El9 | Release::El10 => {
            let load = Some("nft -f /etc/sysconfig/nftables.conf");
            files.add("/etc/sysconfig/nftables.conf", 0o600, text::nft(&rules), load);
        }
    }
}

/// S10: drop-ins where the release's ssh and sshd read them.
fn ssh(files: &mut Files, release: Release, cluster: &Words) -> Result<(), askama::Error> {
    let reload = Some("sshd -t && systemctl reload sshd");
    match release {
        Release::El7 | Release::El8 => {
            let whole = SshdWhole { cluster }.render()?;
            files.add("/etc/ssh/sshd_config", 0o600, whole, reload);
        }
        Release::El9 | Release::El10 => {
            let part = Sshd { cluster }.render()?;
            files.add("/etc/ssh/sshd_config.d/10-rekindle.conf", 0o600, part, reload);
        }
    }
    if release == Release::El7 {
        files.add("/etc/ssh/ssh_config", 0o644, SshWhole { cluster }.render()?, None);
    } else {
        let part = Ssh { cluster }.render()?;
        files.add("/etc/ssh/ssh_config.d/10-rekindle.conf", 0o644, part, None);
    }
    Ok(())
}

/// S13: the daemon of the batch system finds the master by name; Torque takes no addresses there.
fn scheduler(
    files: &mut Files,
    scheduler: Scheduler,
    cluster: &Words,
) -> Result<(), askama::Error> {
    let limits = UnitLimits { cluster }.render()?;
    match scheduler {
        Scheduler::None => {}
        Scheduler::Torque => {
            let restart = Some("systemctl daemon-reload && systemctl try-restart pbs_mom");
            let dropin = "/etc/systemd/system/pbs_mom.service.d/rekindle.conf";
            files.add(dropin, 0o644, limits, restart);
            files.add("/etc/torque/server_name", 0o644, cluster.master_name.to_string(), restart);
            let config = TorqueMom { cluster }.render()?;
            files.add("/etc/torque/mom/config", 0o644, config, restart);
        }
        Scheduler::OpenPbs => {
            let restart = Some("systemctl daemon-reload && systemctl try-restart pbs");
            files.add("/etc/systemd/system/pbs.service.d/rekindle.conf", 0o644, limits, restart);
            files.add("/etc/pbs.conf", 0o644, Pbs { cluster }.render()?, restart);
            let config = PbsMom { cluster }.render()?;
            files.add("/var/spool/pbs/mom_priv/config", 0o644, config, restart);
        }
        // Its own unit raises the limit.
        Scheduler::Slurm => {
            let restart = Some("systemctl try-restart slurmd");
            files.add("/etc/sysconfig/slurmd", 0o644, Slurmd { cluster }.render()?, restart);
        }
    }
    Ok(())
}

fn lines<T>(items: impl IntoIterator<Item = T>, line: impl Fn(T) -> String) -> String {
    items.into_iter().fold(String::new(), |mut text, item| {
        // Writing into a String cannot fail.
        writeln!(text, "{}", line(item)).unwrap_or_default();
        text
    })
}

/// `/etc/hosts`: the master, all nodes, and those that `node add` will make next, so that a node
/// knows the names of those that come after it. No name maps to 127.0.0.1 but localhost, which
/// Torque and munge insist on.
pub fn hosts(cluster: &Cluster) -> String {
    let network = cluster.network();
    let domain = &network.domain;
    let head = "127.0.0.1 localhost localhost.localdomain\n::1 localhost localhost.localdomain\n";
    let line = |(ip, name): (Ipv4Addr, &NodeName)| format!("{ip} {name}.{domain} {name}");
    let nodes = cluster.nodes().map(|node| (node.ip, &node.name));
    let there = lines(std::iter::once((network.address, &network.master)).chain(nodes), line);
    let next = edit::next_nodes(cluster).take(FUTURE_MAX);
    let next = lines(next, |(name, ip)| line((ip, &name)));
    format!("{head}{there}# Not there yet: the next that are added.\n{next}")
}

/// `/root/.ssh/authorized_keys`: the admins and the master. No node is in it.
fn root_keys(cluster: &Cluster, keys: &PublicKeys) -> Result<String, Unwritable> {
    let keys = cluster.admin_keys().iter().chain([&keys.master_root]);
    let keys = keys.map(|key| HereLine::new("admin_keys", key)).collect::<Result<Vec<_>, _>>()?;
    Ok(lines(keys, |key| key.to_string()))
}

/// `/etc/ssh/ssh_known_hosts`: one line for all hosts there will ever be (sshd(8),
/// "SSH_KNOWN_HOSTS FILE FORMAT"), so that a reinstalled node raises no alarm.
pub fn known_hosts(host_ca: &str) -> String {
    format!("@cert-authority * {}\n", host_ca.trim())
}

/// `/etc/ssh/shosts.equiv`: from where ordinary users come without a password. sshd looks names
/// up, or takes the address when it does not; both are here. The master is not: it holds root.
/// Who is not there yet has no certificate, so naming the next ones opens nothing.
fn shosts(cluster: &Cluster) -> String {
    let domain = &cluster.network().domain;
    let there = cluster.nodes().map(|node| (node.name.clone(), node.ip));
    let next = edit::next_nodes(cluster).take(FUTURE_MAX);
    lines(there.chain(next), |(name, ip)| format!("{name}\n{name}.{domain}\n{ip}"))
}

/// MPI's list of hosts.
fn hostfile(cluster: &Cluster) -> String {
    lines(cluster.nodes(), |node| node.name.to_string())
}

/// The node's `/etc/yum.repos.d/rekindle.repo`: the tree's repositories and the cluster's own,
/// all with `gpgcheck=1`; of the cluster's own the index is checked too, when it is signed.
fn repo_file(cluster: &Cluster, os: &OsName, tree: &Tree) -> String {
    let base = base_url(cluster);
    let own = cluster.systems().get(os).and_then(|os| os.repo.as_ref());
    let trees = tree.repos.iter().map(|(name, path)| {
        let slash = if path.is_empty() { "" } else { "/" };
        (name.to_lowercase(), format!("{base}/tree/{os}{slash}{path}"), String::new())
    });
    // Modular packages without their metadata would be refused (Enterprise Linux 8 and 9).
    let hotfixes = match tree.release {
        Release::El8 | Release::El9 => "\nmodule_hotfixes=1",
        Release::El7 | Release::El10 => "",
    };
    let signed = if tree.repo_signed { "\nrepo_gpgcheck=1" } else { "" };
    // What the owner adds is there at once; dnf's own patience is two days.
    let more = format!("{signed}{hotfixes}\nmetadata_expire={REPO_EXPIRES}");
    let own = own.map(|_| ("cluster".to_owned(), format!("{base}/repo/{os}"), more));
    let keys: Vec<_> = tree.gpg_keys.iter().map(|key| format!("{base}/keys/{os}/{key}")).collect();
    lines(trees.chain(own), |(name, url, more)| {
        format!(
            "[rekindle-{name}]\nname=rekindle {name}\nbaseurl={url}\nenabled=1\ngpgcheck=1\n\
             gpgkey={}{more}",
            keys.join(" ")
        )
    })
}

/// Where nodes find the master.
pub fn base_url(cluster: &Cluster) -> String {
    format!("http://{}", cluster.network().address)
}
