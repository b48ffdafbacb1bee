//! Addresses: what clients of today get, and that a machine nobody knows gets silence.

use std::net::UdpSocket;

use crate::lab::process::{DEADLINE, Process};
use crate::lab::wire::{Sniffer, discover};
use crate::lab::{ETH1, Lab, MASTER, NODE1, NODE2, STRANGER, lab, octets, status, undisturbed};

const EVERYBODY: [u8; 6] = [255; 6];
/// What makes udhcpc a boot program.
const PXE: [&str; 4] = ["-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000"];

/// What a node is told.
fn lease(ip: &str, name: &str) -> String {
    format!("GOT ip={ip} router={MASTER} dns={MASTER} domain=cluster.lan host={name} lease=86400")
}

/// What a machine that is not in the cluster is told.
fn is_lent(said: &str) -> bool {
    said.contains("GOT ip=192.168.10.2") && said.contains("host= ")
}

/// The card that the server's first answer on this wire was sent to.
fn answered_at(sniffer: &Sniffer) -> [u8; 6] {
    sniffer.wait_for("answer", |frame| frame.from == ETH1 && frame.src.port() == 67).to
}

fn ended(client: &Process) {
    assert_eq!(client.wait().code, Some(0));
}

#[test]
fn a_node_gets_its_address_and_all_that_belongs_to_it_by_udhcpc() {
    let lab = lab!();
    let _server = lab.serve();
    for (flag, to) in [(None, octets(NODE1.0)), (Some("-B"), EVERYBODY)] {
        let client = lab.client(NODE1.0);
        let sniffer = Sniffer::on(&client);
        let words: Vec<_> = ["-q", "-t", "80"].into_iter().chain(flag).collect();
        let udhcpc = lab.udhcpc(&client, &words);
        udhcpc.wait_for(&lease(NODE1.1, "worker1"));
        ended(&udhcpc);
        assert_eq!(answered_at(&sniffer), to, "{flag:?}");
    }
}

#[test]
fn a_node_gets_its_address_and_all_that_belongs_to_it_by_dhclient() {
    let lab = lab!();
    let _server = lab.serve();
    let client = lab.client(NODE2.0);
    let sniffer = Sniffer::on(&client);
    let dhclient = lab.dhclient(&client);
    dhclient.wait_for(&lease(NODE2.1, "worker2"));
    assert_eq!(answered_at(&sniffer), octets(NODE2.0));
    dhclient.wait_for("bound to");
    drop(dhclient);
    // It has a lease now and asks for that at once, as after a reboot.
    let said = lab.dhclient(&client).wait_for(&lease(NODE2.1, "worker2"));
    assert!(!said.contains("DHCPDISCOVER"), "{said}");
}

#[test]
fn a_lease_is_renewed_from_address_to_address() {
    let lab = lab!();
    let _server = lab.serve();
    let client = lab.client(NODE1.0);
    let udhcpc = lab.udhcpc(&client, &["-t", "80"]);
    udhcpc.wait_for("GOT");
    let sniffer = Sniffer::on(&client);
    udhcpc.signal("USR1");
    udhcpc.wait_for_times(&lease(NODE1.1, "worker1"), 2);
    let asked = sniffer.wait_for("request", |frame| frame.dst.port() == 67);
    assert_eq!((asked.src.ip().to_string(), asked.to), (NODE1.1.to_owned(), ETH1));
    let told = sniffer.wait_for("answer", |frame| frame.src.port() == 67);
    assert_eq!((told.dst.ip().to_string(), told.to), (NODE1.1.to_owned(), octets(NODE1.0)));
}

#[test]
fn an_unknown_machine_that_boots_is_lent_an_address_until_it_becomes_a_node() {
    let lab = lab!();
    let server = lab.serve();
    let client = lab.client(STRANGER);
    let udhcpc = lab.udhcpc(&client, &[&["-t", "80"], &PXE[..]].concat());
    let said = udhcpc.wait_until("address of the pool", is_lent);
    assert!(!said.contains("ip=192.168.10.201 "), "one of the pool, {said}");
    server.wait_for("an unknown machine asks to boot");
    assert!(lab.rekindle(&["machines", "--json"]).contains(STRANGER));
    lab.rekindle(&["node", "add", "--mac", STRANGER]);
    server.wait_for("read anew");
    // Its old address is refused, so it asks for a new one by itself.
    udhcpc.signal("USR1");
    udhcpc.wait_for(&lease("192.168.10.12", "worker3"));
    assert!(!lab.rekindle(&["machines", "--json"]).contains(STRANGER));
}

