//! Every TFTP read request that real machines sent in `tests/captures/`, fed to our server: as it
//! is, and asking for a loader of ours, down to the last byte of it.

use std::net::SocketAddrV4;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use rekindle::machine::Loader;
use rekindle::tftp::transfer::Outcome;
use rekindle::tftp::{Finished, Server, Step, TransferId};

use crate::pcap::{self, Capture, Packet, Transport};
use crate::wire::{Random, spoilt};

/// UEFI's PXE client asks for the size, aborts, and asks again.
const SIZE: &str = "tsize=0 blksize=1468 windowsize=4";
const UEFI: &str = "blksize=1468 windowsize=4";
const SHIM: &str = "blksize=512 windowsize=4";
const GRUB: &str = "blksize=1024 tsize=0";
const IPXE: &str = "blksize=1432 tsize=0";

/// A captured read: file, options, and what the client says to the transfer's port while the
/// capture lasts (`0` is ACK 0, `E8` is ERROR 8).
type Row<'a> = (&'a str, &'a str, &'a str);

const UNDIONLY_2019: &[Row<'_>] = &[("undionly-2019.kpxe", IPXE, "0 1 2")];
const UNDIONLY_HEAD: &[Row<'_>] = &[("undionly-head.kpxe", IPXE, "0 1 2")];
/// Of these captures only port 69 was kept.
const IPXE_EFI: &[Row<'_>] = &[("ipxe.efi", SIZE, ""), ("ipxe.efi", UEFI, "")];

/// The reads of every capture that has some, as tcpdump shows them.
const CAPTURES: [(&str, &[Row<'_>]); 18] = [
    ("b-legacyrom-e1000-undionly2019", UNDIONLY_2019),
    ("b-legacyrom-e1000-undionly2025", &[("undionly-2025.kpxe", IPXE, "0 1 2")]),
    ("b-legacyrom-e1000-undionlyHEAD", UNDIONLY_HEAD),
    ("b-legacyrom-rtl8139-undionly2019", UNDIONLY_2019),
    ("b-legacyrom-virtio-undionly2019", UNDIONLY_2019),
    ("c-ovmf-virtio-ipxe2019", &[("ipxe-2019.efi", SIZE, "E8"), ("ipxe-2019.efi", UEFI, "0 1 2")]),
    (
        "c-ovmf-virtio-snponly2019",
        &[("snponly-2019.efi", SIZE, "E8"), ("snponly-2019.efi", UEFI, "0 1 2")],
    ),
    (
        "c-ovmf-virtio-snponly2025",
        &[
            ("snponly-2025.efi", SIZE, "E8"),
            ("snponly-2025.efi", UEFI, "0 1 2"),
            ("autoexec.ipxe", IPXE, ""),
        ],
    ),
    (
        "e-ovmf-sb-shim-grub-tftp",
        &[
            ("sb/bootx64.efi", SIZE, "E8"),
            ("sb/bootx64.efi", UEFI, "0 1 2"),
            ("revocations_sku.efi", SHIM, ""),
            ("revocations_sbat.efi", SHIM, ""),
            ("shim_certificate_0.efi", SHIM, ""),
            ("grubx64.efi", SHIM, ""),
            ("grubx64.efi", SHIM, ""),
        ],
    ),
    (
        "e-ovmf-sb-shim-grub-tftp3",
        &[
            ("sb/bootx64.efi", SIZE, "E8"),
            ("sb/bootx64.efi", UEFI, "0 1 2"),
            ("revocations_sku.efi", SHIM, ""),
            ("revocations_sbat.efi", SHIM, ""),
            ("shim_certificate_0.efi", SHIM, ""),
            ("grubx64.efi", SHIM, "0 1 2"),
            ("/grub/x86_64-efi/command.lst", GRUB, ""),
            ("/grub/x86_64-efi/fs.lst", GRUB, ""),
            ("/grub/x86_64-efi/crypto.lst", GRUB, ""),
            ("/grub/x86_64-efi/terminal.lst", GRUB, ""),
            ("/grub/grub.cfg", GRUB, "0 1"),
            ("/vmlinuz", GRUB, "0 1 2"),
            ("/tiny.img", GRUB, "0 1 2"),
        ],
    ),
    ("el-bios-legacy-e1000-ide", &[UNDIONLY_HEAD[0], UNDIONLY_HEAD[0]]),
    ("proto-A1", IPXE_EFI),
    ("proto-A2", IPXE_EFI),
    ("proto-B2", IPXE_EFI),
    ("proto-B3", IPXE_EFI),
    ("proto-B4", IPXE_EFI),
    ("proto-E1", &[("snponly.efi", SIZE, ""), ("snponly.efi", UEFI, "")]),
    (
        "proto-S1",
        &[
            ("sb/shimx64.efi", SIZE, ""),
            ("sb/shimx64.efi", UEFI, ""),
            ("sb/revocations_sku.efi", SHIM, ""),
            ("sb/revocations_sbat.efi", SHIM, ""),
            ("sb/shim_certificate_0.efi", SHIM, ""),
            ("sb/grubx64.efi", SHIM, ""),
            ("/grub/x86_64-efi/command.lst", GRUB, ""),
            ("/grub/x86_64-efi/fs.lst", GRUB, ""),
            ("/grub/x86_64-efi/crypto.lst", GRUB, ""),
            ("/grub/x86_64-efi/terminal.lst", GRUB, ""),
            ("/grub/grub.cfg", GRUB, ""),
        ],
    ),
];
const READS: usize = 57;

/// The size of Debian's snponly.efi.
const LEN: usize = 137_392;

/// `no such file`, at once.
const NOT_FOUND: &[u8] = b"\0\x05\0\x01no such file\0";

/// A TFTP read request: file name, and options as `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) name: String,
    pub(crate) options: String,
}

impl Read {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let fields = bytes.strip_prefix(&[0, 1]).unwrap().strip_suffix(&[0]).unwrap();
        let fields: Vec<_> = std::str::from_utf8(fields).unwrap().split('\0').collect();
        assert_eq!(fields[1], "octet");
        let options: Vec<_> = fields[2..].chunks(2).map(|pair| pair.join("=")).collect();
        Self { name: fields[0].to_owned(), options: options.join(" ") }
    }
}

/// The request for another file, the rest byte for byte.
pub(crate) fn renamed(request: &[u8], name: &[u8]) -> Vec<u8> {
    let end = 2 + request[2..].iter().position(|byte| *byte == 0).unwrap();
    [&request[..2], name, &request[end..]].concat()
}

/// A captured read request and what its client said next.
pub(crate) struct Asked {
    /// For messages of failed tests.
    place: String,
    pub(crate) read: Read,
    pub(crate) bytes: Vec<u8>,
    pub(crate) from: SocketAddrV4,
    pub(crate) at: Duration,
    replies: Vec<(Duration, Vec<u8>)>,
}

/// The reads of a capture's client.
pub(crate) fn reads(capture: &Capture) -> Vec<Asked> {
    let is_request =
        |packet: &&Packet| packet.transport == Transport::Udp && packet.to.port() == 69;
    let requests = capture.packets.iter().filter(is_request).enumerate();
    let reads: Vec<_> = requests
        .map(|(index, packet)| Asked {
            place: format!("{}, read {}", capture.name, index + 1),
            read: Read::parse(&packet.payload),
            bytes: packet.payload.clone(),
            from: packet.from,
            at: packet.at,
            replies: replies(capture, packet.from),
        })
        .collect();
    let said: Vec<_> = reads.iter().map(said).collect();
    let told: Vec<Row<'_>> = reads
        .iter()
        .zip(&said)
        .map(|(asked, said)| (asked.read.name.as_str(), asked.read.options.as_str(), said.as_str()))
        .collect();
    let known = CAPTURES.iter().find(|(name, _)| *name == capture.name);
    let rows = known.map_or(&[][..], |(_, rows)| rows);
    assert_eq!(told, rows, "{}", capture.name);
    reads
}

/// A client takes a new port for each transfer.
fn replies(capture: &Capture, client: SocketAddrV4) -> Vec<(Duration, Vec<u8>)> {
    let is_reply = |packet: &&Packet| packet.from == client && packet.to.port() != 69;
    let replies = capture.packets.iter().filter(is_reply);
    replies.map(|packet| (packet.at, packet.payload.clone())).collect()
}

fn said(asked: &Asked) -> String {
    let word = |(_, bytes): &(Duration, Vec<u8>)| match bytes[..4] {
        [0, 4, high, low] => u16::from_be_bytes([high, low]).to_string(),
        [0, 5, 0, code] => format!("E{code}"),
        _ => panic!("{bytes:?}"),
    };
    asked.replies.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn all() -> Vec<Asked> {
    pcap::captures().iter().flat_map(reads).collect()
}

/// Bytes that differ from block to block.
fn content(len: usize) -> Bytes {
    static WHOLE: LazyLock<Bytes> = LazyLock::new(|| {
        let mut random = Random(1);
        (0..LEN).map(|_| random.below(255)).collect()
    });
    WHOLE.slice(..len)
}

/// A server, and how long the loaders are that it finds.
pub(crate) struct Shelf {
    server: Server,
    len: usize,
}

impl Deref for Shelf {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Shelf {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

impl Shelf {
    /// What comes to port 69, with loaders at hand.
    pub(crate) fn request(&mut self, bytes: &[u8], from: SocketAddrV4, at: Duration) -> Step {
        let step = self.server.handle_request(bytes, from, at);
        let Step::Find(wanted) = step else { return step };
        if wanted.name.parse::<Loader>().is_err() {
            return wanted.refuse();
        }
        self.server.open(wanted, Arc::new(content(self.len)), at)
    }
}

/// A server of loaders of this size.
pub(crate) fn server(len: usize) -> Shelf {
    Shelf { server: Server::default(), len }
}

fn start(server: &mut Shelf, bytes: &[u8], from: SocketAddrV4, at: Duration) -> TransferId {
    let step = server.request(bytes, from, at);
    let Step::Start { id, ended } = step else { panic!("{step:?}") };
    assert_eq!(ended, []);
    id
}

fn drain(server: &mut Server, id: TransferId) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| server.poll_transmit(id)).collect()
}

/// Every option the captured clients ask for is granted, in their order and spelling.
fn oack(read: &Read, len: usize) -> Vec<u8> {
    let granted = read.options.replace("tsize=0", &format!("tsize={len}"));
    let fields: String = granted.replace(['=', ' '], "\0");
    [&[0, 6], fields.as_bytes(), &[0]].concat()
}

fn number(read: &Read, name: &str, otherwise: usize) -> usize {
    let mut options = read.options.split(' ').filter_map(|option| option.split_once('='));
    options.find(|(it, _)| *it == name).map_or(otherwise, |(_, value)| value.parse().unwrap())
}

/// A client that reads to the end and takes blocks only in their turn.
struct Client {
    blksize: usize,
    windowsize: usize,
    got: Vec<u8>,
    blocks: u16,
    is_done: bool,
}

impl Client {
    fn new(read: &Read) -> Self {
        let (blksize, windowsize) = (number(read, "blksize", 512), number(read, "windowsize", 1));
        Self { blksize, windowsize, got: vec![], blocks: 0, is_done: false }
    }

    /// Takes what came in one go and acknowledges what it has.
    fn take(&mut self, packets: &[Vec<u8>]) -> Vec<u8> {
        for packet in packets {
            let (head, block) = packet.split_at(4);
            let next = [[0, 3], (self.blocks + 1).to_be_bytes()].concat();
            if !self.is_done && head == next {
                assert!(block.len() <= self.blksize);
                self.got.extend(block);
                self.blocks += 1;
                self.is_done = block.len() < self.blksize;
            }
        }
        ack(self.blocks)
    }
}

fn ack(block: u16) -> Vec<u8> {
    [[0, 4], block.to_be_bytes()].concat()
}

/// Reads to the end over a wire that loses nothing: no packet is sent twice or out of the window.
fn fetch(server: &mut Server, id: TransferId, read: &Read, len: usize) -> Vec<u8> {
    let (mut client, now) = (Client::new(read), Duration::ZERO);
    if !read.options.is_empty() {
        assert_eq!(drain(server, id), [oack(read, len)]);
        server.handle_packet(id, &ack(0), now);
    }
    while !client.is_done {
        let (packets, before) = (drain(server, id), client.blocks);
        let ack = client.take(&packets);
        assert_eq!(usize::from(client.blocks - before), packets.len());
        assert!(packets.len() == client.windowsize || client.is_done && !packets.is_empty());
        server.handle_packet(id, &ack, now);
    }
    assert_eq!((server.poll_transmit(id), server.poll_timeout(id)), (None, None));
    client.got
}

/// Reads a whole loader by that request and forgets the transfer.
pub(crate) fn fetch_whole(bytes: &[u8], from: SocketAddrV4, loader: Loader, len: usize) {
    let mut server = server(len);
    let id = start(&mut server, bytes, from, Duration::ZERO);
    assert_eq!(fetch(&mut server, id, &Read::parse(bytes), len), content(len));
    let (bytes, outcome) = (len as u64, Outcome::Delivered);
    let name = loader.file_name().to_owned();
    assert_eq!(server.finish(id), Some(Finished { peer: from, name, bytes, outcome }));
    assert!(server.is_empty());
}

#[test]
fn every_read_request_is_there() {
    let captures = pcap::captures();
    let with_reads = captures.iter().filter(|capture| !reads(capture).is_empty());
    let names: Vec<_> = with_reads.map(|capture| capture.name.as_str()).collect();
    assert_eq!(names, CAPTURES.map(|(name, _)| name));
    assert_eq!(all().len(), READS);
}

#[test]
fn what_a_machine_asks_for_is_agreed_to_when_it_is_ours_and_refused_at_once_when_not() {
    let (mut granted, mut refused) = (0, 0);
    for asked in all() {
        let mut server = server(LEN);
        let step = server.request(&asked.bytes, asked.from, asked.at);
        if asked.read.name.parse::<Loader>().is_ok() {
            let Step::Start { id, ended } = step else { panic!("{step:?}") };
            assert_eq!(ended, []);
            assert_eq!(drain(&mut server, id), [oack(&asked.read, LEN)], "{}", asked.place);
            granted += 1;
        } else {
            let name = asked.read.name.trim_start_matches('/').to_owned();
            assert_eq!(step, Step::Refuse { bytes: NOT_FOUND.to_vec(), name }, "{}", asked.place);
            assert!(server.is_empty());
            refused += 1;
        }
    }
    assert_eq!((granted, refused), (12, 45));
}

#[test]
fn every_machine_reads_a_loader_of_ours_to_its_last_byte() {
    let mut transfers = 0;
    for asked in all() {
        let undionly = renamed(&asked.bytes, b"undionly.kpxe");
        fetch_whole(&undionly, asked.from, Loader::Undionly, 74_213);
        let snponly = renamed(&asked.bytes, b"snponly.efi");
        let full_blocks = number(&asked.read, "blksize", 512) * 8;
        for len in [LEN, full_blocks, 1, 0] {
            fetch_whole(&snponly, asked.from, Loader::SnponlyX64, len);
        }
        transfers += 5;
    }
    assert_eq!(transfers, 5 * READS);
}

#[test]
fn the_name_is_understood_however_it_is_written() {
    let names: [&[u8]; 7] = [
        b"/snponly.efi",
        b"//snponly.efi",
        b"./snponly.efi",
        b"\\snponly.efi",
        b".\\SNPONLY.EFI",
        b"snponly.efi\xff",
        b"snponly.efi \xff\xff",
    ];
    for asked in all() {
        for name in names {
            let mut server = server(LEN);
            let id = start(&mut server, &renamed(&asked.bytes, name), asked.from, asked.at);
            assert_eq!(drain(&mut server, id), [oack(&asked.read, LEN)], "{}", asked.place);
        }
    }
}

#[test]
fn a_request_without_its_options_is_answered_with_the_first_block() {
    for asked in all() {
        let request = renamed(&asked.bytes, b"snponly.efi");
        let request = request[..b"\0\x01snponly.efi\0octet\0".len()].to_vec();
        let mut server = server(LEN);
        let id = start(&mut server, &request, asked.from, asked.at);
        let first = server.poll_transmit(id).unwrap();
        assert_eq!((&first[..4], first.len()), (&[0, 3, 0, 1][..], 516));
        fetch_whole(&request, asked.from, Loader::SnponlyX64, LEN);
    }
}

#[test]
fn a_machine_that_asks_for_too_much_gets_what_fits() {
    for asked in all() {
        let (mut greedy, mut modest) = (asked.read.clone(), asked.read.clone());
        for (name, most, granted) in [("blksize", 65_464, 1468), ("windowsize", 65_535, 64)] {
            let old = format!("{name}={}", number(&asked.read, name, 0));
            greedy.options = greedy.options.replace(&old, &format!("{name}={most}"));
            modest.options = modest.options.replace(&old, &format!("{name}={granted}"));
        }
        let head: &[u8] = b"\0\x01snponly.efi\0octet\0";
        let request = [head, &oack(&greedy, 0)[2..]].concat();
        let mut server = server(LEN);
        let id = start(&mut server, &request, asked.from, asked.at);
        assert_eq!(drain(&mut server, id), [oack(&modest, LEN)], "{}", asked.place);
    }
}

#[test]
fn what_a_machine_said_next_in_its_capture_is_understood() {
    let (mut acks, mut aborts) = (0, 0);
    for asked in all() {
        let (mut server, mut next) = (server(LEN), 1..);
        let request = renamed(&asked.bytes, b"snponly.efi");
        let id = start(&mut server, &request, asked.from, asked.at);
        assert_eq!(drain(&mut server, id), [oack(&asked.read, LEN)]);
        let window = number(&asked.read, "windowsize", 1);
        for (at, reply) in &asked.replies {
            assert!(server.poll_timeout(id) > Some(*at), "it answers before we send again");
            server.handle_packet(id, reply, *at);
            let sent = drain(&mut server, id);
            if reply[1] == 5 {
                assert_eq!((sent, server.poll_timeout(id)), (vec![], None), "{}", asked.place);
                let outcome = server.finish(id).map(|finished| finished.outcome);
                assert_eq!(outcome, Some(Outcome::Aborted { code: 8 }));
                aborts += 1;
                continue;
            }
            // Theirs sent one block at a time, whatever the window; ours goes back to the next.
            let first: u16 = next.next().unwrap();
            let blocks: Vec<_> = sent.iter().map(|data| data[2..4].to_vec()).collect();
            let due = (first..).take(window).map(|block| block.to_be_bytes().to_vec());
            assert_eq!(blocks, due.collect::<Vec<_>>(), "{}", asked.place);
            acks += 1;
        }
    }
    assert_eq!((acks, aborts), (47, 5));
}

#[test]
fn a_machine_that_falls_silent_is_given_up_within_a_minute() {
    for asked in all() {
        let mut server = server(LEN);
        let request = renamed(&asked.bytes, b"snponly.efi");
        let id = start(&mut server, &request, asked.from, asked.at);
        let (mut sent, mut last) = (drain(&mut server, id).len(), asked.at);
        for (at, reply) in asked.replies.iter().filter(|(_, reply)| reply[1] == 4) {
            server.handle_packet(id, reply, *at);
            sent += drain(&mut server, id).len();
            last = *at;
        }
        while let Some(due) = server.poll_timeout(id) {
            server.handle_timeout(id, due);
            sent += drain(&mut server, id).len();
            assert!(due - last < Duration::from_secs(60) && sent < 60, "{}", asked.place);
        }
        assert_eq!(server.finish(id).map(|it| it.outcome), Some(Outcome::Abandoned));
    }
}

#[test]
fn a_machine_that_asks_for_the_size_reads_from_its_next_port_or_the_same_one() {
    let all = all();
    let probes = all.windows(2).filter(|pair| pair[0].read.options == SIZE);
    let mut fetched = 0;
    for pair in probes {
        let [probe, fetch] = pair else { unreachable!() };
        assert_eq!(fetch.from.port(), probe.from.port() + 1, "{}", fetch.place);
        for is_heard in [true, false] {
            for from in [fetch.from, probe.from] {
                let mut server = server(LEN);
                let name = b"snponly.efi";
                let first = start(&mut server, &renamed(&probe.bytes, name), probe.from, probe.at);
                if is_heard {
                    server.handle_packet(
                        first,
                        b"\0\x05\0\x08User aborted the transfer\0",
                        probe.at,
                    );
                    assert!(server.finish(first).is_some());
                }
                let step = server.request(&renamed(&fetch.bytes, name), from, fetch.at);
                let Step::Start { id, ended } = step else { panic!("{step:?}") };
                let is_replaced = !is_heard && from == probe.from;
                assert_eq!(ended, if is_replaced { vec![first] } else { vec![] });
                assert_eq!(self::fetch(&mut server, id, &fetch.read, LEN), content(LEN));
                fetched += 1;
            }
        }
    }
    assert_eq!(fetched, 12 * 4);
}

#[test]
fn a_request_that_comes_again_at_once_has_one_transfer() {
    for asked in all() {
        let mut server = server(LEN);
        let request = renamed(&asked.bytes, b"undionly.kpxe");
        let id = start(&mut server, &request, asked.from, asked.at);
        let first = drain(&mut server, id);
        let soon = asked.at + Duration::from_millis(999);
        assert_eq!(server.request(&request, asked.from, soon), Step::Again(id));
        assert_eq!(drain(&mut server, id), first);
        assert_eq!(server.len(), 1);
    }
}

#[test]
fn a_wire_that_loses_packets_delays_a_loader_and_does_not_change_it() {
    for options in [SIZE, UEFI, SHIM, GRUB, IPXE] {
        for seed in 0..20 {
            let asked = all().into_iter().find(|asked| asked.read.options == options).unwrap();
            let (mut server, mut random) = (server(40_000), Random(seed));
            let request = renamed(&asked.bytes, b"snponly.efi");
            let id = start(&mut server, &request, asked.from, Duration::ZERO);
            let (mut client, mut now) = (Client::new(&asked.read), Duration::ZERO);
            while let Some(due) = server.poll_timeout(id) {
                let mut packets = drain(&mut server, id);
                packets.retain(|_| random.below(10) > 0);
                if packets.is_empty() {
                    now = due;
                    server.handle_timeout(id, now);
                    continue;
                }
                let ack = client.take(&packets);
                if random.below(10) > 0 {
                    server.handle_packet(id, &ack, now);
                }
            }
            assert_eq!(client.got, content(40_000), "{options}, seed {seed}");
            assert_eq!(server.finish(id).map(|it| it.outcome), Some(Outcome::Delivered));
        }
    }
}

#[test]
fn no_spoilt_packet_breaks_the_server_or_a_transfer() {
    let mut starts = 0;
    for asked in all() {
        let (request, mut server) = (renamed(&asked.bytes, b"snponly.efi"), server(4000));
        for bytes in spoilt(&request, 8).chain(spoilt(&asked.bytes, 8)) {
            match server.request(&bytes, asked.from, asked.at) {
                Step::Start { id, ended } => {
                    let first = server.poll_transmit(id).unwrap();
                    assert!(first.starts_with(&[0, 6]) || first.starts_with(&[0, 3, 0, 1]));
                    assert!(ended.into_iter().all(|id| server.finish(id).is_some()));
                    starts += 1;
                }
                Step::Refuse { bytes, .. } => assert_eq!(bytes[..3], [0, 5, 0]),
                Step::Find(_) | Step::Again(_) | Step::Drop(_) => {}
            }
            assert!(server.len() <= 1);
        }
        for reply in asked.replies.iter().flat_map(|(_, reply)| spoilt(reply, 8)) {
            let mut server = self::server(4000);
            let id = start(&mut server, &request, asked.from, asked.at);
            server.handle_packet(id, &reply, asked.at);
            assert!(drain(&mut server, id).len() <= number(&asked.read, "windowsize", 1));
        }
    }
    assert!(starts > 10_000, "{starts}: most changes are harmless");
}
