use std::net::Ipv4Addr;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const START: Duration = Duration::from_secs(1000);
const PROBE: &[u8] = b"\0\x01snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
const FETCH: &[u8] = b"\0\x01snponly.efi\0octet\0blksize\x001468\0windowsize\x004\0";
const ABORT: &[u8] = b"\0\x05\0\x08User aborted the transfer\0";

/// What there is.
fn content(name: &str) -> Option<Arc<dyn Content>> {
    match name {
        "undionly.kpxe" => Some(Arc::new(Bytes::from(vec![1; 70_000]))),
        "snponly.efi" => Some(Arc::new(Bytes::from(vec![2; 200_000]))),
        _ => None,
    }
}

/// What the shell does with a request.
fn request(server: &mut Server, bytes: &[u8], from: SocketAddrV4, now: Duration) -> Step {
    let step = server.handle_request(bytes, from, now);
    let Step::Find(wanted) = step else { return step };
    match content(&wanted.name) {
        Some(content) => server.open(wanted, content, now),
        None => wanted.refuse(),
    }
}

fn peer(last: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 168, 10, last), port)
}

fn start(server: &mut Server, bytes: &[u8], from: SocketAddrV4) -> TransferId {
    let step = request(server, bytes, from, START);
    let Step::Start { id, .. } = step else { panic!("{step:?}") };
    id
}

fn refused(server: &mut Server, bytes: &[u8]) -> u8 {
    let step = request(server, bytes, peer(50, 2000), START);
    let Step::Refuse { bytes, .. } = step else { panic!("{step:?}") };
    bytes[3]
}

/// Fetches to the end; returns the bytes.
fn fetch(server: &mut Server, id: TransferId) -> Vec<u8> {
    let mut got = vec![];
    while server.poll_timeout(id).is_some() {
        let mut last = 0;
        while let Some(bytes) = server.poll_transmit(id) {
            if bytes[1] == 3 {
                last = u16::from_be_bytes([bytes[2], bytes[3]]);
                got.extend(&bytes[4..]);
            }
        }
        server.handle_packet(id, &[[0, 4], last.to_be_bytes()].concat(), START);
    }
    got
}

#[test]
fn a_loader_is_delivered_whole() {
    let mut server = Server::default();
    let id = start(&mut server, FETCH, peer(50, 2000));
    assert_eq!(fetch(&mut server, id), vec![2; 200_000]);
    let (peer, name) = (peer(50, 2000), "snponly.efi".to_owned());
    let outcome = Outcome::Delivered;
    let finished = Finished { peer, name, bytes: 200_000, outcome };
    assert_eq!(server.finish(id), Some(finished));
    assert_eq!((server.finish(id), server.is_empty()), (None, true));
}

// edk2: tests/captures/c-ovmf-virtio-snponly2025.pcap; pin/tftp#125.
#[test]
fn uefi_asks_for_the_size_aborts_and_fetches_from_the_next_port_or_the_same() {
    for port in [2001, 2000] {
        let mut server = Server::default();
        let probe = start(&mut server, PROBE, peer(50, 2000));
        let oack = b"\0\x06tsize\x00200000\0blksize\x001468\0windowsize\x004\0".to_vec();
        assert_eq!(server.poll_transmit(probe), Some(oack));
        server.handle_packet(probe, ABORT, START);
        assert_eq!(server.poll_transmit(probe), None, "an ERROR is not answered");
        let id = start(&mut server, FETCH, peer(50, port));
        assert_eq!(server.finish(probe).map(|it| it.outcome), Some(Outcome::Aborted { code: 8 }));
        assert_eq!(fetch(&mut server, id).len(), 200_000);
    }
}

// RFC 1350 section 4: a transfer belongs to its pair of ports.
#[test]
fn a_request_that_comes_twice_has_one_transfer() {
    let mut server = Server::default();
    let id = start(&mut server, FETCH, peer(50, 2000));
    let oack = server.poll_transmit(id);
    let again = START + Duration::from_millis(900);
    assert_eq!(request(&mut server, FETCH, peer(50, 2000), again), Step::Again(id));
    assert_eq!(server.poll_transmit(id), oack);
    assert_eq!(server.len(), 1);
}

// ROMs take the same port again (pin/tftp#125); edk2 another one.
#[test]
fn a_later_or_different_request_from_the_same_port_starts_anew() {
    for (bytes, wait) in [(FETCH, 1000), (PROBE, 10)] {
        let mut server = Server::default();
        let old = start(&mut server, FETCH, peer(50, 2000));
        let now = START + Duration::from_millis(wait);
        let step = request(&mut server, bytes, peer(50, 2000), now);
        assert!(matches!(&step, Step::Start { ended, .. } if *ended == [old]), "{step:?}");
        assert_eq!(server.finish(old).map(|it| it.outcome), Some(Outcome::Superseded));
    }
}

