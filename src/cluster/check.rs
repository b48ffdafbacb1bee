//! `cluster.toml` as meant: typed tables -> [`Cluster`], or every [`Finding`](super::Finding) at once.

mod nodes;
pub(super) mod settings;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::Ipv4Net;

use super::file::{At, Findings, Reader, Table, document};
use super::{
    ANSWERS, AddressRange, Cluster, DhcpMode, Foreign, Network, Node, Os, Parts, Scheduler, User,
};
use crate::name::OsName;
use nodes::Frame;
use settings::Defaults;

impl Cluster {
    /// Reads the text of `cluster.toml`; `file` only names it in messages. Finds every mistake,
    /// touches no file and never panics, whatever the text.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Findings> {
        let document = document(text, file)?;
        let mut reader = Reader::new(text);
        let mut root = reader.table("the file", 1, document.as_table());
        let network = network(&mut reader, &mut root);
        let systems = systems(&mut reader, &mut root);
        let installers = installers(&mut reader, &mut root, &systems);
        let known: Vec<_> = systems.keys().chain(installers.keys()).cloned().collect();
        let defaults = settings::defaults(&mut reader, &mut root, &known);
        let scheduler = scheduler(&mut reader, &mut root);
        let users = users(&mut reader, &mut root);
        let home = home(&mut reader, &mut root);
        let nodes = nodes::nodes(
            &mut reader,
            &mut root,
            &Frame { network: network.as_ref(), systems: &known, defaults: &defaults },
        );
        let keeps_home =
            |node: &Node| node.settings.disk.keep.iter().any(|kept| kept.as_str() == "/home");
        if let (Some(home), Some(node)) = (&home, nodes.iter().find(|node| keeps_home(node)))
            && home.value
        {
            reader.wrong(
                home.line,
                format!("`nfs` would hide the /home that `{}` keeps; drop one of them", node.name),
            );
        }
        reader.finish(root);
        if let (Some(network), true) = (network, reader.is_clean()) {
            let Defaults { admin_keys, tries_max, .. } = defaults;
            return Ok(Self::assemble(Parts {
                network,
                systems,
                installers,
                scheduler,
                users,
                home_over_nfs: home.is_some_and(|home| home.value),
                admin_keys,
                tries_max,
                nodes,
            }));
        }
        Err(reader
            .findings(file)
            .unwrap_or_else(|| Findings { file: file.to_owned(), list: vec![] }))
    }
}

/// Parses a value, or notes why it does not parse.
fn value<T: FromStr<Err: Display>>(reader: &mut Reader<'_>, text: At<&str>) -> Option<At<T>> {
    match text.value.parse() {
        Ok(value) => Some(At { line: text.line, value }),
        Err(error) => {
            reader.wrong(text.line, format!("{error}"));
            None
        }
    }
}

fn address(reader: &mut Reader<'_>, text: At<&str>) -> Option<At<Ipv4Addr>> {
    let parsed = text.value.parse().ok();
    if parsed.is_none() {
        let shown = show(text.value);
        reader
            .wrong(text.line, format!("`{shown}` is no IPv4 address; write it like 192.168.10.10"));
    }
    parsed.map(|ip| At { line: text.line, value: ip })
}

fn show(text: &str) -> String {
    text.chars().take(60).collect::<String>().escape_default().to_string()
}

/// Where sshd listens unless it is told otherwise (RFC 4253 section 4.1).
const SSH_PORT: u16 = 22;

