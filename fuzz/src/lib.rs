//! What is done with arbitrary bytes, and what must hold whatever they are. libFuzzer calls these
//! (`src/bin/`), and `tests/it/corpus.rs` replays the corpus through them on every `cargo test`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dhcproto::{Decodable, Decoder, v4};
use rekindle::boot::Decision;
use rekindle::cluster::{Cluster, edit, import};
use rekindle::dhcp::reply::Destination;
use rekindle::dhcp::{self, Datagram, Dhcp, Service};
use rekindle::http::range::{Part, part};
use rekindle::http::{Endpoint, Method, NodeEndpoint, report, route};
use rekindle::import::url::flatten;
use rekindle::ipxe::{self, Installer, Source};
use rekindle::kickstart::{self, Order, RenderError};
use rekindle::machine::Loader;
use rekindle::media::{Release, Tree};
use rekindle::name;
use rekindle::repodata as index;
use rekindle::site::Site;
use rekindle::snippets::Snippets;
use rekindle::stage::{Arm, Entry, Event, Report, State};
use rekindle::tftp::{Server, Step, TRANSFERS_MAX, TransferId};
use rekindle::trust::{PublicKeys, Token};

/// The cluster that packets come to; the machine of most seeds is its first node.
const CLUSTER: &str = r#"
[network]
uplink = "eth0"
interface = "eth1"
address = "192.168.10.1/24"
workers = "192.168.10.10-192.168.10.99"
discovery = "192.168.10.200-192.168.10.203"

[os.el9]
tree = "/srv/tree"

[defaults]
os = "el9"
admin_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz a@b"]

[[node]]
name = "worker1"
mac = "52:54:00:aa:bb:01"
ip = "192.168.10.10"

[[node]]
name = "worker2"
mac = "52:54:00:f0:00:02"
ip = "192.168.10.11"
"#;

const TREEINFO: &str = "[release]\nname = x\nversion = 9\n[general]\narch = x86_64\n\
                        [images-x86_64]\nkernel = images/vmlinuz\ninitrd = images/initrd.img\n";

fn parse(text: &str) -> Option<Cluster> {
    match Cluster::parse(text, Path::new("cluster.toml")) {
        Ok(cluster) => Some(cluster),
        Err(found) => {
            assert!(!found.list.is_empty(), "refused without a word");
            for one in found.list {
                assert!(one.line >= 1 && one.line <= text.lines().count() + 1, "{}", one.line);
                assert!(name::is_one_line(&one.message), "{:?}", one.message);
            }
            None
        }
    }
}

fn tree(release: Release) -> Tree {
    Tree { release, ..Tree::parse(TREEINFO).expect("tree") }
}

/// The cluster, with its first node armed.
fn armed() -> (Site, State) {
    let cluster = parse(CLUSTER).expect("sound");
    let mac = cluster.nodes().next().expect("node").mac;
    let entry = Entry { seq: 1, at_ms: 1, mac, event: Event::Armed };
    let trees = BTreeMap::from([("el9".parse().expect("os"), tree(Release::El9))]);
    let (snippets, loaders) = (Snippets::default(), Loader::ALL.into());
    (
        Site { cluster, trees, snippets, answers: BTreeMap::new(), loaders },
        State::from_entries([&entry]),
    )
}

/// A dialogue: two bytes length, one byte of circumstances, and that many bytes of packet, again
/// and again.
struct Dialogue<'a>(&'a [u8]);

impl<'a> Iterator for Dialogue<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([high, low, how], rest) = self.0.split_first_chunk()?;
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (packet, rest) = rest.split_at(len);
        self.0 = rest;
        Some((*how, packet))
    }
}