#[test]
fn an_acknowledged_transfer_is_no_duplicate_any_more() {
    let mut server = Server::default();
    let old = start(&mut server, FETCH, peer(50, 2000));
    server.poll_transmit(old);
    server.handle_packet(old, &[0, 4, 0, 0], START);
    assert_ne!(start(&mut server, FETCH, peer(50, 2000)), old);
}

// iPXE looks for autoexec.ipxe (efi_autoexec.c), shim for certificates (16.1), and both wait for the answer.
#[test]
fn what_is_not_a_loader_is_refused_at_once() {
    let mut server = Server::default();
    assert_eq!(refused(&mut server, b"\0\x01autoexec.ipxe\0octet\0"), 1);
    assert_eq!(refused(&mut server, b"\0\x01sb/shim_certificate_0.efi\0octet\0"), 1);
    assert_eq!(refused(&mut server, b"\0\x01/etc/passwd\0octet\0"), 1);
    assert_eq!(refused(&mut server, b"\0\x01../../etc/passwd\0octet\0"), 2);
    assert_eq!(refused(&mut server, b"\0\x01..\\x\0octet\0"), 2);
    assert_eq!(refused(&mut server, b"\0\x02undionly.kpxe\0octet\0"), 2);
    assert_eq!(refused(&mut server, b"\0\x01undionly.kpxe\0mail\0"), 4);
    assert!(server.is_empty());
}

// dnsmasq tells the path where it looked.
// RFC 1350 section 1 and RFC 764: what is a text has two bytes at the end of a line in netascii, and its size is not told.
#[test]
fn a_text_ends_its_lines_as_its_client_wants_them() {
    for (mode, expected) in [("netascii", &b"a\r\nb\r\n"[..]), ("octet", b"a\nb\n")] {
        let request = format!("\0\x01grub.cfg\0{mode}\0");
        let step = Server::default().handle_request(request.as_bytes(), peer(50, 2000), START);
        let Step::Find(wanted) = step else { panic!("{step:?}") };
        assert_eq!(wanted.encode("a\nb\n"), expected, "{mode}");
    }
}

#[test]
fn refusals_tell_no_path_of_ours() {
    let Step::Refuse { bytes, name } =
        request(&mut Server::default(), b"\0\x01/x\0octet\0", peer(50, 1), START)
    else {
        panic!("not refused")
    };
    assert_eq!((&bytes[4..], name.as_str()), (&b"no such file\0"[..], "x"));
}

// RFC 1350 section 7: an ERROR is neither acknowledged nor sent again.
#[test]
fn strays_and_garbage_meet_silence() {
    for bytes in [&b""[..], b"\0", b"\0\x04\0\x01", b"\0\x03\0\x01x", ABORT, b"\0\x09", b"GET /"] {
        let step = request(&mut Server::default(), bytes, peer(50, 2000), START);
        assert!(matches!(step, Step::Drop(_)), "{step:?}");
    }
}

#[test]
fn a_client_has_four_transfers_and_its_oldest_gives_way() {
    let mut server = Server::default();
    let ids: Vec<_> = (0..4).map(|port| start(&mut server, FETCH, peer(50, 3000 + port))).collect();
    let step = request(&mut server, FETCH, peer(50, 4000), START);
    assert!(matches!(&step, Step::Start { ended, .. } if *ended == ids[..1]), "{step:?}");
    let step = request(&mut server, FETCH, peer(51, 4000), START);
    assert!(matches!(&step, Step::Start { ended, .. } if ended.is_empty()), "{step:?}");
}

#[test]
fn there_is_a_limit_for_all_clients_together() {
    let mut server = Server::default();
    for number in 0..=255u8 {
        let from = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, number), 2000);
        start(&mut server, FETCH, from);
    }
    let step = request(&mut server, FETCH, peer(50, 2000), START);
    assert_eq!(step, Step::Drop(Dropped::Full));
    let some = *server.transfers.keys().next().unwrap();
    server.finish(some);
    start(&mut server, FETCH, peer(50, 2000));
}

proptest! {
    #[test]
    fn any_datagrams_leave_the_server_within_its_limits(
        steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0u8..4, 0u16..4, 0u64..2000), 0..60),
    ) {
        let (mut server, mut now) = (Server::default(), START);
        for (junk, client, port, wait) in steps {
            now += Duration::from_millis(wait);
            let sound = [&b"\0\x01undionly.kpxe\0octet\0"[..], &junk].concat();
            request(&mut server, &junk, peer(client, port), now);
            if let Step::Start { ended, .. } = request(&mut server, &sound, peer(client, port), now) {
                for id in ended {
                    prop_assert!(server.finish(id).is_some());
                }
            }
            prop_assert!(server.len() <= 16);
            prop_assert!(server.by_peer.len() <= server.len());
        }
    }
}
