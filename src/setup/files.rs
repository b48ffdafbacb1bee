//! The master's files, area by area and in the form of its system.

use std::net::Ipv4Addr;
use std::path::Path;

use askama::Template;

use super::{Area, Facts, Filter, Paths, Refusal, Wanted, Wiring, Wish, settings};
use crate::artifacts;
use crate::cluster::{Cluster, Network, Node, Scheduler};
use crate::firewall::{self, text};
use crate::name::NodeName;
use crate::stage::Stage;

/// Where the rules are kept.
pub const NFT: &str = "/etc/rekindle/firewall.nft";
const NFT_UNIT: &str = "/etc/systemd/system/rekindle-firewall.service";
/// The rules of `iptables-services`.
pub const IPTABLES: &str = "/etc/sysconfig/iptables";
/// The same for IPv6.
pub const IP6TABLES: &str = "/etc/sysconfig/ip6tables";
const HOSTS: &str = "/etc/hosts";
const KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";
const CHRONY_DEBIAN: &str = "/etc/chrony/conf.d/rekindle.conf";
const CHRONY_EL: &str = "/etc/chrony.conf";
const INTERFACES: &str = "/etc/network/interfaces";

/// Every path whose present text a plan must know.
pub fn paths(network: &Network) -> Vec<String> {
    let mut found: Vec<String> = [
        NFT,
        NFT_UNIT,
        IPTABLES,
        IP6TABLES,
        HOSTS,
        KNOWN_HOSTS,
        CHRONY_DEBIAN,
        CHRONY_EL,
        INTERFACES,
        SYSCTL,
        MODULES,
        SSH,
        JAIL,
        HOSTFILE,
        SLURM,
        SERVER_NAME,
        PBS,
        JOIN,
        JOIN_WHEN,
        ROLLBACK,
    ]
    .map(str::to_owned)
    .into();
    let all = [Wiring::NetworkManager, Wiring::Ifcfg, Wiring::Networkd, Wiring::Ifupdown];
    found.extend(all.map(|wiring| link_path(wiring, network)));
    found.extend(all.into_iter().filter_map(|wiring| uplink_path(wiring, network)));
    found
}

const SYSCTL: &str = "/etc/sysctl.d/90-rekindle.conf";
const MODULES: &str = "/etc/modules-load.d/rekindle.conf";
const SSH: &str = "/etc/ssh/ssh_config.d/rekindle.conf";
/// The nodes that are up, for mpirun.
const HOSTFILE: &str = "/etc/rekindle/hostfile";
/// In the folder of what was done: a change that waits to be confirmed.
pub const PENDING: &str = "pending.json";
const ROLLBACK: &str = "/etc/systemd/system/rekindle-rollback.service";
/// Its unit.
pub const ROLLBACK_UNIT: &str = "rekindle-rollback.service";
const SERVER_NAME: &str = "/etc/torque/server_name";
const PBS: &str = "/etc/pbs.conf";
const JOIN: &str = "/etc/systemd/system/rekindle-nodes.service";
const JOIN_WHEN: &str = "/etc/systemd/system/rekindle-nodes.timer";
/// Its units.
pub const JOIN_SERVICE: &str = "rekindle-nodes.service";
/// The other one.
pub const JOIN_TIMER: &str = "rekindle-nodes.timer";
const SLURM: &str = "/etc/slurm/slurm.conf";
const JAIL: &str = "/etc/fail2ban/jail.d/rekindle.conf";

/// The files of an area.
pub(super) fn of(area: Area, wish: &Wish<'_>, facts: &Facts) -> Vec<Wanted> {
    let cluster = wish.cluster;
    let network = cluster.network();
    match area {
        Area::Network => {
            [link(network, facts.wiring)].into_iter().chain(uplink(network, facts)).collect()
        }
        Area::Firewall => rules(network, facts.filter),
        Area::Nat => nat(cluster, facts),
        Area::Names => vec![names(cluster, facts), hostfile(wish)],
        Area::Scheduler => scheduler(wish, facts),
        Area::Ssh => ssh(wish, facts),
        Area::Time => vec![time(network, facts)],
        Area::Repo => vec![],
        Area::Fail2ban => vec![jail(network, facts.filter)],
    }
}

