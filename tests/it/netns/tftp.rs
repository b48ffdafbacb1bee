//! Loaders by TFTP, fetched with three clients that do it differently.

use std::net::UdpSocket;
use std::path::Path;

use crate::lab::process::{DEADLINE, run};
use crate::lab::wire::rrq;
use crate::lab::{MASTER, NODE1, NODE2, at_once, big_file, curl, lab, undisturbed};

const LOADER: &str = "undionly.kpxe";

fn loader() -> Vec<u8> {
    std::fs::read(Path::new("/usr/lib/ipxe").join(LOADER)).expect("loader")
}

fn url(name: &str) -> String {
    format!("tftp://{MASTER}/{name}")
}

#[test]
fn curl_and_tftp_hpa_and_busybox_fetch_a_loader_whole() {
    let lab = lab!();
    let server = lab.serve();
    let client = lab.client_at(NODE1);
    for words in [&[][..], &["--tftp-blksize", "1428"], &["--tftp-blksize", "65464"]] {
        let fetched = curl(&client, &[words, &[&url(LOADER)]].concat()).ok();
        assert!(fetched == loader(), "{words:?}");
    }
    let without_options = curl(&client, &["--tftp-no-options", &url("snponly.efi")]).ok();
    assert!(without_options == std::fs::read("/usr/lib/ipxe/snponly.efi").expect("loader"));

    let file = lab.path("fetched");
    let path = file.to_str().expect("path");
    run(client.command("tftp").args(["-m", "octet", MASTER, "-c", "get", LOADER, path])).ok();
    assert!(std::fs::read(&file).expect("fetched") == loader(), "tftp-hpa");

    for size in ["512", "1468", "65464"] {
        let words = ["tftp", "-g", "-b", size, "-r", LOADER, "-l", path, MASTER];
        run(client.command("busybox").args(words)).ok();
        assert!(std::fs::read(&file).expect("fetched") == loader(), "busybox, {size}");
    }
    // A node's fetch is part of its story.
    server.wait_for("outcome=Delivered");
    let story = lab.rekindle(&["log", "worker1"]);
    assert!(story.contains("took undionly.kpxe"), "{story}");
}

// What shim 16.1 and GRUB 2.06 look for besides: tests/captures/proto-S1.pcap.
#[test]
fn what_is_no_loader_is_refused_at_once() {
    let lab = lab!();
    let server = lab.serve();
    let client = lab.client_at(NODE1);
    // 68: not found; 69: no permission; the client waits for neither.
    let missing = curl(&client, &[&url("pxelinux.cfg/default")]);
    assert_eq!((missing.code, missing.out.len()), (Some(68), 0), "{}", missing.err);
    let file = lab.path("upload");
    std::fs::write(&file, "mine").expect("file");
    let written = curl(&client, &["-T", file.to_str().expect("path"), &url(LOADER)]);
    assert_eq!(written.code, Some(69), "{}", written.err);

    let answer_to = |request: Vec<u8>| {
        client.enter(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("socket");
            socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
            socket.send_to(&request, (MASTER, 69)).expect("sent");
            let mut buffer = [0; 600];
            let (len, _) = undisturbed(|| socket.recv_from(&mut buffer)).expect("answer");
            buffer[..len].to_vec()
        })
    };
    for name in ["../etc/passwd", "/../../etc/passwd", "..\\undionly.kpxe", "x/../undionly.kpxe"] {
        assert_eq!(answer_to(rrq(name))[..4], [0, 5, 0, 2], "{name}");
    }
    for name in ["etc/passwd", "/etc/passwd", "undionly.kpxe.bak", "%2e%2e/etc/passwd"] {
        assert_eq!(answer_to(rrq(name))[..4], [0, 5, 0, 1], "{name}");
    }
    // As shim, GRUB and old ROMs spell it.
    for name in ["/undionly.kpxe", "\\undionly.kpxe", "//undionly.kpxe", "undionly.kpxe\u{ff}"] {
        assert_eq!(answer_to(rrq(name))[..4], [0, 3, 0, 1], "{name}");
    }
    answer_to(rrq("\u{1b}[2J\ninfo forged"));
    let said = server.wait_for("info forged");
    assert!(said.chars().all(|letter| !letter.is_control() || letter == '\n'), "{said:?}");
    assert!(!said.lines().any(|line| line.starts_with("info forged")), "{said:?}");
}

