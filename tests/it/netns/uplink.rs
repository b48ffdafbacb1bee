//! The outside: whoever asks there gets nothing, whatever he asks.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use crate::lab::process::{DEADLINE, Process, run};
use crate::lab::wire::{Frame, Sniffer, discover, rrq};
use crate::lab::{ETH0, INET, Lab, MASTER, NODE1, UPLINK, curl, lab, octets, status, undisturbed};

const UDP_PORTS: [u16; 3] = [67, 69, 4011];
const TCP_PORTS: [u16; 2] = [80, 5140];
const PXE: [&str; 4] = ["-V", "PXEClient:Arch:00007:UNDI:003000", "-x", "0x5d:0007"];

/// What the server's ports sent out there.
fn left(sniffer: &Sniffer) -> Vec<Frame> {
    let ours = |port: u16| UDP_PORTS.contains(&port) || TCP_PORTS.contains(&port);
    let frames = sniffer.frames().into_iter();
    frames.filter(|frame| frame.from == ETH0 && ours(frame.src.port())).collect()
}

/// Sends a datagram out there from the master and sees it pass: what was sent before has passed.
fn settle(lab: &Lab, sniffer: &Sniffer) {
    let port = lab.master.enter(|| {
        let socket = UdpSocket::bind((UPLINK, 0)).expect("socket");
        socket.send_to(b"settled", (INET, 9)).expect("sent");
        socket.local_addr().expect("bound").port()
    });
    sniffer.wait_for("own datagram", |frame| frame.src.port() == port);
}

/// Real clients that broadcast out there until they give up.
fn clients(lab: &Lab) {
    let udhcpc = lab.udhcpc(&lab.inet, &["-n", "-q", "-t", "2"]);
    let booting = lab.udhcpc(&lab.inet, &[&["-n", "-q", "-t", "2", "-B"], &PXE[..]].concat());
    let dhclient = lab.dhclient(&lab.inet);
    dhclient.wait_for_times("DHCPDISCOVER", 2);
    for client in [&udhcpc, &booting] {
        assert_eq!(client.wait().code, Some(1), "{}", client.text());
    }
    assert!(!dhclient.text().contains("DHCPOFFER"), "{}", dhclient.text());
}

/// What is sent to a UDP port out there: requests that would be answered on the private switch.
fn request(port: u16) -> Vec<u8> {
    if port == 69 { rrq("undionly.kpxe") } else { discover(octets(NODE1.0)) }
}

/// A machine on the private switch is served meanwhile.
fn served(lab: &Lab, server: &Process) {
    let node = lab.client(NODE1.0);
    assert_eq!(lab.udhcpc(&node, &["-q", "-t", "80"]).wait().code, Some(0));
    let loader = curl(&node, &[&format!("tftp://{MASTER}/undionly.kpxe")]).ok();
    assert!(loader == std::fs::read("/usr/lib/ipxe/undionly.kpxe").expect("loader"));
    assert_eq!(status(&node, &[&format!("http://{MASTER}/tree/el9/.treeinfo")]), "200");
    assert!(server.is_running());
}

/// A socket on a port that one before it had: a program that another test starts just now holds a copy
/// of that one until its `exec`.
fn bound(port: u16) -> UdpSocket {
    loop {
        match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => std::thread::yield_now(),
            socket => return socket.expect("socket"),
        }
    }
}

#[test]
fn nobody_out_there_is_answered() {
    let lab = lab!();
    let server = lab.serve_with(&["--log", "trace"]);
    let sniffer = Sniffer::on(&lab.master);
    clients(&lab);
    for address in [UPLINK, MASTER] {
        for port in UDP_PORTS {
            let refused = lab.inet.enter(|| {
                let from = if port == 69 { 0 } else { 68 };
                let socket = bound(from);
                socket.connect((address, port)).expect("address");
                socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
                socket.send(&request(port)).expect("sent");
                undisturbed(|| socket.recv(&mut [0; 1500])).map_err(|error| error.kind())
            });
            // The kernel says that there is no such port.
            assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "{address}:{port}");
        }
        for port in TCP_PORTS {
            let refused = lab.inet.enter(|| TcpStream::connect((address, port)).map(drop));
            let kind = refused.map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::ConnectionRefused), "{address}:{port}");
        }
    }
    served(&lab, &server);
    settle(&lab, &sniffer);
    // The kernel's own refusals of connections are all that left.
    let answers: Vec<_> = left(&sniffer).into_iter().filter(|frame| !frame.is_reset).collect();
    assert!(answers.is_empty(), "{answers:?}");
    let asked = |frame: &Frame| frame.dst.port() == 67 && frame.from != ETH0;
    assert!(sniffer.frames().iter().filter(|frame| asked(frame)).count() > 6, "it was asked");
    assert!(!server.text().contains(INET), "and knows of nothing: {}", server.text());
}

#[test]
fn the_server_listens_on_the_private_address_only_and_not_by_ipv6() {
    let lab = lab!();
    let server = lab.serve_alone();
    let listed = run(lab.master.command("ss").args(["-lntuwH"])).ok();
    let listed = String::from_utf8(listed).expect("text");
    let mut listens: Vec<_> = listed
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            format!("{} {}", words[0], words[4])
        })
        .collect();
    listens.sort();
    let expected = [
        "tcp 192.168.10.1%eth1:5140",
        "tcp 192.168.10.1%eth1:601",
        "tcp 192.168.10.1%eth1:80",
        "udp 0.0.0.0%eth1:4011",
        "udp 0.0.0.0%eth1:67",
        "udp 192.168.10.1%eth1:69",
    ];
    assert_eq!(listens, expected);
    let table = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{}/net/{name}", server.pid()));
        text.expect("table").lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["tcp6", "udp6", "raw", "raw6"] {
        assert_eq!(table(name), Vec::<String>::new(), "{name} has a head and nothing else");
    }
    // ARP, EtherType 0806, of one card.
    let card =
        String::from_utf8(run(lab.master.command("cat").arg("/sys/class/net/eth1/ifindex")).ok());
    let card = card.expect("text").trim().to_owned();
    let packets = table("packet");
    let words = packets.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let hears: Vec<_> = words.map(|words| (words[3], words[4])).collect();
    assert_eq!(hears, [("0806", card.as_str())]);
}

#[test]
fn behind_a_firewall_that_denies_by_default_nodes_are_served_and_the_outside_sees_nothing() {
    let lab = lab!();
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/vm-lab/master.nft");
    run(lab.master.command("nft").args(["-f", rules])).ok();
    let server = lab.serve();
    let sniffer = Sniffer::on(&lab.master);
    for address in [UPLINK, MASTER].map(|ip| ip.parse::<Ipv4Addr>().expect("address")) {
        for port in UDP_PORTS.into_iter().chain(TCP_PORTS) {
            let to = SocketAddrV4::new(address, port);
            lab.inet.enter(|| {
                if UDP_PORTS.contains(&port) {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("socket");
                    socket.send_to(&request(port), to).expect("sent");
                } else {
                    // Nothing comes back; how long that takes does not matter.
                    let wait = Duration::from_millis(1);
                    TcpStream::connect_timeout(&to.into(), wait).expect_err("no connection");
                }
            });
            sniffer.wait_for("request", |frame| frame.dst == to && frame.from != ETH0);
        }
    }
    clients(&lab);
    served(&lab, &server);
    settle(&lab, &sniffer);
    assert!(left(&sniffer).is_empty(), "{:?}", left(&sniffer));
}