fn public(path: &str, id: &'static str, why: &'static str, text: String) -> Wanted {
    Wanted { path: path.to_owned(), id, why, mode: 0o644, is_private: false, text }
}

fn private(path: &str, id: &'static str, why: &'static str, text: String) -> Wanted {
    Wanted { mode: 0o600, is_private: true, ..public(path, id, why, text) }
}

const HEAD: &str = "# Written by rekindle from cluster.toml.\n";

fn link_path(wiring: Wiring, network: &Network) -> String {
    let name = &network.interface;
    match wiring {
        Wiring::NetworkManager => {
            format!("/etc/NetworkManager/system-connections/rekindle-{name}.nmconnection")
        }
        Wiring::Ifcfg => format!("/etc/sysconfig/network-scripts/ifcfg-{name}"),
        Wiring::Networkd => format!("/etc/systemd/network/10-rekindle-{name}.network"),
        Wiring::Ifupdown => format!("/etc/network/interfaces.d/rekindle-{name}"),
    }
}

/// S1: the private address, and nothing that a network could tell that interface.
fn link(network: &Network, wiring: Wiring) -> Wanted {
    let (name, address) = (&network.interface, network.address);
    let (prefix, why) = (network.subnet.prefix_len(), "the private wire's address, at boot");
    let path = link_path(wiring, network);
    match wiring {
        Wiring::NetworkManager => {
            let text = format!(
                "{HEAD}[connection]\nid=rekindle-{name}\ntype=ethernet\ninterface-name={name}\n\
                 autoconnect=true\n\n[ethernet]\n\n[ipv4]\nmethod=manual\naddress1={address}/{prefix}\n\
                 never-default=true\n\n[ipv6]\nmethod=disabled\n"
            );
            private(&path, "S1", why, text)
        }
        Wiring::Ifcfg => {
            let text = format!(
                "{HEAD}DEVICE={name}\nTYPE=Ethernet\nBOOTPROTO=none\nONBOOT=yes\nIPADDR={address}\n\
                 PREFIX={prefix}\nDEFROUTE=no\nIPV6INIT=no\nNM_CONTROLLED=yes\n"
            );
            public(&path, "S1", why, text)
        }
        Wiring::Networkd => {
            let text = format!(
                "{HEAD}[Match]\nName={name}\n\n[Network]\nAddress={address}/{prefix}\nDHCP=no\n\
                 LinkLocalAddressing=no\nIPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n"
            );
            public(&path, "S1", why, text)
        }
        Wiring::Ifupdown => {
            let text = format!(
                "{HEAD}auto {name}\niface {name} inet static\n  address {address}/{prefix}\n"
            );
            public(&path, "S1", why, text)
        }
    }
}

/// S1: what the master calls itself out there. It is asked for the next time; the lease that is there stays.
fn uplink(network: &Network, facts: &Facts) -> Option<Wanted> {
    let id = network.uplink_client_id.as_ref()?;
    let (name, why) = (&network.uplink, "what the uplink's DHCP server knows this machine by");
    let sent = format!("send dhcp-client-identifier \"{id}\";\n");
    let path = uplink_path(facts.wiring, network)?;
    let text = match facts.wiring {
        Wiring::NetworkManager => format!(
            "{HEAD}[connection-rekindle-uplink]\nmatch-device=interface-name:{name}\nipv4.dhcp-client-id={id}\n"
        ),
        Wiring::Ifcfg => with_block(facts, &path, &sent),
        Wiring::Ifupdown => {
            with_block(facts, &path, &format!("interface \"{name}\" {{\n  {sent}}}\n"))
        }
        Wiring::Networkd => return None,
    };
    Some(public(&path, "S1", why, text))
}