// "Stuck at 89 KB": ipxe/ipxe#288. dnsmasq, too, lets the wire cut its packets (IP_PMTUDISC_DONT).
#[test]
fn over_a_wire_that_takes_less_than_it_should_everything_arrives() {
    let lab = lab!();
    let _server = lab.serve();
    let client = lab.client_at(NODE1);
    // The client does not know: it asks for blocks that have to be cut.
    lab.master.ip("link set dev eth1 mtu 1000");
    let fetched = curl(&client, &["--tftp-blksize", "1468", &url(LOADER)]).ok();
    assert!(fetched == loader());
    let file = curl(&client, &["--fail", &format!("http://{MASTER}/tree/el9/images/install.img")]);
    assert!(file.ok() == big_file());
}

/// Fetches a file in windows (RFC 7440), as EDK2 and new ROMs do.
fn in_windows(name: &str, window: usize) -> Vec<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let options = format!("blksize\x001468\0windowsize\0{window}\0");
    let request = [rrq(name), options.into_bytes()].concat();
    socket.send_to(&request, (MASTER, 69)).expect("sent");
    let (mut got, mut blocks) = (vec![], 0usize);
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = undisturbed(|| socket.recv_from(&mut buffer)).expect("a packet");
        let [0, operation, high, low, data @ ..] = &buffer[..len] else { panic!("{len} bytes") };
        assert!(matches!(operation, 3 | 6), "{:?}", &buffer[..len]);
        let mut is_last = false;
        if *operation == 3 {
            // What comes twice, because an answer took long, is answered again.
            if [*high, *low] == u16::try_from(blocks + 1).expect("few").to_be_bytes() {
                got.extend_from_slice(data);
                blocks += 1;
                is_last = data.len() < 1468;
                if !is_last && blocks % window != 0 {
                    continue;
                }
            }
        }
        let number = u16::try_from(blocks).expect("few").to_be_bytes();
        socket.send_to(&[[0, 4], number].concat(), from).expect("sent");
        if is_last {
            return got;
        }
    }
}

#[test]
fn windows_arrive_whole_also_where_the_card_cannot_cut_them_up() {
    let lab = lab!();
    let server = lab.serve();
    let client = lab.client_at(NODE1);
    for window in [2, 4, 64] {
        assert!(client.enter(|| in_windows(LOADER, window)) == loader(), "{window}");
    }
    assert!(!server.text().contains("datagram by datagram"), "{}", server.text());
    // Blocks are longer than what leaves at once: the kernel does not cut these (udp(7), UDP_SEGMENT).
    lab.master.ip("link set dev eth1 mtu 1000");
    assert!(client.enter(|| in_windows(LOADER, 16)) == loader());
    server.wait_for("TFTP windows leave datagram by datagram");
}

// RFC 1350 section 4: a transfer belongs to its pair of ports. What comes from elsewhere is not even heard, as with the
// crates that were measured; an answer would tell whoever guesses that he guessed well.
#[test]
fn what_another_machine_says_to_a_transfer_moves_nothing() {
    let lab = lab!();
    let _server = lab.serve();
    let (node, other) = (lab.client_at(NODE1), lab.client_at(NODE2));
    let socket = || {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        socket
    };
    let (socket, stranger) = (node.enter(socket), other.enter(socket));
    let block = || {
        let mut buffer = [0; 600];
        let (_, from) = undisturbed(|| socket.recv_from(&mut buffer)).expect("a block");
        assert_eq!(buffer[..2], [0, 3]);
        (u16::from_be_bytes([buffer[2], buffer[3]]), from)
    };
    socket.send_to(&rrq(LOADER), (MASTER, 69)).expect("sent");
    let (first, tid) = block();
    assert_eq!(first, 1);
    for packet in [&[0, 4, 0, 1][..], b"\0\x05\0\0stop\0"] {
        stranger.send_to(packet, tid).expect("sent");
    }
    assert_eq!(block(), (1, tid), "once more, because nobody acknowledged it");
    socket.send_to(&[0, 4, 0, 1], tid).expect("sent");
    while block().0 == 1 {}
}

#[test]
fn twenty_machines_fetch_at_once_and_all_get_it_whole() {
    let lab = lab!();
    let _server = lab.serve();
    let client = lab.client(NODE2.0);
    let addresses: Vec<_> = (100..120).map(|last| format!("192.168.10.{last}")).collect();
    for address in &addresses {
        client.ip(&format!("addr add {address}/24 dev eth0"));
    }
    let whole = loader();
    at_once(&addresses, |address| {
        let fetched = curl(&client, &["--interface", address, &url(LOADER)]).ok();
        assert!(fetched == whole, "{address}");
    });
}
