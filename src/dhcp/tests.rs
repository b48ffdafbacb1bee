mod proxy;
mod trials;

use dhcproto::v4::{self, DhcpOption, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder};
use proptest::prelude::*;

use super::*;
use crate::cluster::Parts;
use crate::cluster::sample::{self, mac};
use crate::machine::{Arch, Loader};
use crate::stage::Entry;

const NOW: TimestampMs = 1_800_000_000_000;
const MASTER: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 1);
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
const STRANGER: u8 = 77;

pub(super) const ROM: &[(u8, &[u8])] = &[
    (57, &[5, 192]),
    (93, &[0, 0]),
    (60, b"PXEClient:Arch:00000:UNDI:002001"),
    (55, &[1, 3, 43, 60, 66, 67]),
];
pub(super) const UEFI: &[(u8, &[u8])] = &[
    (57, &[5, 192]),
    (93, &[0, 7]),
    (97, &[0; 17]),
    (60, b"PXEClient:Arch:00007:UNDI:003000"),
    (55, &[1, 3, 43, 60, 66, 67, 97]),
];
pub(super) const HTTP: &[(u8, &[u8])] =
    &[(93, &[0, 16]), (60, b"HTTPClient:Arch:00016:UNDI:003000"), (55, &[1, 3, 60, 67])];
pub(crate) const IPXE: &[(u8, &[u8])] = &[
    (93, &[0, 0]),
    (60, b"PXEClient:Arch:00000:UNDI:002001"),
    (77, b"iPXE"),
    (55, &[1, 3, 43, 60, 66, 67, 175]),
    (175, &[0xb1, 5, 1, 0x80, 0x86, 0x10, 0x0e, 19, 1, 1]),
    (61, &[1, 0x52, 0x54, 0, 0xaa, 0xbb, 1]),
];
pub(super) const SYSTEM: &[(u8, &[u8])] = &[(60, b"udhcp 1.35.0"), (55, &[1, 3, 6, 12, 42])];