fn uplink_path(wiring: Wiring, network: &Network) -> Option<String> {
    match wiring {
        Wiring::NetworkManager => {
            Some("/etc/NetworkManager/conf.d/rekindle-uplink.conf".to_owned())
        }
        Wiring::Ifcfg => Some(format!("/etc/dhcp/dhclient-{}.conf", network.uplink)),
        Wiring::Ifupdown => Some("/etc/dhcp/dhclient.conf".to_owned()),
        // It sends the card's address or a DUID, and no text (systemd.network(5), ClientIdentifier=).
        Wiring::Networkd => None,
    }
}

/// What the system cannot do, and files that already say something about the private interface.
pub(super) fn unfit(network: &Network, facts: &Facts) -> Option<Refusal> {
    if network.uplink_client_id.is_some() && uplink_path(facts.wiring, network).is_none() {
        return Some(Refusal::ClientId(network.uplink.clone()));
    }
    let name = network.interface.as_str();
    let interfaces = facts.files.get(INTERFACES).filter(|_| facts.wiring == Wiring::Ifupdown)?;
    let is_about = interfaces.text.lines().any(|line| {
        matches!(line.split_whitespace().collect::<Vec<_>>().as_slice(), ["iface", it, ..] if *it == name)
    });
    is_about.then(|| Refusal::Configured {
        path: INTERFACES.to_owned(),
        link: network.interface.clone(),
    })
}

/// S3: the same rules in the system's own form.
fn rules(network: &Network, filter: Filter) -> Vec<Wanted> {
    let rules = firewall::master(network);
    let why = "closed to the uplink but for ssh, open to the cluster";
    match filter {
        Filter::Nft => vec![
            private(NFT, "S3", why, text::nft(&rules)),
            public(
                NFT_UNIT,
                "S3",
                "the rules come back at boot, before any network",
                NFT_SERVICE.to_owned(),
            ),
        ],
        Filter::Iptables => vec![
            private(IPTABLES, "S3", why, text::iptables(&rules)),
            private(IP6TABLES, "S3", "the same for IPv6", text::ip6tables(&rules)),
        ],
    }
}

/// nftables.service empties everything when it starts; ours follows it.
const NFT_SERVICE: &str = "\
# Written by rekindle from cluster.toml.
[Unit]
Description=The packet filter of the cluster's master
Before=network-pre.target
Wants=network-pre.target
After=nftables.service
PartOf=nftables.service
DefaultDependencies=no
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /etc/rekindle/firewall.nft
ExecReload=/usr/sbin/nft -f /etc/rekindle/firewall.nft

[Install]
WantedBy=sysinit.target
";

/// S2: forwarding, and room for connections. The module comes first, or its settings are unknown.
fn nat(cluster: &Cluster, facts: &Facts) -> Vec<Wanted> {
    let mut text = HEAD.to_owned();
    for (name, value, why) in settings(cluster, facts) {
        text.push_str(&format!("# S2: {why}\n{name} = {value}\n"));
    }
    let modules = format!(
        "{HEAD}# S2: the settings of connection tracking are unknown without it\nnf_conntrack\n"
    );
    vec![
        public(MODULES, "S2", "connection tracking is there before its settings", modules),
        public(SYSCTL, "S2", "forwarding and room for connections, at boot", text),
    ]
}

/// The nodes' names, between two marks in a file that is not ours.
fn names(cluster: &Cluster, facts: &Facts) -> Wanted {
    let own = artifacts::hosts(cluster);
    let nodes: String = own
        .lines()
        .filter(|line| !line.ends_with("localhost.localdomain"))
        .map(|line| format!("{line}\n"))
        .collect();
    let text = with_block(facts, HOSTS, &nodes);
    public(HOSTS, "S10", "the nodes are known by name", text)
}

/// Nodes that are up, with their cores: what work can be given to.
pub(super) fn ready<'w>(wish: &Wish<'w>) -> Vec<(&'w Node, u32)> {
    let cores = |node: &'w Node| {
        let progress = wish.state.progress(node.mac)?;
        (progress.stage == Stage::Ready).then_some((node, progress.cores.unwrap_or(1)))
    };
    wish.cluster.nodes().filter_map(cores).collect()
}