#[test]
fn an_unknown_machine_that_does_not_boot_meets_silence_until_it_becomes_a_node() {
    let lab = lab!();
    let server = lab.serve();
    let client = lab.client(STRANGER);
    let sniffer = Sniffer::on(&client);
    let udhcpc = lab.udhcpc(&client, &["-t", "80"]);
    udhcpc.wait_for_times("broadcasting discover", 2);
    server.wait_for("its MAC is not in the cluster");
    assert!(sniffer.frames().iter().all(|frame| frame.src.port() != 67), "silence");
    assert!(!lab.rekindle(&["machines", "--json"]).contains(STRANGER));
    lab.rekindle(&["node", "add", "--mac", STRANGER, "--ip", "192.168.10.77", "n77"]);
    // The very same run of the client, and of the server.
    udhcpc.wait_for(&lease("192.168.10.77", "n77"));
    assert!(server.is_running());
}

// RFC 2131 section 4.1, RFC 3046 section 2.2; Linux' own relays and switches do it this way.
#[test]
fn a_relay_is_answered_at_its_own_port_with_its_own_option() {
    let lab = lab!();
    let _server = lab.serve();
    let relay = lab.client_at((STRANGER, "192.168.10.2"));
    let mut request = discover(octets(NODE1.0));
    request[24..28].copy_from_slice(&[192, 168, 10, 2]);
    let end = request.iter().rposition(|byte| *byte == 255).expect("an end");
    request[end..end + 6].copy_from_slice(&[82, 3, 1, 1, 7, 255]);
    let answer = relay.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:67").expect("socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        socket.send_to(&request, (MASTER, 67)).expect("sent");
        let mut buffer = [0; 1500];
        let (len, from) = undisturbed(|| socket.recv_from(&mut buffer)).expect("an answer");
        assert_eq!(from.port(), 67);
        buffer[..len].to_vec()
    });
    assert_eq!(answer[16..20], [192, 168, 10, 10], "the node's own address");
    let end = answer.iter().rposition(|byte| *byte == 255).expect("an end");
    assert_eq!(answer[end - 5..end], [82, 3, 1, 1, 7]);
}

#[test]
fn a_cable_that_was_out_and_an_address_that_was_away_stop_nothing() {
    let lab = lab!();
    let server = lab.serve();
    let client = lab.client(NODE1.0);
    let boots = |lab: &Lab| ended(&lab.udhcpc(&client, &["-q", "-t", "80"]));
    boots(&lab);
    lab.master.ip("link set dev eth1 down");
    let meanwhile = lab.udhcpc(&client, &["-t", "80"]);
    meanwhile.wait_for_times("broadcasting discover", 2);
    lab.master.ip("link set dev eth1 up");
    meanwhile.wait_for("GOT");
    boots(&lab);
    lab.master.ip("addr flush dev eth1");
    lab.master.ip(&format!("addr add {MASTER}/24 dev eth1"));
    boots(&lab);
    let url = format!("http://{MASTER}/tree/el9/.treeinfo");
    assert_eq!(status(&client, &[&url]), "200");
    assert!(server.is_running());
}

#[test]
fn an_address_that_somebody_uses_is_not_lent() {
    let lab = lab!();
    let range =
        |text: &str| text.replace("192.168.10.200-192.168.10.240", "192.168.10.200-192.168.10.201");
    lab.write_config(range(&lab.config()));
    // Given to it by hand, and this machine would be the next to get it.
    let (printer, next) = ("52:54:00:aa:bb:55", "52:54:00:aa:bb:98");
    let _printer = lab.client_at((printer, "192.168.10.200"));
    let server = lab.serve_alone();
    let client = lab.client(next);
    let udhcpc = lab.udhcpc(&client, &[&["-q", "-t", "80"], &PXE[..]].concat());
    udhcpc.wait_for("GOT ip=192.168.10.201 ");
    ended(&udhcpc);
    server.wait_for(&format!("{printer} uses 192.168.10.200"));
}