/// A request as it leaves a client: `head` options first, those of its kind behind.
pub(crate) fn packet(mac: Mac, head: &[(u8, &[u8])], kind: &[(u8, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[4..8].copy_from_slice(&[0xca, 0xfe, 0, 1]);
    bytes[28..34].copy_from_slice(&mac.octets());
    bytes[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    for (code, value) in head.iter().chain(kind) {
        bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
        bytes.extend(*value);
    }
    bytes.push(255);
    bytes
}

pub(super) fn with(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

pub(super) const FLAGS: usize = 10;
pub(super) const CIADDR: usize = 12;
pub(super) const GIADDR: usize = 24;

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 10, last)
}

/// Independent eyes on our replies.
fn decode(bytes: &[u8]) -> v4::Message {
    v4::Message::decode(&mut Decoder::new(bytes)).unwrap()
}

struct Wire {
    dhcp: Dhcp,
    site: Site,
    state: State,
    now: TimestampMs,
}

impl Wire {
    fn new() -> Self {
        Self::of(sample::parts())
    }

    fn of(parts: Parts) -> Self {
        let site = sample::site_of(Cluster::assemble(parts));
        Self { dhcp: Dhcp::default(), site, state: State::default(), now: NOW }
    }

    fn small(addresses: u8) -> Self {
        let mut parts = sample::parts();
        parts.network.discovery.last = ip(199 + addresses);
        Self::of(parts)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<Answer, Ignored> {
        self.send_to(Service::Dhcp, NOBODY, bytes)
    }

    fn send_to(
        &mut self,
        service: Service,
        from: SocketAddrV4,
        bytes: &[u8],
    ) -> Result<Answer, Ignored> {
        let datagram = Datagram { bytes, from, service };
        match self.step(datagram)? {
            Step::Answer(answer) => Ok(answer),
            Step::Try(ip) => {
                self.dhcp.tried(ip, None, self.now).unwrap();
                let Step::Answer(answer) = self.step(datagram)? else { panic!("asked twice") };
                Ok(answer)
            }
        }
    }

    fn step(&mut self, datagram: Datagram<'_>) -> Result<Step, Ignored> {
        self.dhcp.handle_packet(&self.site, &self.state, datagram, self.now)
    }

    /// A stranger asks, and nobody has looked at the wire for it.
    fn first_step(&mut self, last: u8) -> Result<Step, Ignored> {
        let bytes = packet(mac(last), &[(53, &[1])], ROM);
        self.step(Datagram { bytes: &bytes, from: NOBODY, service: Service::Dhcp })
    }

    fn discover(&mut self, last: u8, kind: &[(u8, &[u8])]) -> Result<Answer, Ignored> {
        self.send(&packet(mac(last), &[(53, &[1])], kind))
    }

    fn select(
        &mut self,
        last: u8,
        wanted: Ipv4Addr,
        kind: &[(u8, &[u8])],
    ) -> Result<Answer, Ignored> {
        let head: [(u8, &[u8]); 3] = [(53, &[3]), (54, &MASTER.octets()), (50, &wanted.octets())];
        self.send(&packet(mac(last), &head, kind))
    }

    fn init_reboot(
        &mut self,
        last: u8,
        wanted: Ipv4Addr,
        kind: &[(u8, &[u8])],
    ) -> Result<Answer, Ignored> {
        self.send(&packet(mac(last), &[(53, &[3]), (50, &wanted.octets())], kind))
    }

    fn renew(&mut self, last: u8, own: Ipv4Addr, kind: &[(u8, &[u8])]) -> Result<Answer, Ignored> {
        let bytes = with(packet(mac(last), &[(53, &[3])], kind), CIADDR, &own.octets());
        self.send_to(Service::Dhcp, SocketAddrV4::new(own, 68), &bytes)
    }

    /// A stranger that boots takes the address it is offered.
    fn lend(&mut self, last: u8) -> Ipv4Addr {
        let offer = self.discover(last, ROM).unwrap();
        let ack = self.select(last, offer.yiaddr, ROM).unwrap();
        assert_eq!((ack.kind, ack.yiaddr), (Kind::Ack, offer.yiaddr));
        ack.yiaddr
    }
}

// Broadcast: dnsmasq has `--dhcp-broadcast` for ROMs that hear nothing else. The header filled: ROMs from before option
// 67 (siderolabs/booter#12) and shim (netboot.c, parseDhcp4) read nothing else.
#[test]
fn a_nodes_rom_is_offered_its_own_address_and_a_loader() {
    let answer = Wire::new().discover(1, ROM).unwrap();
    assert_eq!(answer.kind, Kind::Offer);
    assert_eq!((answer.yiaddr, answer.boot), (ip(10), Boot::Loader(Loader::Undionly)));
    assert_eq!(answer.destination, Destination::Broadcast, "BIOS ROMs get broadcast");
    assert_eq!(answer.seen, None, "nodes are known");
    let message = decode(&answer.bytes);
    assert_eq!((message.xid(), message.siaddr()), (0xcafe_0001, MASTER));
    assert_eq!(message.fname(), Some(&b"undionly.kpxe\0"[..]));
    assert_eq!(message.sname(), Some(&b"192.168.10.1\0"[..]));
    let option = |code| message.opts().get(code).cloned();
    assert_eq!(option(OptionCode::Hostname), Some(DhcpOption::Hostname("worker1".to_owned())));
    assert_eq!(option(OptionCode::AddressLeaseTime), Some(DhcpOption::AddressLeaseTime(86400)));
    assert_eq!(
        option(OptionCode::ClassIdentifier),
        Some(DhcpOption::ClassIdentifier(b"PXEClient".to_vec()))
    );
    assert_eq!(
        option(OptionCode::VendorExtensions),
        Some(DhcpOption::VendorExtensions(vec![6, 1, 8, 255]))
    );
    assert_eq!(
        option(OptionCode::BootfileName),
        Some(DhcpOption::BootfileName(b"undionly.kpxe\0".to_vec()))
    );
}

// RFC 2131 section 4.1.
#[test]
fn uefi_gets_its_own_loader_by_unicast_unless_it_asks_for_broadcast() {
    let mut wire = Wire::new();
    let answer = wire.discover(1, UEFI).unwrap();
    assert_eq!(answer.boot, Boot::Loader(Loader::SnponlyX64));
    assert_eq!(answer.destination, Destination::Unicast { ip: ip(10), mac: mac(1) });
    let bytes = with(packet(mac(1), &[(53, &[1])], UEFI), FLAGS, &[0x80, 0]);
    let answer = wire.send(&bytes).unwrap();
    assert_eq!(answer.destination, Destination::Broadcast);
    assert_eq!(answer.bytes[FLAGS..FLAGS + 2], [0x80, 0]);
}

// edk2 takes nothing else (HttpBootDhcp4.c); measured with OVMF, tests/captures/proto-D1.pcap.
#[test]
fn http_boot_gets_an_url_and_its_class_back() {
    let answer = Wire::new().discover(1, HTTP).unwrap();
    let message = decode(&answer.bytes);
    assert_eq!(message.fname(), Some(&b"http://192.168.10.1/boot/snponly.efi\0"[..]));
    assert_eq!(
        message.opts().get(OptionCode::ClassIdentifier),
        Some(&DhcpOption::ClassIdentifier(b"HTTPClient".to_vec()))
    );
    assert_eq!(message.opts().get(OptionCode::VendorExtensions), None);
}

// iPXE waits 3 s for a proxy unless option 175.176 says that there is none (net/udp/dhcp.c; without it
// tests/captures/proto-A1.pcap, with it proto-A2.pcap).
#[test]
fn ipxe_gets_the_script_of_its_mac() {
    let answer = Wire::new().discover(1, IPXE).unwrap();
    assert_eq!(answer.boot, Boot::Script);
    let message = decode(&answer.bytes);
    assert_eq!(message.fname(), Some(&b"http://192.168.10.1/ipxe/52-54-00-aa-bb-01\0"[..]));
    assert_eq!(message.opts().get(OptionCode::ClassIdentifier), None);
    assert!(answer.bytes.windows(5).any(|window| window == [175, 3, 176, 1, 1]));
    assert!(matches!(
        message.opts().get(OptionCode::ClientIdentifier),
        Some(DhcpOption::ClientIdentifier(id)) if id.len() == 7
    ));
}

#[test]
fn a_running_node_gets_its_address_and_nothing_to_boot() {
    let answer = Wire::new().discover(1, SYSTEM).unwrap();
    assert_eq!((answer.yiaddr, answer.boot), (ip(10), Boot::Nothing));
    let message = decode(&answer.bytes);
    assert_eq!(message.fname(), None);
    assert_eq!(message.opts().get(OptionCode::ClassIdentifier), None);
    assert_eq!(
        message.opts().get(OptionCode::NtpServers),
        Some(&DhcpOption::NtpServers(vec![MASTER]))
    );
}

#[test]
fn a_stranger_that_does_not_boot_meets_silence() {
    let mut wire = Wire::new();
    let why = boot::Ignored::Stranger;
    assert_eq!(wire.discover(STRANGER, SYSTEM), Err(Ignored::Decided { mac: mac(STRANGER), why }));
    assert_eq!(
        wire.init_reboot(STRANGER, Ipv4Addr::new(10, 0, 0, 1), SYSTEM),
        Err(Ignored::Decided { mac: mac(STRANGER), why })
    );
}

#[test]
fn strangers_get_a_lease_when_the_owner_wants_it() {
    let mut parts = sample::parts();
    parts.network.strangers = true;
    let answer = Wire::of(parts).discover(STRANGER, SYSTEM).unwrap();
    assert!(sample::network().discovery.contains(answer.yiaddr));
    assert_eq!((answer.boot, answer.seen), (Boot::Nothing, None));
}

#[test]
fn an_unknown_machine_that_boots_is_lent_an_address_for_a_short_while() {
    let mut wire = Wire::new();
    let answer = wire.discover(STRANGER, ROM).unwrap();
    assert!(sample::network().discovery.contains(answer.yiaddr));
    assert_eq!(answer.boot, Boot::Loader(Loader::Undionly));
    assert_eq!(answer.seen, Some(Event::Seen { arch: Arch::Bios, ip: answer.yiaddr }));
    let message = decode(&answer.bytes);
    assert_eq!(
        message.opts().get(OptionCode::AddressLeaseTime),
        Some(&DhcpOption::AddressLeaseTime(300))
    );
    assert_eq!(message.opts().get(OptionCode::Hostname), None);
}

#[test]
fn the_same_machine_gets_the_same_address_even_from_a_fresh_server() {
    let first = Wire::new().discover(STRANGER, ROM).unwrap();
    let mut wire = Wire::new();
    assert_eq!(wire.discover(STRANGER, ROM).unwrap(), first);
    wire.now += 3_600_000;
    assert_eq!(wire.discover(STRANGER, IPXE).unwrap().yiaddr, first.yiaddr);
}

// ROMs ask again after 4, 8, 16 and 32 s, iPXE after 1, 2, 4 and 8 s (iPXE config/dhcp.h).
#[test]
fn a_repeated_discover_is_answered_with_the_same_bytes() {
    let mut wire = Wire::new();
    let first = wire.discover(STRANGER, UEFI).unwrap();
    wire.now += 4000;
    assert_eq!(wire.discover(STRANGER, UEFI).unwrap().bytes, first.bytes);
}

#[test]
fn a_lease_of_before_a_restart_is_honoured() {
    let held = Wire::new().lend(STRANGER);
    let answer = Wire::new().renew(STRANGER, held, IPXE).unwrap();
    assert_eq!((answer.kind, answer.yiaddr), (Kind::Ack, held));
    let answer = Wire::new().select(STRANGER, held, IPXE).unwrap();
    assert_eq!((answer.kind, answer.yiaddr), (Kind::Ack, held));
}

#[test]
fn a_node_that_selects_another_address_is_told_no() {
    let mut wire = Wire::new();
    let answer = wire.select(1, ip(11), ROM).unwrap();
    assert_eq!((answer.kind, answer.destination), (Kind::Nak, Destination::Broadcast));
    let message = decode(&answer.bytes);
    assert_eq!(message.opts().msg_type(), Some(MessageType::Nak));
    assert_eq!((message.yiaddr(), message.siaddr()), (Ipv4Addr::UNSPECIFIED, 0.into()));
    assert_eq!((message.fname(), message.sname()), (None, None));
    assert_eq!(
        message.opts().get(OptionCode::ServerIdentifier),
        Some(&DhcpOption::ServerIdentifier(MASTER))
    );
    assert_eq!(wire.select(1, ip(10), ROM).unwrap().kind, Kind::Ack);
}

// RFC 2131 table 5 wants option 50 there; who leaves it out means what it was offered.
#[test]
fn a_client_that_selects_us_without_an_address_gets_the_offered_one() {
    let mut wire = Wire::new();
    let offered = wire.discover(STRANGER, ROM).unwrap().yiaddr;
    let bytes = packet(mac(STRANGER), &[(53, &[3]), (54, &MASTER.octets())], ROM);
    let answer = wire.send(&bytes).unwrap();
    assert_eq!((answer.kind, answer.yiaddr), (Kind::Ack, offered));
}

// RFC 2131 section 4.3.2.
#[test]
fn another_servers_offer_is_left_to_it_and_ours_is_free_again() {
    let mut wire = Wire::small(1);
    wire.discover(STRANGER, ROM).unwrap();
    assert_eq!(wire.discover(STRANGER + 1, ROM), Err(Ignored::PoolFull(mac(STRANGER + 1))));
    let head: [(u8, &[u8]); 3] = [(53, &[3]), (54, &[192, 168, 10, 9]), (50, &[192, 168, 10, 5])];
    let ignored = wire.send(&packet(mac(STRANGER), &head, ROM)).unwrap_err();
    assert_eq!(ignored, Ignored::OtherServer { mac: mac(STRANGER), server: ip(9) });
    assert!(wire.discover(STRANGER + 1, ROM).is_ok());
}

#[test]
fn who_tries_another_server_goes_on_using_what_we_lent_until_that_runs_out() {
    let mut wire = Wire::small(1);
    wire.lend(STRANGER);
    wire.discover(STRANGER, ROM).unwrap();
    let head: [(u8, &[u8]); 3] = [(53, &[3]), (54, &[192, 168, 10, 9]), (50, &[192, 168, 10, 5])];
    wire.send(&packet(mac(STRANGER), &head, ROM)).unwrap_err();
    // The other one may never confirm it.
    assert_eq!(wire.discover(STRANGER + 1, ROM), Err(Ignored::PoolFull(mac(STRANGER + 1))));
    wire.now += u64::from(pool::LEASE_S) * 1000;
    assert!(wire.discover(STRANGER + 1, ROM).is_ok());
}

// RFC 2131 section 4.3.2, INIT-REBOOT.
#[test]
fn a_node_that_remembers_its_address_keeps_it_and_a_wrong_one_is_refused() {
    let mut wire = Wire::new();
    assert_eq!(wire.init_reboot(1, ip(10), SYSTEM).unwrap().kind, Kind::Ack);
    assert_eq!(wire.init_reboot(1, ip(11), SYSTEM).unwrap().kind, Kind::Nak);
    let elsewhere = Ipv4Addr::new(10, 0, 0, 7);
    assert_eq!(wire.init_reboot(1, elsewhere, SYSTEM).unwrap().kind, Kind::Nak);
}

// RFC 2131 section 4.3.2: silence where there is no record of the client, DHCPNAK where the address is wrong.
#[test]
fn an_unknown_machine_is_refused_only_what_cannot_be_its_own() {
    let mut wire = Wire::new();
    let held = wire.lend(STRANGER);
    let kind = |answer: Result<Answer, Ignored>| answer.map(|answer| answer.kind);
    let other = STRANGER + 1;
    assert_eq!(kind(wire.init_reboot(other, held, ROM)), Ok(Kind::Nak), "lent to another");
    assert_eq!(kind(wire.init_reboot(other, ip(10), ROM)), Ok(Kind::Nak), "a node's");
    assert_eq!(kind(wire.init_reboot(other, MASTER, ROM)), Ok(Kind::Nak), "the master's");
    let elsewhere = Ipv4Addr::new(10, 0, 0, 7);
    assert_eq!(kind(wire.init_reboot(other, elsewhere, ROM)), Ok(Kind::Nak), "outside");
    let not_lent = Err(Ignored::NotLent { mac: mac(other), ip: ip(150) });
    assert_eq!(kind(wire.init_reboot(other, ip(150), ROM)), not_lent, "nobody's");
    assert_eq!(kind(wire.select(other, ip(150), ROM)), Ok(Kind::Nak), "it chose us");
    assert_eq!(kind(wire.init_reboot(STRANGER, held, ROM)), Ok(Kind::Ack));
}

// RFC 2131 section 4.3.2, RENEWING; to the port it came from, as dnsmasq does (dhcp.c).
#[test]
fn a_renewal_is_answered_where_it_came_from() {
    let mut wire = Wire::new();
    let answer = wire.renew(1, ip(10), SYSTEM).unwrap();
    assert_eq!(answer.kind, Kind::Ack);
    assert_eq!(answer.destination, Destination::Client(SocketAddrV4::new(ip(10), 68)));
    let message = decode(&answer.bytes);
    assert_eq!((message.ciaddr(), message.yiaddr()), (ip(10), ip(10)));
    assert_eq!(wire.renew(1, ip(99), SYSTEM).unwrap().kind, Kind::Nak);
    assert_eq!(
        wire.renew(1, ip(99), SYSTEM).unwrap().destination,
        Destination::Broadcast,
        "a refused client has no address any more"
    );
}

// RFC 2131 section 4.3.5.
#[test]
fn an_informing_client_gets_everything_but_an_address() {
    let mut wire = Wire::new();
    let bytes = with(packet(mac(1), &[(53, &[8])], SYSTEM), CIADDR, &ip(50).octets());
    let answer = wire.send(&bytes).unwrap();
    assert_eq!(answer.destination, Destination::Client(SocketAddrV4::new(ip(50), 68)));
    let message = decode(&answer.bytes);
    assert_eq!((message.yiaddr(), message.ciaddr()), (Ipv4Addr::UNSPECIFIED, ip(50)));
    for code in [OptionCode::AddressLeaseTime, OptionCode::Renewal, OptionCode::Rebinding] {
        assert_eq!(message.opts().get(code), None);
    }
    let outside = with(bytes, CIADDR, &[8, 8, 8, 8]);
    let to = Ipv4Addr::new(8, 8, 8, 8);
    assert_eq!(wire.send(&outside), Err(Ignored::Outside { mac: mac(1), ip: to }));
}

fn decline(last: u8, ip: Ipv4Addr) -> Vec<u8> {
    packet(mac(last), &[(53, &[4]), (54, &MASTER.octets()), (50, &ip.octets())], &[])
}

// RFC 2131 section 4.3.3; ten minutes are dnsmasq's DECLINE_BACKOFF.
#[test]
fn a_declined_address_rests_for_ten_minutes() {
    let mut wire = Wire::new();
    let bad = wire.lend(STRANGER);
    assert_eq!(
        wire.send(&decline(STRANGER, bad)),
        Err(Ignored::Declined { mac: mac(STRANGER), ip: bad })
    );
    let other = wire.lend(STRANGER);
    assert_ne!(other, bad);
    assert!(matches!(wire.init_reboot(STRANGER + 1, bad, ROM), Err(Ignored::NotLent { .. })));
    wire.now += 10 * 60 * 1000;
    assert_eq!(wire.init_reboot(STRANGER + 1, bad, ROM).unwrap().kind, Kind::Ack);
}

#[test]
fn a_node_whose_address_is_in_use_waits_ten_minutes() {
    let mut wire = Wire::new();
    assert_eq!(wire.send(&decline(1, ip(10))), Err(Ignored::Declined { mac: mac(1), ip: ip(10) }));
    assert_eq!(wire.discover(1, ROM), Err(Ignored::Resting { mac: mac(1), ip: ip(10) }));
    wire.now += 10 * 60 * 1000;
    assert_eq!(wire.discover(1, ROM).unwrap().yiaddr, ip(10));
}

#[test]
fn nobody_can_decline_another_machines_address() {
    let mut wire = Wire::new();
    let held = wire.lend(STRANGER);
    assert_eq!(wire.send(&decline(2, ip(10))), Err(Ignored::Done(mac(2))));
    assert_eq!(wire.send(&decline(STRANGER + 1, held)), Err(Ignored::Done(mac(STRANGER + 1))));
    assert_eq!(wire.discover(1, ROM).unwrap().yiaddr, ip(10));
    assert_eq!(wire.discover(STRANGER, ROM).unwrap().yiaddr, held);
}

// RFC 2131 section 4.3.4.
#[test]
fn a_released_address_is_free_at_once() {
    let mut wire = Wire::small(1);
    let held = wire.lend(STRANGER);
    let release = with(packet(mac(STRANGER), &[(53, &[7])], &[]), CIADDR, &held.octets());
    assert_eq!(wire.send(&release), Err(Ignored::Done(mac(STRANGER))));
    assert_eq!(wire.discover(STRANGER + 1, ROM).unwrap().yiaddr, held);
}

#[test]
fn a_machine_that_became_a_node_is_sent_to_ask_anew() {
    let mut wire = Wire::small(1);
    let held = wire.lend(9);
    let mut parts = sample::parts();
    parts.network.discovery.last = ip(200);
    parts.nodes.push(sample::node(9));
    wire.site.cluster = Cluster::assemble(parts);
    assert_eq!(wire.dhcp.mac_of(held, &wire.site.cluster), Some(mac(9)));
    assert_eq!(wire.renew(9, held, IPXE).unwrap().kind, Kind::Nak);
    assert_eq!(wire.discover(9, IPXE).unwrap().yiaddr, ip(18));
    assert_eq!(wire.discover(STRANGER, ROM).unwrap().yiaddr, held, "its lease is over");
}

#[test]
fn an_address_that_became_a_nodes_is_not_lent_any_more() {
    let mut wire = Wire::new();
    let held = wire.lend(STRANGER);
    let mut parts = sample::parts();
    let mut node = sample::node(9);
    node.ip = held;
    parts.nodes.push(node);
    wire.site.cluster = Cluster::assemble(parts);
    assert_eq!(wire.renew(STRANGER, held, IPXE).unwrap().kind, Kind::Nak);
    assert_ne!(wire.discover(STRANGER, IPXE).unwrap().yiaddr, held);
    assert_eq!(wire.dhcp.mac_of(held, &wire.site.cluster), Some(mac(9)));
}

// The vendor area has 64 bytes (RFC 951 section 3), and no options of DHCP's own in it (RFC 1534 section 2).
#[test]
fn bootp_is_answered_for_nodes_only_and_within_its_64_bytes() {
    let mut wire = Wire::new();
    let answer = wire.send(&packet(mac(1), &[], &[])).unwrap();
    assert_eq!((answer.kind, answer.yiaddr), (Kind::Bootp, ip(10)));
    assert_eq!(answer.bytes.len(), 300);
    let message = decode(&answer.bytes);
    assert_eq!(message.opts().msg_type(), None);
    assert_eq!(message.opts().get(OptionCode::AddressLeaseTime), None);
    assert!(message.opts().get(OptionCode::SubnetMask).is_some());
    let mut parts = sample::parts();
    parts.network.strangers = true;
    let ignored = Wire::of(parts).send(&packet(mac(STRANGER), &[], &[])).unwrap_err();
    assert_eq!(ignored, Ignored::Bootp(mac(STRANGER)));
}

// PXE 2.1. Some firmware asks port 4011 whatever it was offered: edk2 after option 60 alone, tests/captures/proto-B1.
#[test]
fn the_boot_servers_port_answers_with_the_loader_only() {
    let mut wire = Wire::new();
    let from = SocketAddrV4::new(ip(10), 4011);
    let bytes = with(packet(mac(1), &[(53, &[3])], UEFI), CIADDR, &ip(10).octets());
    let answer = wire.send_to(Service::BootServer, from, &bytes).unwrap();
    assert_eq!((answer.kind, answer.destination), (Kind::Ack, Destination::Client(from)));
    let message = decode(&answer.bytes);
    assert_eq!(message.fname(), Some(&b"snponly.efi\0"[..]));
    assert_eq!(message.yiaddr(), Ipv4Addr::UNSPECIFIED);
    assert_eq!(message.opts().get(OptionCode::AddressLeaseTime), None);
    let stray = packet(mac(1), &[(53, &[3]), (50, &ip(10).octets())], SYSTEM);
    assert_eq!(wire.send_to(Service::BootServer, from, &stray), Err(Ignored::NotBooting(mac(1))));
    let outside = SocketAddrV4::new(Ipv4Addr::new(10, 9, 9, 9), 4011);
    assert!(matches!(
        wire.send_to(Service::BootServer, outside, &bytes),
        Err(Ignored::Outside { .. })
    ));
}

// dnsmasq (rfc2131.c) echoes it, because clients wait for it.
#[test]
fn a_chosen_boot_item_is_confirmed() {
    let mut kind = UEFI.to_vec();
    kind.push((43, &[71, 4, 0, 0, 0, 0, 255]));
    let bytes = with(packet(mac(1), &[(53, &[3])], &kind), CIADDR, &ip(10).octets());
    let from = SocketAddrV4::new(ip(10), 68);
    let answer = Wire::new().send_to(Service::BootServer, from, &bytes).unwrap();
    assert_eq!(
        decode(&answer.bytes).opts().get(OptionCode::VendorExtensions),
        Some(&DhcpOption::VendorExtensions(vec![6, 1, 8, 71, 4, 0, 0, 0, 0, 255]))
    );
}

// RFC 2131 section 4.1 (giaddr), RFC 3046 section 2.2 (option 82).
#[test]
fn a_relay_in_the_subnet_gets_the_answer_and_its_own_option_last() {
    let mut wire = Wire::new();
    let circuit: &[u8] = &[1, 4, 0, 1, 0, 7];
    let mut kind = ROM.to_vec();
    kind.insert(0, (82, circuit));
    let bytes = with(packet(mac(1), &[(53, &[1])], &kind), GIADDR, &ip(2).octets());
    let answer = wire.send(&bytes).unwrap();
    assert_eq!(answer.destination, Destination::Relay(ip(2)));
    assert_eq!(decode(&answer.bytes).giaddr(), ip(2));
    let end = answer.bytes.iter().rposition(|byte| *byte == 255).unwrap();
    assert_eq!(answer.bytes[end - 8..end - 6], [82, 6]);
    assert_eq!(&answer.bytes[end - 6..end], circuit);
    let foreign = with(bytes, GIADDR, &[10, 0, 0, 2]);
    assert!(matches!(wire.send(&foreign), Err(Ignored::Outside { .. })));
}

// RFC 2131 section 4.3.2: the relay has to broadcast a DHCPNAK, so the flag is set for it.
#[test]
fn a_refused_client_behind_a_relay_is_reached_by_broadcast() {
    let head: [(u8, &[u8]); 3] = [(53, &[3]), (54, &MASTER.octets()), (50, &ip(77).octets())];
    let bytes = with(packet(mac(1), &head, UEFI), GIADDR, &ip(2).octets());
    let answer = Wire::new().send(&bytes).unwrap();
    assert_eq!((answer.kind, answer.destination), (Kind::Nak, Destination::Relay(ip(2))));
    assert_eq!(answer.bytes[FLAGS..FLAGS + 2], [0x80, 0]);
}

#[test]
fn a_used_up_range_serves_nobody_new_until_a_lease_ends() {
    let mut wire = Wire::small(2);
    let first = wire.lend(STRANGER);
    wire.now += 1;
    wire.lend(STRANGER + 1);
    let third = STRANGER + 2;
    assert_eq!(wire.discover(third, ROM), Err(Ignored::PoolFull(mac(third))));
    wire.now += 299_999;
    assert_eq!(wire.discover(third, ROM).unwrap().yiaddr, first, "the one that ended first");
    assert_eq!(wire.discover(STRANGER, ROM), Err(Ignored::PoolFull(mac(STRANGER))));
}

#[test]
fn an_offer_nobody_takes_is_free_after_a_minute() {
    let mut wire = Wire::small(1);
    wire.discover(STRANGER, ROM).unwrap();
    wire.now += 59_999;
    assert!(wire.discover(STRANGER + 1, ROM).is_err());
    wire.now += 1;
    assert!(wire.discover(STRANGER + 1, ROM).is_ok());
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_leases_for_ages() {
    let mut wire = Wire::small(1);
    wire.lend(STRANGER);
    wire.now -= 86_400_000;
    assert!(wire.discover(STRANGER + 1, ROM).is_ok());
}

#[test]
fn an_unknown_machine_is_written_down_once_in_ten_minutes() {
    let mut wire = Wire::new();
    let seen = wire.discover(STRANGER, ROM).unwrap().seen.unwrap();
    assert_eq!(wire.discover(STRANGER, ROM).unwrap().seen, None);
    let entry = Entry { seq: 1, at_ms: wire.now, mac: mac(STRANGER), event: seen };
    wire.state.apply(&entry);
    wire.dhcp = Dhcp::default();
    wire.now += 10 * 60 * 1000 - 1;
    assert_eq!(wire.discover(STRANGER, ROM).unwrap().seen, None, "the journal remembers");
    wire.now += 1;
    assert!(wire.discover(STRANGER, ROM).unwrap().seen.is_some());
}

#[test]
fn what_was_lent_before_a_restart_is_lent_after_it() {
    let mut wire = Wire::small(1);
    let answer = wire.discover(STRANGER, ROM).unwrap();
    let seen = answer.seen.unwrap();
    wire.state.apply(&Entry { seq: 1, at_ms: wire.now, mac: mac(STRANGER), event: seen });
    wire.select(STRANGER, answer.yiaddr, ROM).unwrap();
    let restart = |wire: &mut Wire, later_ms: u64| {
        wire.dhcp = Dhcp::default();
        wire.now += later_ms;
    };
    restart(&mut wire, 10_000);
    assert_eq!(wire.discover(STRANGER + 1, ROM), Err(Ignored::PoolFull(mac(STRANGER + 1))));
    assert_eq!(wire.discover(STRANGER, ROM).unwrap().yiaddr, answer.yiaddr);
    // Who does not come back has it for one lease, and who was seen long ago not at all.
    wire.now += u64::from(pool::LEASE_S) * 1000;
    assert!(wire.discover(STRANGER + 1, ROM).is_ok());
    restart(&mut wire, 15 * 60 * 1000);
    assert!(wire.discover(STRANGER + 1, ROM).is_ok());
}

#[test]
fn another_address_is_written_down_at_once() {
    let mut wire = Wire::new();
    let first = wire.discover(STRANGER, ROM).unwrap();
    wire.now += 1000;
    wire.dhcp.pool.rest(mac(STRANGER), first.yiaddr, wire.now);
    let second = wire.discover(STRANGER, ROM).unwrap();
    assert_ne!(first.yiaddr, second.yiaddr);
    assert_eq!(second.seen, Some(Event::Seen { arch: Arch::Bios, ip: second.yiaddr }));
}

#[test]
fn a_flood_of_macs_writes_a_room_and_then_a_line_in_ten_seconds() {
    let (mut sightings, state, start) = (Sightings::default(), State::default(), 1_000_000_000);
    let mut flood = |now| {
        let seen = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let mac = Mac::from_wire([2, 0, 0, 0, high, low]).unwrap();
            let request = Request::parse(&packet(mac, &[(53, &[1])], ROM)).unwrap();
            sightings.saw(&state, &request, ip(200), now)
        };
        (0..3000).filter_map(seen).count()
    };
    assert_eq!(flood(start), 1000);
    assert_eq!(flood(start + 9_999), 0);
    assert_eq!(flood(start + 10_000), 1, "those missed have their turn");
    assert_eq!(flood(start + 60_000), 5);
}

#[test]
fn a_rack_of_250_machines_is_answered_250_times() {
    let mut parts = sample::parts();
    parts.nodes = (1..=250)
        .map(|number| {
            let mut node = sample::node(1);
            node.name = format!("worker{number}").parse().unwrap();
            node.mac = mac(number);
            node.ip = Ipv4Addr::new(192, 168, 20, number);
            node
        })
        .collect();
    parts.network.subnet = "192.168.0.0/16".parse().unwrap();
    let mut wire = Wire::of(parts);
    for number in 1..=250 {
        let address = Ipv4Addr::new(192, 168, 20, number);
        assert_eq!(wire.discover(number, ROM).unwrap().yiaddr, address);
        assert_eq!(wire.select(number, address, ROM).unwrap().kind, Kind::Ack);
    }
}

#[test]
fn a_rack_of_250_unknown_machines_gets_250_addresses() {
    let mut parts = sample::parts();
    parts.network.subnet = "192.168.0.0/16".parse().unwrap();
    parts.network.discovery.first = Ipv4Addr::new(192, 168, 30, 0);
    parts.network.discovery.last = Ipv4Addr::new(192, 168, 30, 249);
    let mut wire = Wire::of(parts);
    let mut offered: Vec<_> =
        (0..250).map(|last| wire.discover(last, ROM).unwrap().yiaddr).collect();
    offered.sort_unstable();
    offered.dedup();
    assert_eq!(offered.len(), 250);
}

#[test]
fn addresses_are_told_to_the_machines_that_have_them() {
    let mut wire = Wire::new();
    let held = wire.lend(STRANGER);
    assert_eq!(wire.dhcp.mac_of(held, &wire.site.cluster), Some(mac(STRANGER)));
    assert_eq!(wire.dhcp.mac_of(ip(11), &wire.site.cluster), Some(mac(2)));
    assert_eq!(wire.dhcp.mac_of(ip(150), &wire.site.cluster), None);
}

proptest! {
    #[test]
    fn no_datagram_breaks_the_server(
        options in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..24),
        header in prop::collection::vec(any::<u8>(), 24),
        message in 0u8..9,
        boot_server in any::<bool>(),
    ) {
        let message = [message];
        let kind: Vec<_> = options.iter().map(|(code, value)| (*code, value.as_slice())).collect();
        let bytes = with(packet(mac(STRANGER), &[(53, &message)], &kind), 4, &header);
        let service = if boot_server { Service::BootServer } else { Service::Dhcp };
        let mut wire = Wire::new();
        if let Ok(answer) = wire.send_to(service, SocketAddrV4::new(ip(200), 68), &bytes) {
            prop_assert!(answer.bytes.len() >= 300);
            let size_max = Request::parse(&bytes).unwrap().size_max;
            prop_assert!(answer.bytes.len() <= size_max);
            let message = decode(&answer.bytes);
            prop_assert_eq!(message.opcode(), v4::Opcode::BootReply);
        }
    }

    #[test]
    fn leases_are_never_shared(steps in prop::collection::vec((0u8..12, 0u8..4, 0u64..200_000), 1..120)) {
        let mut wire = Wire::small(5);
        let mut held: std::collections::BTreeMap<u8, (Ipv4Addr, u64)> = Default::default();
        for (last, what, wait) in steps {
            wire.now += wait;
            let answer = match what {
                0 | 1 => wire.discover(100 + last, ROM).and_then(|it| wire.select(100 + last, it.yiaddr, ROM)),
                2 => wire.init_reboot(100 + last, ip(200 + last % 5), ROM),
                _ => wire.send(&decline(100 + last, ip(200 + last % 5))),
            };
            if what == 3 {
                if matches!(answer, Err(Ignored::Declined { .. })) { held.remove(&last); }
                continue;
            }
            if let Ok(answer) = answer && answer.kind == Kind::Ack {
                let now = wire.now;
                held.retain(|_, (_, until)| *until > now);
                let clash = held.iter().find(|(who, (ip, _))| **who != last && *ip == answer.yiaddr);
                prop_assert_eq!(clash, None);
                held.insert(last, (answer.yiaddr, now + 300_000));
            }
        }
    }
}