/// S12: for mpirun on the master. More ranks than cores would only wait for each other.
fn hostfile(wish: &Wish<'_>) -> Wanted {
    let lines =
        ready(wish).into_iter().map(|(node, cores)| format!("{} slots={cores}\n", node.name));
    let text = format!("{HEAD}{}", lines.collect::<String>());
    public(HOSTFILE, "S12", "mpirun knows the nodes that are up", text)
}

#[derive(Template)]
#[template(path = "master/pbs.conf", syntax = "ks")]
struct PbsConf<'a> {
    name: &'a NodeName,
}

#[derive(Template)]
#[template(path = "master/slurm.conf", syntax = "ks")]
struct SlurmConf<'a> {
    host_name: &'a str,
    address: Ipv4Addr,
    state: &'static str,
    nodes: Vec<SlurmNode<'a>>,
}

struct SlurmNode<'a> {
    name: &'a NodeName,
    ip: Ipv4Addr,
    cores: u32,
}

/// S13: the server's files, and what lets nodes join as they become ready.
fn scheduler(wish: &Wish<'_>, facts: &Facts) -> Vec<Wanted> {
    let why = "the nodes look for the server by this name";
    let name = &wish.cluster.network().master;
    let mut found = match wish.cluster.scheduler() {
        Scheduler::None => return vec![],
        Scheduler::Slurm => vec![slurm(wish, facts)],
        Scheduler::Torque => {
            vec![public(SERVER_NAME, "S13", why, format!("{name}\n"))]
        }
        Scheduler::OpenPbs => {
            // Nothing in it can fail: a name.
            let text = PbsConf { name }.render().unwrap_or_default();
            vec![public(PBS, "S13", why, format!("{HEAD}{}\n", text.trim_end()))]
        }
    };
    let why = "nodes join and leave the batch system by themselves";
    found.push(public(JOIN, "S13", why, join(wish)));
    found.push(public(JOIN_WHEN, "S13", why, JOIN_WHEN_TEXT.to_owned()));
    found
}

/// At boot: a change that waits to be confirmed is undone. Whoever is locked out switches the machine off and on.
pub(super) fn rollback(wish: &Wish<'_>) -> Wanted {
    let waits = super::record_dir(Path::new(&wish.paths.state)).join(PENDING);
    let waits = waits.display().to_string().replace('%', "%%");
    let text = format!(
        "{HEAD}[Unit]\nDescription=Undo a change of the master that nobody confirmed\nConditionPathExists={waits}\n\
         After=network.target rekindle-firewall.service iptables.service ip6tables.service\n\n\
         [Service]\nType=oneshot\nExecStart={} master rollback\n\n[Install]\nWantedBy=multi-user.target\n",
        command(wish)
    );
    public(ROLLBACK, "S3", "a power cut undoes what nobody confirmed", text)
}

/// This program with its files, as systemd.service(5) reads words in quotes.
fn command(wish: &Wish<'_>) -> String {
    let word = |text: &str| {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$")
    };
    let Paths { program, config, state } = wish.paths;
    let [program, config, state] = [program, config, state].map(|path| word(path));
    format!("\"{program}\" --config \"{config}\" --state \"{state}\"")
}

/// What the timer starts: the part of `apply` that follows the nodes, and asks nobody.
fn join(wish: &Wish<'_>) -> String {
    format!(
        "{HEAD}[Unit]\nDescription=Nodes that are up join the batch system\n\n[Service]\nType=oneshot\n\
         ExecStart={} master apply --yes --only names,scheduler\nStandardOutput=null\n",
        command(wish)
    )
}

/// Once a minute. What is not installed yet is started by nobody, and nothing is made up for afterwards.
const JOIN_WHEN_TEXT: &str = "\
# Written by rekindle from cluster.toml.
[Unit]
Description=Nodes that are up join the batch system