fn network<'d>(reader: &mut Reader<'d>, root: &mut Table<'d>) -> Option<Network> {
    if !root.has("network") {
        reader.wrong(1, "[network] is missing; `rekindle init` writes a whole file to start from");
    }
    let mut table = reader.sub(root, "network")?;
    let uplink = reader.needed(&mut table, "uplink", "eth0").and_then(|text| value(reader, text));
    let uplink_client_id =
        reader.text(&mut table, "uplink_client_id").and_then(|text| value(reader, text));
    let ssh_port = reader.number(&mut table, "ssh_port", 1..=65_535).map(|at| at.value);
    let interface =
        reader.needed(&mut table, "interface", "eth1").and_then(|text| value(reader, text));
    let place = reader
        .needed(&mut table, "address", "192.168.10.1/24")
        .and_then(|text| subnet(reader, text));
    let frame = place.map(|(ip, net)| (ip.value, net));
    let workers = reader
        .needed(&mut table, "workers", "192.168.10.10-192.168.10.199")
        .and_then(|text| range(reader, text, "workers", frame));
    let discovery = reader
        .needed(&mut table, "discovery", "192.168.10.200-192.168.10.249")
        .and_then(|text| range(reader, text, "discovery", frame));
    let domain = reader.text(&mut table, "domain").unwrap_or(At { line: 0, value: "cluster.lan" });
    let domain = value(reader, domain);
    let master = reader.text(&mut table, "master").unwrap_or(At { line: 0, value: "master" });
    let master = value(reader, master);
    let dns = reader.list(&mut table, "dns").map_or_else(Vec::new, |list| list.value);
    let dns: Vec<_> =
        dns.into_iter().filter_map(|text| address(reader, text)).map(|at| at.value).collect();
    let internet = reader.flag(&mut table, "internet");
    let modes = [("serve", DhcpMode::Serve), ("proxy", DhcpMode::Proxy)];
    let dhcp = settings::one_of(reader, &mut table, "dhcp", modes).unwrap_or(DhcpMode::Serve);
    let strangers = reader.flag(&mut table, "strangers").is_some_and(|at| at.value);
    reader.finish(table);
    if let (Some(uplink), Some(interface)) = (&uplink, &interface)
        && uplink.value == interface.value
    {
        reader.wrong(interface.line, format!("`{}` is the uplink too; the private switch needs an interface of its own, or rekindle would answer on the uplink", interface.value));
    }
    if let (Some(workers), Some(discovery)) = (workers, discovery)
        && workers.value.overlaps(discovery.value)
    {
        reader.wrong(
            discovery.line,
            "`discovery` overlaps `workers`; give machines that wait their own addresses",
        );
    }
    if let Some(At { line, value: true }) = internet
        && dns.is_empty()
    {
        reader.wrong(line, "`internet` is on, but nobody resolves names for the nodes; add dns = [\"…\"] with a resolver they reach (`cat /etc/resolv.conf` shows yours)");
    }
    let (address, subnet) = frame?;
    Some(Network {
        uplink: uplink?.value,
        ssh_port: ssh_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(SSH_PORT),
        uplink_client_id: uplink_client_id.map(|at| at.value),
        interface: interface?.value,
        master: master?.value,
        address,
        subnet,
        workers: workers?.value,
        discovery: discovery?.value,
        domain: domain?.value,
        dns,
        internet: internet.is_some_and(|at| at.value),
        dhcp,
        strangers,
    })
}

fn subnet(reader: &mut Reader<'_>, text: At<&str>) -> Option<(At<Ipv4Addr>, Ipv4Net)> {
    let Ok(net) = text.value.parse::<Ipv4Net>() else {
        let shown = show(text.value);
        reader.wrong(
            text.line,
            format!("`{shown}` is no address with prefix; write it like 192.168.10.1/24"),
        );
        return None;
    };
    if !(8..=29).contains(&net.prefix_len()) {
        reader.wrong(
            text.line,
            format!("a /{} network does not do; use /8 to /29, most take /24", net.prefix_len()),
        );
        return None;
    }
    let ip = net.addr();
    if ip == net.network() || ip == net.broadcast() {
        reader.wrong(
            text.line,
            format!(
                "{ip} is the network or broadcast address of {}; take one between",
                net.trunc()
            ),
        );
        return None;
    }
    Some((At { line: text.line, value: ip }, net.trunc()))
}

