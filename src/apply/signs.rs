//! Looking at the private wire and at this machine's ports, for the doctor. Asks, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{output, pause};
use crate::arp;
use crate::doctor::{Listener, Passing, Wire};
use crate::mac::Mac;
use crate::name::IfName;
use crate::sys::packet::Frames;

/// How long silence is listened to.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// How often an address is asked for.
const TRIES: u32 = 3;
/// Bridges say hello every 2 seconds.
const HELLO: Duration = Duration::from_millis(2500);
/// How long one frame is waited for.
const QUIET: Duration = Duration::from_millis(500);
/// Where bridges talk to each other.
const BRIDGES: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];

/// Cable and packet size of every card.
pub fn wires(names: impl Iterator<Item = IfName>) -> BTreeMap<IfName, Wire> {
    let read = |name: &IfName, file: &str| {
        let path = Path::new("/sys/class/net").join(name.as_str()).join(file);
        std::fs::read_to_string(path).ok()?.trim().parse::<u32>().ok()
    };
    names
        .filter_map(|name| {
            let mtu = read(&name, "mtu")?;
            // The kernel does not say while the card is off.
            let carrier = read(&name, "carrier").map(|carrier| carrier == 1);
            Some((name, Wire { carrier, mtu }))
        })
        .collect()
}

/// Who listens on the ports that `serve` needs.
pub fn listeners() -> Vec<Listener> {
    let needed: [(&str, &str, u16); 6] = [
        ("udp 67", "udp", 67),
        ("udp 69", "udp", 69),
        ("udp 4011", "udp", 4011),
        ("tcp 80", "tcp", 80),
        ("tcp 601", "tcp", 601),
        ("tcp 5140", "tcp", 5140),
    ];
    let tables = ["udp", "tcp"].map(|table| {
        let text =
            |name: &str| std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
        (table, bound(&text(table), table == "tcp"))
    });
    let mut wanted: BTreeMap<u64, &str> = BTreeMap::new();
    for (word, table, port) in needed {
        for (_, sockets) in tables.iter().filter(|(name, _)| *name == table) {
            wanted.extend(
                sockets.iter().filter(|(it, _)| *it == port).map(|(_, inode)| (*inode, word)),
            );
        }
    }
    let found: BTreeSet<(&str, String)> = programs(&wanted).into_iter().collect();
    found.into_iter().map(|(port, program)| Listener { port, program }).collect()
}

/// Where sshd listens, or the port that this session came by (sshd(8), SSH_CONNECTION): its socket may be
/// systemd's.
pub fn ssh_ports() -> BTreeSet<u16> {
    let session = std::env::var_os("SSH_CONNECTION");
    let session = session.as_ref().and_then(|it| it.to_str()?.rsplit(' ').next()?.parse().ok());
    if let Some(port) = session {
        return BTreeSet::from([port]);
    }
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|file| bound(&std::fs::read_to_string(file).unwrap_or_default(), true));
    let ports: BTreeMap<u64, u16> =
        tables.into_iter().flatten().map(|(port, inode)| (inode, port)).collect();
    programs(&ports).into_iter().filter(|(_, name)| name == "sshd").map(|(port, _)| port).collect()
}

/// Local port and inode of each socket that waits, from `/proc/net/udp` or `tcp` (proc(5)).
fn bound(table: &str, is_tcp: bool) -> Vec<(u16, u64)> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = words.as_slice() else {
                return None;
            };
            let (_, port) = local.split_once(':')?;
            let waits = !is_tcp || *state == "0A";
            let port = u16::from_str_radix(port, 16).ok()?;
            waits.then_some((port, inode.parse().ok()?))
        })
        .collect()
}

/// Which programs hold these sockets.
fn programs<W: Copy>(wanted: &BTreeMap<u64, W>) -> Vec<(W, String)> {
    let mut found = vec![];
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let name =
            || std::fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
        for file in std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten() {
            let inode = std::fs::metadata(file.path()).map(|about| about.ino());
            let is_socket = std::fs::read_link(file.path())
                .is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
            if let Some(port) =
                inode.ok().filter(|_| is_socket).and_then(|inode| wanted.get(&inode))
            {
                found.push((*port, name()));
            }
        }
    }
    found
}