/// Circumstances of a DHCP packet: bit 0 the boot server's port, bits 1 and 2 who sends it, the
/// rest how much time has passed.
pub fn dhcp(bytes: &[u8]) {
    let (site, state) = armed();
    let network = site.cluster.network();
    let (mut dhcp, mut now) = (Dhcp::default(), 1_800_000_000_000);
    for (how, packet) in Dialogue(bytes) {
        let service = if how & 1 == 0 { Service::Dhcp } else { Service::BootServer };
        let ip = match how >> 1 & 3 {
            0 => Ipv4Addr::UNSPECIFIED,
            1 => Ipv4Addr::new(192, 168, 10, 10),
            2 => Ipv4Addr::new(192, 168, 10, 200),
            _ => Ipv4Addr::new(8, 8, 8, 8),
        };
        now += u64::from(how >> 3) * 37_000;
        let datagram = Datagram { bytes: packet, from: SocketAddrV4::new(ip, 68), service };
        let mut step = dhcp.handle_packet(&site, &state, datagram, now);
        if let Ok(dhcp::Step::Try(ip)) = step {
            assert!(network.discovery.contains(ip));
            // Now and then somebody is there.
            let user = site.cluster.nodes().next().map(|node| node.mac).filter(|_| how & 8 != 0);
            dhcp.tried(ip, user, now).unwrap_or_default();
            step = dhcp.handle_packet(&site, &state, datagram, now);
        }
        let Ok(dhcp::Step::Answer(answer)) = step else { continue };
        let reply = v4::Message::decode(&mut Decoder::new(&answer.bytes)).expect("a reply is DHCP");
        assert!((300..=1472).contains(&answer.bytes.len()), "{} bytes", answer.bytes.len());
        assert_eq!(reply.opcode(), v4::Opcode::BootReply);
        let inside = |ip: &Ipv4Addr| network.subnet.contains(ip);
        let yiaddr = answer.yiaddr;
        assert!(yiaddr.is_unspecified() || inside(&yiaddr) && yiaddr != network.address);
        if let Some(node) = site.cluster.node_by_ip(yiaddr) {
            assert_eq!(node.mac, answer.mac, "an address of a node goes to nobody else");
        }
        match answer.destination {
            Destination::Broadcast => {}
            Destination::Relay(ip) | Destination::Unicast { ip, .. } => assert!(inside(&ip)),
            Destination::Client(to) => assert!(inside(to.ip())),
        }
    }
}

/// Circumstances of a TFTP packet: bit 0 whether it comes to port 69 or to a transfer, bits 1 to 3
/// whose or which, the rest how much time passes afterwards.
pub fn tftp(bytes: &[u8]) {
    let content = |name: &str| match name {
        "undionly.kpxe" => Some(Bytes::from(vec![1; 70_000])),
        "snponly.efi" => Some(Bytes::from(vec![2; 1468 * 3])),
        _ => None,
    };
    let (mut server, mut now) = (Server::default(), Duration::from_secs(1000));
    let mut started: Vec<TransferId> = vec![];
    for (how, packet) in Dialogue(bytes) {
        let which = how >> 1 & 7;
        if how & 1 == 0 {
            let from = SocketAddrV4::new(Ipv4Addr::new(192, 168, 10, 50 + which), 2000);
            let mut step = server.handle_request(packet, from, now);
            if let Step::Find(wanted) = step {
                assert!(wanted.name.split('/').all(|segment| !matches!(segment, "" | "." | "..")));
                step = match content(&wanted.name) {
                    Some(content) => server.open(wanted, Arc::new(content), now),
                    None => wanted.refuse(),
                };
            }
            match step {
                Step::Start { id, ended } => {
                    started.push(id);
                    for id in ended {
                        server.finish(id);
                    }
                }
                Step::Refuse { bytes, .. } => assert!(bytes.starts_with(&[0, 5])),
                Step::Find(_) | Step::Again(_) | Step::Drop(_) => {}
            }
        } else if let Some(id) = started.iter().rev().nth(usize::from(which)) {
            server.handle_packet(*id, packet, now);
        }
        now += Duration::from_millis(u64::from(how >> 4) * 500);
        for id in &started {
            server.handle_timeout(*id, now);
            let sent: Vec<_> = std::iter::from_fn(|| server.poll_transmit(*id)).take(70).collect();
            assert!(sent.len() <= 65, "a window and an OACK at most: {}", sent.len());
            assert!(sent.iter().all(|bytes| bytes.len() <= 1472));
            if server.poll_timeout(*id).is_none() {
                server.finish(*id);
            }
        }
        assert!(server.len() <= TRANSFERS_MAX);
    }
}