fn range(
    reader: &mut Reader<'_>,
    text: At<&str>,
    key: &str,
    frame: Option<(Ipv4Addr, Ipv4Net)>,
) -> Option<At<AddressRange>> {
    let ends = text.value.split_once('-').and_then(|(first, last)| {
        Some((first.trim().parse::<Ipv4Addr>().ok()?, last.trim().parse::<Ipv4Addr>().ok()?))
    });
    let Some((first, last)) = ends else {
        let shown = show(text.value);
        reader.wrong(
            text.line,
            format!(
                "`{shown}` is no range of addresses; write {key} = \"192.168.10.10-192.168.10.99\""
            ),
        );
        return None;
    };
    if first > last {
        reader.wrong(text.line, format!("`{key}` ends before it begins; swap {first} and {last}"));
        return None;
    }
    let found = AddressRange { first, last };
    if let Some((master, net)) = frame {
        let host = |ip: Ipv4Addr| net.contains(&ip) && ip != net.network() && ip != net.broadcast();
        if !host(first) || !host(last) {
            reader.wrong(
                text.line,
                format!("`{key}` = {first}-{last} leaves the subnet {net}; keep it inside"),
            );
            return None;
        }
        if found.contains(master) {
            reader.wrong(
                text.line,
                format!("`{key}` holds the master's own address {master}; leave that out"),
            );
            return None;
        }
    }
    Some(At { line: text.line, value: found })
}

fn systems<'d>(reader: &mut Reader<'d>, root: &mut Table<'d>) -> BTreeMap<OsName, Os> {
    if !root.has("os") {
        reader.wrong(1, "there is no install tree; add a table like [os.el9] with tree = \"/srv/rekindle/tree/el9\"");
    }
    let mut systems = BTreeMap::new();
    let mut fallbacks = vec![];
    for (name, mut table) in reader.named(root, "os") {
        let name = value::<OsName>(reader, At { line: table.line, value: name });
        let tree = reader.needed(&mut table, "tree", "/srv/rekindle/tree/el9");
        let tree = tree.and_then(|text| path(reader, text));
        let repo = reader.text(&mut table, "repo").and_then(|text| path(reader, text));
        let keys = reader.list(&mut table, "gpg_keys").map_or_else(Vec::new, |list| list.value);
        let gpg_keys = keys.into_iter().filter_map(|text| path(reader, text)).collect();
        let fallback = reader.text(&mut table, "fallback");
        let fallback = fallback.and_then(|text| value::<OsName>(reader, text));
        let memory = reader.number(&mut table, "min_ram_mib", 256..=65_536);
        reader.finish(table);
        // Known although its tree is wrong: those who name it are not.
        if let Some(name) = name {
            let tree = tree.unwrap_or_default();
            fallbacks.extend(fallback.clone().map(|other| (name.value.clone(), other)));
            let fallback = fallback.map(|at| at.value);
            let memory_min_mib = memory.map(|at| at.value);
            systems.insert(name.value, Os { tree, repo, gpg_keys, fallback, memory_min_mib });
        }
    }
    for (name, At { line, value }) in fallbacks {
        if value == name || !systems.contains_key(&value) {
            reader.wrong(
                line,
                format!("`{value}` cannot stand in for `{name}`; name another [os.…] of this file"),
            );
        }
    }
    systems
}