/// Free MiB where a folder is.
pub fn free_mib(dir: &Path) -> Option<u64> {
    let about = nix::sys::statvfs::statvfs(dir).ok()?;
    Some(about.blocks_available().saturating_mul(about.fragment_size()) >> 20)
}

/// A program that SELinux may not let systemd start, because it was moved from where people keep their files.
pub fn mislabelled(program: &Path) -> Option<String> {
    let enforces =
        std::fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|it| it.trim() == "1");
    if !enforces {
        return None;
    }
    let context = output("stat", &["-c", "%C", &program.display().to_string()])?;
    let kind = context.split(':').nth(2)?.trim();
    let is_wrong =
        ["user_home_t", "admin_home_t", "user_tmp_t", "tmp_t", "default_t", "unlabeled_t"]
            .contains(&kind);
    is_wrong.then(|| format!("{} has the SELinux type {kind}", program.display()))
}

/// What in a repository came after its index or the index's signature, in words.
pub fn unindexed(repo: &Path) -> Option<String> {
    let changed = |path: &Path| std::fs::metadata(path).ok()?.modified().ok();
    let repomd = repo.join("repodata/repomd.xml");
    let index = changed(&repomd)?;
    // Nodes that were told of the signature refuse an index that somebody made by hand.
    if changed(&repomd.with_extension("xml.asc")).is_some_and(|signed| signed < index) {
        return Some(format!("{} is newer than its signature", repomd.display()));
    }
    let entries = std::fs::read_dir(repo).ok()?.flatten().map(|entry| entry.path());
    let mut packages = entries.filter(|path| path.extension().is_some_and(|it| it == "rpm"));
    let newer = packages.find(|path| changed(path).is_some_and(|at| at > index))?;
    let name = newer.file_name()?.to_string_lossy();
    Some(format!("{name} is newer than the index of {}", repo.display()))
}

/// What the daemon's user, to whom the state belongs, may not read: the path or a folder on the way to it.
pub fn hidden(state: &Path, path: &Path) -> Option<PathBuf> {
    let (user, group) = std::fs::metadata(state).map(|it| (it.uid(), it.gid())).ok()?;
    let may = |path: &Path, bit: u32| {
        std::fs::metadata(path).is_ok_and(|it| {
            let shift = if it.uid() == user {
                6
            } else if it.gid() == group {
                3
            } else {
                0
            };
            it.mode() >> shift & bit != 0
        })
    };
    if user == 0 || !path.exists() {
        return None;
    }
    let real = std::fs::canonicalize(path).ok()?;
    let mut way: Vec<_> = real.ancestors().skip(1).collect();
    way.reverse();
    let closed = way.into_iter().find(|dir| !may(dir, 1));
    closed.or_else(|| (!may(&real, 4)).then_some(real.as_path())).map(Path::to_owned)
}

/// Whether something keeps the clock right, as far as systemd knows.
pub fn clock_kept() -> Option<bool> {
    match output("timedatectl", &["show", "-p", "NTPSynchronized", "--value"])?.trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Other servers that offer an address on the private wire. Ours does not answer: it knows no such
/// machine, and nothing there boots. Asked three times, one `patience` apart; heard for four, or for one after the first
/// answer. Servers try an address for up to three seconds before they offer it.
#[expect(clippy::disallowed_methods, reason = "a shell: it listens for so long")]
pub fn offers(
    interface: &IfName,
    mac: Mac,
    own: Ipv4Addr,
    patience: Duration,
) -> io::Result<Vec<Ipv4Addr>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_str().as_bytes()))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into())?;
    let socket = UdpSocket::from(socket);
    let xid = std::process::id();
    // Not by that socket: a server with a network of its own, which most are, answers from an address that the packet
    // filter and the kernel refuse here. A room that is switched on meanwhile must not wake us with every answer of ours.
    let frames = Frames::ipv4(interface, &only_of(xid))?;
    let mut found = BTreeSet::new();
    let mut buffer = [0; 1500];
    let begun = Instant::now();
    let mut end = patience * (TRIES + 1);
    let mut asked = 0;
    while begun.elapsed() < end {
        if asked < TRIES && begun.elapsed() >= patience * asked {
            socket.send_to(&discover(xid, mac), (Ipv4Addr::BROADCAST, 67))?;
            asked += 1;
        }
        let next = if asked < TRIES { patience * asked } else { end };
        frames.wait_for(next.saturating_sub(begun.elapsed()))?;
        let len = match frames.receive(&mut buffer) {
            Ok(len) => len,
            Err(error) if is_silence(&error) => continue,
            Err(error) => return Err(error),
        };
        let payload = buffer.get(..len).and_then(for_clients);
        let server = payload.and_then(|bytes| offered(bytes, xid));
        if let Some(server) = server.filter(|server| *server != own) {
            found.insert(server);
            end = end.min(begun.elapsed() + patience);
        }
    }
    Ok(found.into_iter().collect())
}

