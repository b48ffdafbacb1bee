//! `cluster.toml` as meant: typed tables -> [`Cluster`], or every [`Finding`](super::Finding) at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::Ipv4Net;
use ssh_key::PublicKey;

use super::file::{At, Findings, Reader, Table, document};
use super::{AddressRange, Cluster, DiskRule, Network, Node, Os, Parts, Scheduler, User};
use crate::mac::Mac;
use crate::name::{NodeName, OsName, is_one_line};

/// What nodes get unless they say otherwise.
#[derive(Debug, Clone)]
struct Defaults {
    os: Option<OsName>,
    timezone: String,
    keyboard: String,
    language: String,
    kernel_args: Vec<String>,
    packages: Vec<String>,
    disk: DiskRule,
    admin_keys: Vec<String>,
    tries_max: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            os: None,
            timezone: "UTC".to_owned(),
            keyboard: "us".to_owned(),
            language: "en_US.UTF-8".to_owned(),
            kernel_args: vec![],
            packages: vec![],
            disk: DiskRule::Smallest { min_gib: 10 },
            admin_keys: vec![],
            tries_max: 3,
        }
    }
}

impl Cluster {
    /// Reads the text of `cluster.toml`; `file` only names it in messages. Finds every mistake,
    /// touches no file and never panics, whatever the text.
    pub fn parse(text: &str, file: &Path) -> Result<Self, Findings> {
        let document = document(text, file)?;
        let mut reader = Reader::new(text);
        let mut root = reader.table("the file", 1, document.as_table());
        let network = network(&mut reader, &mut root);
        let systems = systems(&mut reader, &mut root);
        let defaults = defaults(&mut reader, &mut root, &systems);
        let scheduler = scheduler(&mut reader, &mut root);
        let users = users(&mut reader, &mut root);
        let nodes = nodes(
            &mut reader,
            &mut root,
            &Frame { network: network.as_ref(), systems: &systems, defaults: &defaults },
        );
        reader.finish(root);
        if let (Some(network), true) = (network, reader.is_clean()) {
            let Defaults { admin_keys, tries_max, .. } = defaults;
            return Ok(Self::assemble(Parts {
                network,
                systems,
                scheduler,
                users,
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
    text.chars().take(60).collect::<String>().escape_debug().to_string()
}

fn network<'d>(reader: &mut Reader<'d>, root: &mut Table<'d>) -> Option<Network> {
    if !root.has("network") {
        reader.wrong(1, "[network] is missing; `rekindle init` writes a whole file to start from");
    }
    let mut table = reader.sub(root, "network")?;
    let uplink = reader.needed(&mut table, "uplink", "eth0").and_then(|text| value(reader, text));
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
        interface: interface?.value,
        master: master?.value,
        address,
        subnet,
        workers: workers?.value,
        discovery: discovery?.value,
        domain: domain?.value,
        dns,
        internet: internet.is_some_and(|at| at.value),
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
    for (name, mut table) in reader.named(root, "os") {
        let name = value::<OsName>(reader, At { line: table.line, value: name });
        let tree = reader.needed(&mut table, "tree", "/srv/rekindle/tree/el9");
        let tree = tree.and_then(|text| path(reader, text));
        let repo = reader.text(&mut table, "repo").and_then(|text| path(reader, text));
        let keys = reader.list(&mut table, "gpg_keys").map_or_else(Vec::new, |list| list.value);
        let gpg_keys = keys.into_iter().filter_map(|text| path(reader, text)).collect();
        reader.finish(table);
        // Known although its tree is wrong: those who name it are not.
        if let Some(name) = name {
            let tree = tree.unwrap_or_default();
            systems.insert(name.value, Os { tree, repo, gpg_keys });
        }
    }
    systems
}

fn path(reader: &mut Reader<'_>, text: At<&str>) -> Option<PathBuf> {
    let path = PathBuf::from(text.value);
    if path.is_absolute() && is_one_line(text.value) {
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
        Some(At { value: "none", .. }) | None => Scheduler::None,
        Some(other) => {
            let shown = show(other.value);
            reader.wrong(
                other.line,
                format!("`{shown}` is no scheduler; write \"torque\" or \"none\""),
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

fn defaults<'d>(
    reader: &mut Reader<'d>,
    root: &mut Table<'d>,
    systems: &BTreeMap<OsName, Os>,
) -> Defaults {
    let found = Defaults::default();
    if !root.has("defaults") {
        reader.wrong(1, "[defaults] is missing; it needs admin_keys = [\"ssh-ed25519 …\"] at least, or nobody could log in");
    }
    let Some(mut table) = reader.sub(root, "defaults") else { return found };
    let found = settings(reader, &mut table, &found, systems);
    if !table.has("admin_keys") {
        reader.wrong(table.line, "[defaults] lacks `admin_keys`; add your public key (~/.ssh/id_ed25519.pub), or nobody could log in");
    }
    let keys = reader.list(&mut table, "admin_keys");
    if let Some(At { line, value }) = &keys
        && value.is_empty()
    {
        reader.wrong(*line, "`admin_keys` is empty; add your public key (~/.ssh/id_ed25519.pub), or nobody could log in");
    }
    let keys = keys.map_or_else(Vec::new, |keys| keys.value);
    let admin_keys = keys.into_iter().filter_map(|text| admin_key(reader, text)).collect();
    let tries_max =
        reader.number(&mut table, "tries", 1..=10).map_or(found.tries_max, |at| at.value);
    reader.finish(table);
    Defaults { admin_keys, tries_max, ..found }
}

/// The settings that defaults and nodes share.
fn settings<'d>(
    reader: &mut Reader<'d>,
    table: &mut Table<'d>,
    base: &Defaults,
    systems: &BTreeMap<OsName, Os>,
) -> Defaults {
    let os = reader.text(table, "os").and_then(|text| value::<OsName>(reader, text));
    if let Some(os) = os.as_ref().filter(|os| !systems.contains_key(&os.value)) {
        let known: Vec<_> = systems.keys().map(OsName::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        reader.wrong(
            os.line,
            format!("there is no [os.{}]; add it or use one of: {known}", os.value),
        );
    }
    let mut word = |key, like, is_good: fn(&str) -> bool, old: &str| {
        let Some(text) = reader.text(table, key) else { return old.to_owned() };
        if !is_good(text.value) {
            let shown = show(text.value);
            reader.wrong(
                text.line,
                format!("`{shown}` does not do as `{key}`; write it like {like}"),
            );
        }
        text.value.to_owned()
    };
    let timezone = word("timezone", "Europe/Berlin", is_timezone, &base.timezone);
    let keyboard = word("keyboard", "us", |text| is_plain(text, "_-().,"), &base.keyboard);
    let language = word("language", "en_US.UTF-8", is_language, &base.language);
    let kernel_args =
        word("kernel_args", "console=ttyS0 quiet", are_kernel_args, &base.kernel_args.join(" "));
    let kernel_args = kernel_args.split_whitespace().map(str::to_owned).collect();
    let packages = match reader.list(table, "packages") {
        None => base.packages.clone(),
        Some(list) => list.value.into_iter().filter_map(|text| package(reader, text)).collect(),
    };
    let disk = disk(reader, table).unwrap_or_else(|| base.disk.clone());
    let os = os.map(|os| os.value).or_else(|| base.os.clone());
    Defaults { os, timezone, keyboard, language, kernel_args, packages, disk, ..base.clone() }
}

fn is_plain(text: &str, more: &str) -> bool {
    (1..=64).contains(&text.len())
        && !text.starts_with('-')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
}

fn is_language(text: &str) -> bool {
    is_plain(text, "_-.@") && text.starts_with(|first: char| first.is_ascii_alphabetic())
}

/// `Area/City` of the tz database.
fn is_timezone(text: &str) -> bool {
    text.split('/').all(|part| is_plain(part, "_-+") && !part.starts_with('.'))
}

/// Quotes would change what the boot loader and the kickstart see.
fn are_kernel_args(text: &str) -> bool {
    text.len() <= 1000
        && text.chars().all(|letter| {
            letter == ' ' || letter.is_ascii_graphic() && !"\"'`$\\{}|&;<>#".contains(letter)
        })
}

fn package<'d>(reader: &mut Reader<'d>, text: At<&'d str>) -> Option<String> {
    let name = text.value.trim_start_matches(['@', '-']).trim_start_matches('^');
    if is_plain(name, "._-+*") && text.value.len() <= 100 {
        return Some(text.value.to_owned());
    }
    let shown = show(text.value);
    reader.wrong(text.line, format!("`{shown}` is no package; write a name like htop, a group like @development, or -name to leave one out"));
    None
}

fn disk<'d>(reader: &mut Reader<'d>, table: &mut Table<'d>) -> Option<DiskRule> {
    let mut inner = reader.sub(table, "disk")?;
    let (line, both) = (inner.line, inner.has("serial") && inner.has("min_gib"));
    let serial = reader.text(&mut inner, "serial");
    let min_gib = reader.number(&mut inner, "min_gib", 1..=100_000);
    reader.finish(inner);
    if both {
        reader.wrong(line, "`disk` names a serial and a size; keep one of them");
    }
    match (serial, min_gib) {
        (Some(serial), _) if is_plain(serial.value, "_-.:") => {
            Some(DiskRule::Serial(serial.value.to_owned()))
        }
        (Some(serial), _) => {
            let shown = show(serial.value);
            reader.wrong(
                serial.line,
                format!("`{shown}` is no serial number; copy it from `lsblk -o NAME,SERIAL`"),
            );
            None
        }
        (None, Some(min)) => Some(DiskRule::Smallest { min_gib: min.value }),
        (None, None) => None,
    }
}

/// Whether a text is the one line of an OpenSSH public key, without options before it.
pub fn is_public_key(key: &str) -> bool {
    let is_plain = is_one_line(key) && !key.contains(['"', '\'', '\\']);
    is_plain && PublicKey::from_openssh(key).is_ok()
}

fn admin_key<'d>(reader: &mut Reader<'d>, text: At<&'d str>) -> Option<String> {
    let key = text.value.trim();
    if is_public_key(key) {
        return Some(key.to_owned());
    }
    let shown = show(&key.chars().take(30).collect::<String>());
    reader.wrong(
        text.line,
        format!("`{shown}…` is no OpenSSH public key; paste the one line of ~/.ssh/id_ed25519.pub"),
    );
    None
}

/// What nodes are checked against.
struct Frame<'a> {
    network: Option<&'a Network>,
    systems: &'a BTreeMap<OsName, Os>,
    defaults: &'a Defaults,
}

/// Who has which name, MAC and address already.
#[derive(Default)]
struct Taken {
    names: BTreeMap<NodeName, usize>,
    macs: BTreeMap<Mac, String>,
    ips: BTreeMap<Ipv4Addr, String>,
}

fn nodes<'d>(reader: &mut Reader<'d>, root: &mut Table<'d>, frame: &Frame<'_>) -> Vec<Node> {
    let mut taken = Taken::default();
    let tables = reader.array(root, "node");
    tables.into_iter().filter_map(|table| node(reader, table, frame, &mut taken)).collect()
}

fn node<'d>(
    reader: &mut Reader<'d>,
    mut table: Table<'d>,
    frame: &Frame<'_>,
    taken: &mut Taken,
) -> Option<Node> {
    let name = reader
        .needed(&mut table, "name", "worker1")
        .and_then(|text| value::<NodeName>(reader, text));
    if let Some(name) = &name {
        table.place = format!("node `{}`", name.value);
    }
    let mac = reader
        .needed(&mut table, "mac", "52:54:00:aa:bb:01")
        .and_then(|text| value::<Mac>(reader, text));
    let ip =
        reader.needed(&mut table, "ip", "192.168.10.10").and_then(|text| address(reader, text));
    let Defaults { os, timezone, keyboard, language, kernel_args, packages, disk, .. } =
        settings(reader, &mut table, frame.defaults, frame.systems);
    let roles = reader.list(&mut table, "roles").map_or_else(Vec::new, |list| list.value);
    let roles =
        roles.into_iter().filter_map(|text| value(reader, text)).map(|at| at.value).collect();
    if os.is_none() {
        reader.wrong(
            table.line,
            format!("{} has no os; add os = \"el9\" here or in [defaults]", table.place),
        );
    }
    unique(reader, taken, &table.place, name.as_ref(), mac, ip);
    reader.finish(table);
    if let Some(network) = frame.network {
        fits(reader, network, name.as_ref(), ip);
    }
    let (name, mac, ip, os) = (name?.value, mac?.value, ip?.value, os?);
    Some(Node {
        name,
        mac,
        ip,
        os,
        roles,
        timezone,
        keyboard,
        language,
        kernel_args,
        packages,
        disk,
    })
}

fn unique(
    reader: &mut Reader<'_>,
    taken: &mut Taken,
    place: &str,
    name: Option<&At<NodeName>>,
    mac: Option<At<Mac>>,
    ip: Option<At<Ipv4Addr>>,
) {
    if let Some(At { line, value: name }) = name
        && let Some(first) = taken.names.insert(name.clone(), *line)
    {
        reader.wrong(
            *line,
            format!("node `{name}` is there twice (first on line {first}); rename one"),
        );
    }
    if let Some(At { line, value: mac }) = mac
        && let Some(other) = taken.macs.insert(mac, place.to_owned())
    {
        reader.wrong(line, format!("{mac} already belongs to {other}; every card has its own"));
    }
    if let Some(At { line, value: ip }) = ip
        && let Some(other) = taken.ips.insert(ip, place.to_owned())
    {
        reader.wrong(
            line,
            format!("{ip} is already taken by {other}; give this node another address"),
        );
    }
}

fn fits(
    reader: &mut Reader<'_>,
    network: &Network,
    name: Option<&At<NodeName>>,
    ip: Option<At<Ipv4Addr>>,
) {
    if let Some(At { line, value: name }) = name
        && *name == network.master
    {
        reader.wrong(*line, format!("`{name}` is the master's name; rename the node"));
    }
    let Some(At { line, value: ip }) = ip else { return };
    if !network.subnet.contains(&ip)
        || ip == network.subnet.network()
        || ip == network.subnet.broadcast()
    {
        reader.wrong(
            line,
            format!(
                "{ip} is no host address of {}; take one between {} and {}",
                network.subnet, network.workers.first, network.workers.last
            ),
        );
    } else if ip == network.address {
        reader.wrong(
            line,
            format!("{ip} is the master's own address; give this node another address"),
        );
    } else if network.discovery.contains(ip) {
        reader.wrong(line, format!("{ip} lies in `discovery`, which is lent to unknown machines; take one between {} and {}", network.workers.first, network.workers.last));
    }
}