fn installers<'d>(
    reader: &mut Reader<'d>,
    root: &mut Table<'d>,
    systems: &BTreeMap<OsName, Os>,
) -> BTreeMap<OsName, Foreign> {
    let mut installers = BTreeMap::new();
    for (name, mut table) in reader.named(root, "installer") {
        let line = table.line;
        let name = value::<OsName>(reader, At { line, value: name });
        let mut file = |key, like| {
            let text = reader.needed(&mut table, key, like)?;
            let is_inside = text.value.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if is_inside && settings::is_plain(text.value, "._-+/") {
                return Some(text.value.to_owned());
            }
            let shown = show(text.value);
            reader.wrong(
                text.line,
                format!("`{shown}` is no file below `folder`; write it like {like}"),
            );
            None
        };
        let (kernel, initrd) = (file("kernel", "linux"), file("initrd", "initrd.gz"));
        let folder = reader.needed(&mut table, "folder", "/srv/rekindle/debian12");
        let folder = folder.and_then(|text| path(reader, text));
        let answers = reader.needed(&mut table, "answers", "/etc/rekindle/debian12.preseed");
        let answers = answers.and_then(|text| path(reader, text));
        let args = reader.needed(&mut table, "args", "auto=true url={answers}");
        let args = args.and_then(|text| {
            if !text.value.contains(ANSWERS) {
                reader.wrong(text.line, "`args` does not say where the answers are; write {answers} where their URL belongs");
                return None;
            }
            if !settings::are_kernel_args(&text.value.replace(ANSWERS, "x")) {
                reader.wrong(text.line, "`args` holds quotes or other special characters; kernel arguments have none");
                return None;
            }
            Some(text.value.split_whitespace().map(str::to_owned).collect())
        });
        reader.finish(table);
        let Some(At { value: name, .. }) = name else { continue };
        if systems.contains_key(&name) {
            reader.wrong(line, format!("[os.{name}] has that name already; rename one"));
        }
        // Known although something about it is wrong: those who name it are not.
        installers.insert(
            name,
            Foreign {
                folder: folder.unwrap_or_default(),
                kernel: kernel.unwrap_or_default(),
                initrd: initrd.unwrap_or_default(),
                args: args.unwrap_or_default(),
                answers: answers.unwrap_or_default(),
            },
        );
    }
    installers
}

fn path(reader: &mut Reader<'_>, text: At<&str>) -> Option<PathBuf> {
    let path = PathBuf::from(text.value);
    if path.is_absolute() && !text.value.contains(char::is_control) {
        return Some(path);
    }
    let shown = show(text.value);
    reader.wrong(text.line, format!("`{shown}` is no absolute path; begin it with /"));
    None
}

fn scheduler<'d>(reader: &mut Reader<'d>, root: &mut Table<'d>) -> Scheduler {
    let Some(mut table) = reader.sub(root, "scheduler") else { return Scheduler::None };
    let kind = reader.needed(&mut table, "kind", "torque");
    reader.finish(table);
    match kind {
        Some(At { value: "torque", .. }) => Scheduler::Torque,
        Some(At { value: "openpbs", .. }) => Scheduler::OpenPbs,
        Some(At { value: "slurm", .. }) => Scheduler::Slurm,
        Some(At { value: "none", .. }) | None => Scheduler::None,
        Some(other) => {
            let shown = show(other.value);
            reader.wrong(
                other.line,
                format!("`{shown}` is no scheduler; write \"torque\", \"openpbs\", \"slurm\" or \"none\""),
            );
            Scheduler::None
        }
    }
}

fn users<'d>(reader: &mut Reader<'d>, root: &mut Table<'d>) -> Vec<User> {
    let mut users: Vec<User> = vec![];
    for mut table in reader.array(root, "users") {
        let name = reader.needed(&mut table, "name", "mpi").and_then(|text| value(reader, text));
        if !table.has("uid") {
            reader
                .wrong(table.line, "[[users]] lacks `uid`; add uid = 1500, the same on every node");
        }
        let uid = reader.number(&mut table, "uid", 1000..=60_000);
        reader.finish(table);
        let (Some(name), Some(uid)) = (name, uid) else { continue };
        if users.iter().any(|user| user.name == name.value) {
            reader.wrong(name.line, format!("user `{}` is there twice; remove one", name.value));
        } else if let Some(other) = users.iter().find(|user| user.uid == uid.value) {
            reader.wrong(
                uid.line,
                format!(
                    "uid {} is already taken by user `{}`; give this user another",
                    uid.value, other.name
                ),
            );
        } else {
            users.push(User { name: name.value, uid: uid.value });
        }
    }
    users
}

fn home<'d>(reader: &mut Reader<'d>, root: &mut Table<'d>) -> Option<At<bool>> {
    let mut table = reader.sub(root, "home")?;
    let nfs = reader.flag(&mut table, "nfs");
    reader.finish(table);
    nfs
}