/// Ethernet's header.
const ETHERNET: u32 = 14;

/// Lets answers to this request through: its number stands behind the headers of Ethernet, IP and UDP and four bytes
/// (socket(7), SO_ATTACH_FILTER; RFC 2131 section 2).
fn only_of(xid: u32) -> [SockFilter; 5] {
    let code = |parts: [u32; 3]| u16::try_from(parts.iter().sum::<u32>()).unwrap_or_default();
    // How long IP's header is, in its first byte.
    let header = code([libc::BPF_LDX, libc::BPF_B, libc::BPF_MSH]);
    let load = code([libc::BPF_LD, libc::BPF_W, libc::BPF_IND]);
    let compare = code([libc::BPF_JMP, libc::BPF_JEQ, libc::BPF_K]);
    let give = code([libc::BPF_RET, libc::BPF_K, 0]);
    [
        SockFilter::new(header, 0, 0, ETHERNET),
        SockFilter::new(load, 0, 0, ETHERNET + 8 + 4),
        SockFilter::new(compare, 0, 1, xid),
        SockFilter::new(give, 0, 0, u32::MAX),
        SockFilter::new(give, 0, 0, 0),
    ]
}

/// What a DHCP server sends to a client: a frame -> its UDP payload (RFC 791 section 3.1, RFC 768).
fn for_clients(frame: &[u8]) -> Option<&[u8]> {
    const UDP: u8 = 17;
    let packet = frame.get(ETHERNET as usize..)?;
    let first = *packet.first()?;
    let (header, rest) = packet.split_at_checked(usize::from(first & 0xf) * 4)?;
    let (ports, payload) = rest.split_at_checked(8)?;
    let is_udp = first >> 4 == 4 && header.get(9) == Some(&UDP);
    (is_udp && ports.starts_with(&[0, 67, 0, 68])).then_some(payload)
}

/// A DHCPDISCOVER that asks for an answer by broadcast (RFC 2131 section 4.1).
fn discover(xid: u32, mac: Mac) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(xid.to_be_bytes());
    bytes.extend([0, 0, 0x80, 0]);
    bytes.resize(28, 0);
    bytes.extend(mac.octets());
    bytes.resize(236, 0);
    bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 55, 2, 1, 3, 255]);
    bytes.resize(300, 0);
    bytes
}

/// The server's name in an answer to that request (option 54).
fn offered(bytes: &[u8], xid: u32) -> Option<Ipv4Addr> {
    let is_answer = bytes.first() == Some(&2) && bytes.get(4..8) == Some(&xid.to_be_bytes()[..]);
    let options = bytes.get(240..).filter(|_| is_answer)?;
    let (_, value) = crate::dhcp::options::walk(options).find(|(code, _)| *code == 54)?;
    let octets: [u8; 4] = value.try_into().ok()?;
    Some(octets.into())
}

