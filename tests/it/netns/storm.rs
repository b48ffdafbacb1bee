//! A room that is switched on at once. Of 250 machines a usual server's socket holds the questions of half, and the others
//! ask again seconds later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::ops::Range;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::process::DEADLINE;
use crate::lab::wire::discover;
use crate::lab::{Lab, MASTER, NODE1, STRANGER, lab};

/// More than anybody has.
const NODES: u16 = 1000;
/// A room whose owner has added nobody yet.
const STRANGERS: u16 = 250;

fn mac(number: u16) -> [u8; 6] {
    let [high, low] = number.to_be_bytes();
    [0x52, 0x54, 0, 0xaa, high, low]
}

fn node_ip(number: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 168, 0, 1)) + u32::from(number))
}

/// A cluster of so many nodes, on a private network that has room for them.
fn widen(lab: &Lab) {
    lab.master.ip(&format!("addr del {MASTER}/24 dev eth1"));
    lab.master.ip(&format!("addr add {MASTER}/20 dev eth1"));
    let text = lab.config();
    let (head, _) = text.split_once("\n[[node]]").expect("nodes");
    let head = head.replace(&format!("{MASTER}/24"), &format!("{MASTER}/20"));
    let head = head.replace("192.168.10.10-192.168.10.99", "192.168.0.1-192.168.9.254");
    let mut text = head.replace("192.168.10.200-192.168.10.240", "192.168.11.0-192.168.12.255");
    for number in 0..NODES {
        let [a, b, c, d, e, f] = mac(number);
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        text.push_str(&format!(
            "\n[[node]]\nname = \"n{number}\"\nmac = \"{mac}\"\nip = \"{}\"\n",
            node_ip(number)
        ));
    }
    lab.write_config(text);
}

/// A socket that hears every answer, however many come at once.
fn client_socket(port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("socket");
    socket.bind_device(Some(b"eth0")).expect("card");
    socket.set_broadcast(true).expect("broadcast");
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).expect("buffer");
    let any = std::net::SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    socket.bind(&any.into()).expect("port");
    socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
    socket.into()
}

/// All ask, none asks again: who is offered which address.
fn offers(
    socket: &UdpSocket,
    numbers: Range<u16>,
    relay: Option<Ipv4Addr>,
) -> BTreeMap<u16, Ipv4Addr> {
    let to = if relay.is_some() { MASTER.parse().expect("address") } else { Ipv4Addr::BROADCAST };
    for number in numbers.clone() {
        let mut request = discover(mac(number));
        request[24..28].copy_from_slice(&relay.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        socket.send_to(&request, (to, 67)).expect("sent");
    }
    let mut offered = BTreeMap::new();
    let mut buffer = [0; 1500];
    while offered.len() < numbers.len() {
        // Silence until the deadline: somebody was left out.
        let Ok(len) = socket.recv(&mut buffer) else { break };
        let offer = &buffer[..len];
        let number = u16::from_be_bytes([offer[32], offer[33]]);
        assert_eq!(offer[28..32], mac(number)[..4]);
        let address: [u8; 4] = offer[16..20].try_into().expect("an address");
        offered.insert(number, address.into());
    }
    offered
}

#[test]
fn of_so_many_machines_at_once_each_is_answered_the_first_time() {
    let lab = lab!();
    widen(&lab);
    let _server = lab.serve_alone();
    let client = lab.client(STRANGER);
    client.enter(|| {
        let socket = client_socket(68);
        let expected = |count| (0..count).map(|it| (it, node_ip(it))).collect::<BTreeMap<_, _>>();
        for count in [32, 250, NODES] {
            assert_eq!(offers(&socket, 0..count, None), expected(count), "of {count}");
        }
        // Nobody knows these: the wire is asked for each one's address first.
        let offered = offers(&socket, NODES..NODES + STRANGERS, None);
        assert_eq!(offered.len(), usize::from(STRANGERS));
        let addresses: BTreeSet<_> = offered.values().collect();
        assert_eq!(addresses.len(), offered.len(), "each has its own");
    });
    let relay = lab.client_at(NODE1);
    relay.enter(|| {
        let own = NODE1.1.parse().expect("address");
        let offered = offers(&client_socket(67), 0..NODES, Some(own));
        assert_eq!(offered.len(), usize::from(NODES), "behind a relay");
    });
}