/// First line: method and path. Second: a `Range` header and, behind a blank, the length of the
/// file. The rest: a body.
pub fn http(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (request, range, body) = (line(), line(), line());
    let request = String::from_utf8_lossy(request);
    let (method, path) = request.split_once(' ').unwrap_or(("GET", &request));
    let method = if method == "POST" { Method::Post } else { Method::Get };
    match route(method, path) {
        Ok(Endpoint::File { path, .. }) => {
            let path = path.as_str();
            assert!(!path.starts_with('/') && !path.contains('\0'));
            assert!(path.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{path}");
        }
        Ok(Endpoint::Node { what: NodeEndpoint::Event(stage), .. }) => {
            assert_eq!(method, Method::Post, "what changes something is posted");
            match report::report(stage, body) {
                Some(Report::Packages { done, total }) => assert!(done <= total && total > 0),
                Some(
                    Report::Pre { detail: text }
                    | Report::Disk { detail: text, .. }
                    | Report::FirstBoot { detail: text, .. }
                    | Report::Failed { log: text },
                ) => assert!(
                    text.chars().all(|letter| !letter.is_control() || "\n\t".contains(letter))
                ),
                Some(Report::Post | Report::Installed) | None => {}
            }
        }
        Ok(Endpoint::Script(..) | Endpoint::Loader(_) | Endpoint::Node { .. }) | Err(_) => {}
    }
    let range = String::from_utf8_lossy(range);
    let (header, len) = range.rsplit_once(' ').unwrap_or((&range, "1000"));
    let len = len.parse().unwrap_or(1000);
    if let Part::Slice { first, last } = part(Some(header), len) {
        assert!(first <= last && last < len, "{first}-{last} of {len}");
    }
    if let Some((done, total)) = report::packages_in_log(&String::from_utf8_lossy(body)) {
        assert!(done <= total && total > 0);
    }
}

/// Any text as `cluster.toml`: refused with lines, or rendered and changed without a fault.
pub fn cluster_file(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    drop(import::parse_csv(text));
    let Some(cluster) = parse(text) else { return };
    let token = Token::masked();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz";
    let keys = PublicKeys { host_ca: key.to_owned(), master_root: key.to_owned() };
    let snippets = Snippets::default();
    let arm = Arm::new(1);
    for node in cluster.nodes() {
        for release in Release::ALL {
            let (cluster, os, tree) = (&cluster, &node.os, &tree(release));
            let (token, keys, snippets) = (&token, &keys, &snippets);
            let order =
                Order { cluster, node, os, tree, token, keys, snippets, known_disk: Some("x") };
            match kickstart::render(&order) {
                Ok(_) | Err(RenderError::Scheduler { .. } | RenderError::NoRepository { .. }) => {}
                Err(error) => panic!("a sound file makes no sound kickstart: {error}"),
            }
            let install = Decision::Install { node, os, arm };
            let installer = Installer { source: Source::Tree(tree), token, delay_s: 7 };
            ipxe::render(cluster, node.mac, &install, Some(installer)).expect("a script");
        }
    }
    changed(text, &cluster);
}

fn changed(text: &str, cluster: &Cluster) {
    let (Some(name), Some(ip)) = (edit::next_name(cluster), edit::next_ip(cluster)) else { return };
    let mac = "02:00:00:ff:ff:ff".parse().expect("mac");
    if name == cluster.network().master || cluster.node_by_mac(mac).is_some() {
        return;
    }
    let node = edit::NewNode { name: name.clone(), mac, ip, os: None, roles: vec![] };
    // Nodes as inline tables are left to their owner; a node without an os is refused.
    let Ok(added) = edit::add_node(text, &node) else { return };
    let Some(with_it) = parse(&added) else { return };
    let others = with_it.nodes().filter(|node| node.name != name);
    assert!(others.eq(cluster.nodes()), "adding changes no other node");
    let removed = edit::remove_node(&added, &name).expect("it is there");
    assert_eq!(parse(&removed).as_ref(), Some(cluster));
    if let Some(gone) = cluster.nodes().next() {
        let without = edit::remove_node(text, &gone.name).expect("it is there");
        let after = parse(&without).expect("still sound");
        assert!(after.nodes().eq(cluster.nodes().filter(|node| node.name != gone.name)));
    }
}

/// Any text as `.treeinfo`: what it names stays inside the tree.
pub fn treeinfo(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(tree) = Tree::parse(text) else { return };
    let paths = [&tree.kernel, &tree.initrd].into_iter();
    for path in paths.chain(tree.repos.iter().map(|(_, path)| path).filter(|path| !path.is_empty()))
    {
        assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{path:?}");
        assert!(path.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{path:?}");
    }
    assert!(!tree.title.contains(char::is_control));
}

/// Any bytes as the index of a repository, first one says how packed: what it names stays inside the repository.
pub fn repodata(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let found = match kind % 4 {
        0 => index::repomd(rest).map(|it| it.files),
        1 => index::packages("primary.xml", rest),
        2 => index::packages("primary.xml.gz", rest),
        _ => index::packages("primary.xml.zst", rest),
    };
    for entry in found.into_iter().flatten() {
        let path = &entry.path;
        assert!(!path.contains(char::is_control), "{path:?}");
        assert!(path.split('/').all(|segment| !matches!(segment, "" | "." | "..")), "{path:?}");
    }
    // A mirror's description is rewritten; what it names then is inside the tree, or refused.
    if let Ok(text) = str::from_utf8(rest) {
        let flat = flatten("http://mirror/9/BaseOS/x86_64/os", text);
        drop(Tree::parse(&flat.treeinfo));
        assert!(
            flat.repos.values().all(|url| url.starts_with("http://mirror")),
            "{:?}",
            flat.repos
        );
    }
}