/// What else goes by on the private wire: whether its switch speaks of spanning tree, and who answers for
/// the master's own address (RFC 5227 section 2.1.1).
#[expect(clippy::disallowed_methods, reason = "a shell: it listens for so long")]
pub fn passing(card: &IfName, mac: Mac, own: Ipv4Addr) -> io::Result<Passing> {
    let frames = Frames::open(card, BRIDGES, QUIET)?;
    let mut found = Passing::default();
    let mut buffer = [0; 1600];
    let begun = Instant::now();
    let mut probes = 0;
    while begun.elapsed() < HELLO {
        // The first may be lost while a port wakes up.
        if begun.elapsed() >= QUIET * probes {
            frames.send(&arp::probe(mac, own))?;
            probes += 1;
        }
        let len = match frames.receive(&mut buffer) {
            Ok(len) => len,
            Err(error) if is_silence(&error) => continue,
            Err(error) => return Err(error),
        };
        let frame = buffer.get(..len).unwrap_or_default();
        found.spanning_tree |= is_bpdu(frame);
        let twin = arp::sender(frame).filter(|(ip, card)| *ip == own && *card != mac);
        found.twin = found.twin.or(twin.map(|(_, card)| card));
    }
    Ok(found)
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// A configuration message of a bridge (IEEE 802.1D: to its group address, LLC 42 42 03).
fn is_bpdu(frame: &[u8]) -> bool {
    frame.get(..6) == Some(&BRIDGES) && frame.get(14..17) == Some(&[0x42, 0x42, 3])
}

/// Who answers at these addresses, by asking the kernel for their cards.
pub fn answers(addresses: &[Ipv4Addr]) -> io::Result<BTreeMap<Ipv4Addr, Option<Mac>>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut found: BTreeMap<Ipv4Addr, Option<Mac>> =
        addresses.iter().map(|ip| (*ip, None)).collect();
    for _ in 0..TRIES {
        let missing: Vec<_> =
            found.iter().filter(|(_, mac)| mac.is_none()).map(|(ip, _)| *ip).collect();
        if missing.is_empty() {
            break;
        }
        for ip in missing {
            // The discard port: it is the question for the card that counts.
            socket.send_to(&[0], (ip, 9)).map(drop).unwrap_or_default();
        }
        pause(Duration::from_secs(1));
        let table = std::fs::read_to_string("/proc/net/arp")?;
        for (ip, mac) in neighbours(&table) {
            if let Some(place) = found.get_mut(&ip) {
                *place = Some(mac);
            }
        }
    }
    Ok(found)
}

/// Complete entries of `/proc/net/arp`: address and card (flag 0x2, arp(7)).
fn neighbours(table: &str) -> Vec<(Ipv4Addr, Mac)> {
    let entry = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [ip, _, flags, mac, ..] = words.as_slice() else { return None };
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        (flags & 2 != 0).then_some((ip.parse().ok()?, mac.parse().ok()?))
    };
    table.lines().skip(1).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_sockets_are_read_from_proc() {
        let udp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   27: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n";
        assert_eq!(bound(udp, false), [(67, 4711)]);
        let tcp = "head\n 0: 010AA8C0:0050 00000000:0000 0A 0:0 00:0 0 0 0 99 1\n 1: 010AA8C0:0050 020AA8C0:9999 01 0:0 00:0 0 0 0 98 1\n";
        assert_eq!(bound(tcp, true), [(80, 99)]);
        assert_eq!(bound("head\ngarbage\n", true), []);
    }

    #[test]
    fn only_whole_answers_to_our_own_request_count() {
        let mut answer = vec![0; 240];
        answer[0] = 2;
        answer[4..8].copy_from_slice(&7_u32.to_be_bytes());
        answer.extend([53, 1, 2, 54, 4, 10, 0, 0, 1, 255]);
        assert_eq!(offered(&answer, 7), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(offered(&answer, 8), None);
        assert_eq!(offered(&answer[..200], 7), None);
        assert_eq!(offered(&[], 7), None);
    }

    #[test]
    fn bridges_are_told_from_other_frames() {
        let hello = [&BRIDGES[..], &[2, 0, 0, 0, 0, 1, 0, 38, 0x42, 0x42, 3, 0, 0, 0, 0]].concat();
        assert!(is_bpdu(&hello));
        assert!(!is_bpdu(&hello[..16]) && !is_bpdu(&[]));
    }

    #[test]
    fn neighbours_that_did_not_answer_are_none() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
                     192.168.10.10    0x1         0x2         52:54:00:aa:bb:01     *        eth1\n\
                     192.168.10.11    0x1         0x0         00:00:00:00:00:00     *        eth1\n";
        let mac = "52:54:00:aa:bb:01".parse().expect("mac");
        assert_eq!(neighbours(table), [(Ipv4Addr::new(192, 168, 10, 10), mac)]);
    }
}