[Timer]
OnBootSec=60
OnUnitInactiveSec=60

[Install]
WantedBy=timers.target
";

fn slurm(wish: &Wish<'_>, facts: &Facts) -> Wanted {
    let network = wish.cluster.network();
    let nodes = ready(wish).into_iter();
    let conf = SlurmConf {
        host_name: &facts.host_name,
        address: network.address,
        state: if is_debian(facts) { "/var/lib/slurm/slurmctld" } else { "/var/spool/slurmctld" },
        nodes: nodes
            .map(|(node, cores)| SlurmNode { name: &node.name, ip: node.ip, cores })
            .collect(),
    };
    // Nothing in it can fail: names and numbers.
    let text = conf.render().unwrap_or_default();
    let text = format!("{HEAD}{}\n", text.trim_end());
    public(SLURM, "S13", "the batch system knows the nodes that are up", text)
}

fn is_debian(facts: &Facts) -> bool {
    matches!(facts.wiring, Wiring::Networkd | Wiring::Ifupdown)
}

/// S10: every node's host key carries the cluster's signature.
fn ssh(wish: &Wish<'_>, facts: &Facts) -> Vec<Wanted> {
    let Wish { cluster, host_ca, paths, .. } = *wish;
    let names: Vec<_> = cluster.nodes().map(|node| node.name.as_str()).collect();
    let known = with_block(facts, KNOWN_HOSTS, &artifacts::known_hosts(host_ca));
    let mut found =
        vec![public(KNOWN_HOSTS, "S10", "no question at the first login to a node", known)];
    if facts.wiring != Wiring::Ifcfg && !names.is_empty() {
        let text = format!(
            "{HEAD}Match localuser root host {}\n  IdentityFile \"{}/secrets/root_ed25519\"\n",
            names.join(","),
            paths.state
        );
        found.push(public(SSH, "S10", "root reaches the nodes with the master's own key", text));
    }
    found
}

/// The nodes ask this machine for the time, also when it has lost its own source.
fn time(network: &Network, facts: &Facts) -> Wanted {
    let own = format!("allow {}\nlocal stratum 10\n", network.subnet);
    let why = "the nodes' clock: munge and certificates want the same time everywhere";
    match facts.wiring {
        Wiring::Networkd | Wiring::Ifupdown => {
            public(CHRONY_DEBIAN, "S13", why, format!("{HEAD}{own}"))
        }
        Wiring::NetworkManager | Wiring::Ifcfg => {
            public(CHRONY_EL, "S13", why, with_block(facts, CHRONY_EL, &own))
        }
    }
}

/// S11: five wrong passwords, an hour outside. The cluster itself is never banned.
fn jail(network: &Network, filter: Filter) -> Wanted {
    // The default of Enterprise Linux speaks to firewalld, which is not there.
    let action = match filter {
        Filter::Nft => "nftables[type=multiport]",
        Filter::Iptables => "iptables-multiport",
    };
    let text = format!(
        "{HEAD}[sshd]\nenabled = true\nbackend = systemd\nbanaction = {action}\nmaxretry = 5\nbantime = 3600\n\
         port = {}\nignoreip = 127.0.0.1/8 {}\n",
        network.ssh_port, network.subnet
    );
    public(JAIL, "S11", "who guesses passwords is locked out", text)
}

const BEGIN: &str = "# rekindle begins: written from cluster.toml, changes in here are lost\n";
const END: &str = "# rekindle ends\n";

/// A file that is not ours with our lines between two marks: in their place, or at the end.
fn with_block(facts: &Facts, path: &str, own: &str) -> String {
    let old = facts.files.get(path).map_or("", |found| found.text.as_str());
    let block = format!("{BEGIN}{own}{END}");
    if let Some((before, rest)) = old.split_once(BEGIN)
        && let Some((_, after)) = rest.split_once(END)
    {
        return format!("{before}{block}{after}");
    }
    let gap = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
    format!("{old}{gap}{block}")
}
