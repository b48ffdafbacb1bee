//! Every DHCP packet that real machines sent in `tests/captures/`, fed to our server, and every
//! byte of its answers compared with what the rules of DHCP and PXE want.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rekindle::boot;
use rekindle::cluster::Cluster;
use rekindle::dhcp::reply::{Boot, Destination, Kind};
use rekindle::dhcp::{Answer, Datagram, Dhcp, Ignored, Service, Step};
use rekindle::http::{self, Endpoint};
use rekindle::mac::Mac;
use rekindle::machine::{Arch, Loader};
use rekindle::site::Site;
use rekindle::snippets::Snippets;
use rekindle::stage::{Event, State};

use crate::pcap::{self, Capture, Packet, Transport};
use crate::wire::{
    Message, NODE, OURS, THEIRS, cluster, relayed, spoilt, with_option, without_option,
};

/// Who asks what, in order, as tcpdump shows it: programs by options 60, 77 and 93, and their
/// packets by option 53 (D for DISCOVER, R for REQUEST).
const CAPTURES: [(&str, &str); 35] = [
    ("a-bios-e1000-ipxe2019", "ipxe-bios:DDR"),
    ("a-bios-e1000e-ipxe2019", "ipxe-bios:DDR"),
    ("a-bios-i82557b-ipxe2019", "ipxe-bios:DDR"),
    ("a-bios-ne2k_pci-ipxe2019", "ipxe-bios:DDR"),
    ("a-bios-pcnet-ipxe2019", "ipxe-bios:DDDR"),
    ("a-bios-rtl8139-ipxe2019", "ipxe-bios:DDDR"),
    ("a-bios-virtio-net-pci-ipxe2019", "ipxe-bios:DDDR"),
    ("b-legacyrom-e1000-undionly2019", "rom-bios:DDR ipxe-bios:DDR"),
    ("b-legacyrom-e1000-undionly2025", "rom-bios:DDR ipxe-bios:DDR"),
    ("b-legacyrom-e1000-undionlyHEAD", "rom-bios:DDR rekindle-bios:DDR"),
    ("b-legacyrom-rtl8139-undionly2019", "rom-bios:DDR ipxe-bios:DDR"),
    ("b-legacyrom-virtio-undionly2019", "rom-bios:DDR ipxe-bios:DDR"),
    ("c-ovmf-e1000rom-snponly2025", "ipxe-uefi:DDR"),
    ("c-ovmf-virtio-ipxe2019", "rom-uefi:DR ipxe-uefi:DDR"),
    ("c-ovmf-virtio-snponly2019", "rom-uefi:DR ipxe-uefi:DDR"),
    ("c-ovmf-virtio-snponly2025", "rom-uefi:DR ipxe-uefi:DDR"),
    ("di-netboot", "ipxe-bios:DDR system:DR"),
    ("e-ovmf-sb-shim-grub-http", "rom-uefi:DDDD http-uefi:DR"),
    ("e-ovmf-sb-shim-grub-tftp", "rom-uefi:DR http-uefi:DDDD"),
    ("e-ovmf-sb-shim-grub-tftp3", "rom-uefi:DR"),
    (
        "el-bios-legacy-e1000-ide",
        "rom-bios:DDR rekindle-bios:DDR system:DR rom-bios:DDR rekindle-bios:DDR",
    ),
    ("el-bios-virtio", "ipxe-bios:DDR system:DR ipxe-bios:DDR"),
    ("el-install-bios-virtio", "ipxe-bios:DDR system:DR ipxe-bios:DDR"),
    ("proto-A1", "rom-uefi:DR ipxe-uefi:DDR"),
    ("proto-A2", "rom-uefi:DR ipxe-uefi:DR"),
    ("proto-B1", "rom-uefi:DR rom-uefi@4011:RRRR http-uefi:DD"),
    ("proto-B2", "rom-uefi:DR ipxe-uefi:DR"),
    ("proto-B3", "rom-uefi:DR ipxe-uefi:DDR"),
    ("proto-B4", "rom-uefi:DR ipxe-uefi:DR"),
    ("proto-C1", "ipxe-bios:DDR"),
    ("proto-C2", "ipxe-bios:DR"),
    ("proto-C3", "ipxe-bios:DDR"),
    ("proto-D1", "rom-uefi:DDDD http-uefi:DR"),
    ("proto-E1", "rom-uefi:DR ipxe-uefi:DR"),
    ("proto-S1", "rom-uefi:DR"),
];
const PACKETS: usize = 171;

/// A captured packet to a DHCP server.
#[derive(Clone)]
pub(crate) struct Ask {
    /// For messages of failed tests.
    place: String,
    /// As in [`CAPTURES`].
    program: String,
    pub(crate) is_request: bool,
    service: Service,
    from: SocketAddrV4,
    at: Duration,
    pub(crate) bytes: Vec<u8>,
    pub(crate) message: Message,
}

/// The DHCP packets of a capture's client.
pub(crate) fn asks(capture: &Capture) -> Vec<Ask> {
    let told = told(capture);
    let known = CAPTURES.iter().find(|(name, _)| *name == capture.name);
    assert_eq!(Some(told.as_str()), known.map(|(_, told)| *told), "{}", capture.name);
    let programs = told.split(' ').flat_map(|group| {
        let (program, packets) = group.split_once(':').unwrap();
        packets.chars().map(move |packet| (program.to_owned(), packet == 'R'))
    });
    let packets = capture.packets.iter().filter(|packet| is_ask(packet));
    let asks =
        packets.zip(programs).enumerate().map(|(index, (packet, (program, is_request)))| Ask {
            place: format!("{}, DHCP packet {}, {program}", capture.name, index + 1),
            program,
            is_request,
            service: if packet.to.port() == 67 { Service::Dhcp } else { Service::BootServer },
            from: packet.from,
            at: packet.at,
            bytes: packet.payload.clone(),
            message: Message::read(&packet.payload),
        });
    asks.collect()
}

fn is_ask(packet: &Packet) -> bool {
    packet.transport == Transport::Udp && matches!(packet.to.port(), 67 | 4011)
}

/// A capture in the words of [`CAPTURES`].
fn told(capture: &Capture) -> String {
    let mut groups: Vec<(String, String)> = vec![];
    for packet in capture.packets.iter().filter(|packet| is_ask(packet)) {
        let message = Message::read(&packet.payload);
        let is_http = message.option(60).is_some_and(|class| class.starts_with(b"HTTPClient:"));
        let program = match (message.option(77), message.option(93)) {
            (Some(b"iPXE"), _) => "ipxe",
            (Some(b"rekindle"), _) => "rekindle",
            (None, Some(_)) if is_http => "http",
            (None, Some(_)) => "rom",
            (None, None) => "system",
            (Some(class), _) => panic!("user class {class:?}"),
        };
        let firmware = match message.option(93) {
            Some([0, 0]) => "-bios",
            Some([0, 7 | 16]) => "-uefi",
            None => "",
            Some(code) => panic!("architecture {code:?}"),
        };
        let port = if packet.to.port() == 4011 { "@4011" } else { "" };
        let program = format!("{program}{firmware}{port}");
        let letter = match message.option(53) {
            Some([1]) => 'D',
            Some([3]) => 'R',
            other => panic!("message type {other:?}"),
        };
        match groups.last_mut() {
            Some((last, packets)) if *last == program => packets.push(letter),
            _ => groups.push((program, letter.to_string())),
        }
    }
    let groups: Vec<_> =
        groups.into_iter().map(|(program, packets)| format!("{program}:{packets}")).collect();
    groups.join(" ")
}

fn dialogues() -> Vec<Vec<Ask>> {
    pcap::captures().iter().map(asks).collect()
}

impl Ask {
    pub(crate) fn mac(&self) -> Mac {
        self.message.mac()
    }

    fn is(&self, program: &str) -> bool {
        self.program.split(['-', '@']).next() == Some(program)
    }

    pub(crate) fn is_ipxe(&self) -> bool {
        self.is("ipxe") || self.is("rekindle")
    }

    fn is_bios(&self) -> bool {
        self.program.ends_with("-bios")
    }

    /// A request for the offer of `server`, whatever the captured one was; the rest byte for byte.
    fn taking(&self, ip: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
        if self.message.option(54).is_none() {
            return self.bytes.clone();
        }
        let bytes = with_option(self.bytes.clone(), 50, &ip.octets());
        with_option(bytes, 54, &server.octets())
    }

    fn boot(&self) -> Boot {
        if self.is("system") {
            Boot::Nothing
        } else if self.is_ipxe() {
            Boot::Script
        } else if self.is_bios() {
            Boot::Loader(Loader::Undionly)
        } else {
            Boot::Loader(Loader::SnponlyX64)
        }
    }

    fn file(&self, master: Ipv4Addr) -> String {
        if self.is("system") {
            String::new()
        } else if self.is_ipxe() {
            format!("http://{master}/ipxe/{}", self.mac().hyphens())
        } else if self.is("http") {
            format!("http://{master}/boot/snponly.efi")
        } else if self.is_bios() {
            "undionly.kpxe".to_owned()
        } else {
            "snponly.efi".to_owned()
        }
    }

    /// Most bytes it takes by its option 57, within what our rules allow.
    fn size_max(&self) -> usize {
        let [high, low] = self.message.option(57).unwrap().try_into().unwrap();
        (usize::from(high) * 256 + usize::from(low) - 28).clamp(548, 1472)
    }
}

/// What an answer has to be like.
struct Expected {
    kind: Kind,
    master: Ipv4Addr,
    yiaddr: Ipv4Addr,
    lease_s: Option<u32>,
    name: Option<&'static str>,
}

impl Expected {
    fn node(ask: &Ask, ip: Ipv4Addr, master: Ipv4Addr) -> Self {
        Self { lease_s: Some(86400), name: Some("worker1"), ..Self::stranger(ask, ip, master) }
    }

    fn stranger(ask: &Ask, ip: Ipv4Addr, master: Ipv4Addr) -> Self {
        let kind = if ask.is_request { Kind::Ack } else { Kind::Offer };
        Self { kind, master, yiaddr: ip, lease_s: Some(300), name: None }
    }

    /// The boot server gives a program, no address.
    fn at_service(self, service: Service) -> Self {
        match service {
            Service::Dhcp => self,
            Service::BootServer => Self { yiaddr: Ipv4Addr::UNSPECIFIED, lease_s: None, ..self },
        }
    }

    fn refusal(master: Ipv4Addr) -> Self {
        let (yiaddr, lease_s, name) = (Ipv4Addr::UNSPECIFIED, None, None);
        Self { kind: Kind::Nak, master, yiaddr, lease_s, name }
    }

    fn message(&self, ask: &Ask, sent: &Message) -> Message {
        let nobody = Ipv4Addr::UNSPECIFIED;
        let is_nak = self.kind == Kind::Nak;
        Message {
            op_htype_hlen_hops: [2, 1, 6, 0],
            xid: sent.xid,
            secs: [0, 0],
            flags: sent.flags,
            ciaddr: if self.kind == Kind::Ack { sent.ciaddr } else { nobody },
            yiaddr: self.yiaddr,
            siaddr: if is_nak { nobody } else { self.master },
            giaddr: sent.giaddr,
            chaddr: sent.chaddr,
            sname: if is_nak { String::new() } else { self.master.to_string() },
            file: if is_nak { String::new() } else { ask.file(self.master) },
            options: if is_nak { self.nak_options(sent) } else { self.options(ask, sent) },
        }
    }

    fn nak_options(&self, sent: &Message) -> Vec<(u8, Vec<u8>)> {
        let mut options = vec![(53, vec![6]), (54, self.master.octets().to_vec())];
        options
            .extend([61, 82].iter().filter_map(|code| Some((*code, sent.option(*code)?.into()))));
        options
    }

    /// 53 first, because some stacks look no further (23watejona/teatime-os#7); 82 last (RFC 3046 section 2.1).
    fn options(&self, ask: &Ask, sent: &Message) -> Vec<(u8, Vec<u8>)> {
        let master = self.master.octets().to_vec();
        let seconds = |seconds: u32| seconds.to_be_bytes().to_vec();
        let echo = |code: u8| sent.option(code).map(|value| (code, value.to_vec()));
        let with_nul = |text: &str| [text.as_bytes(), &[0]].concat();
        let kind = if self.kind == Kind::Offer { 2 } else { 5 };
        let mut options = vec![(53, vec![kind]), (54, master.clone())];
        options.extend(self.lease_s.map(|lease_s| (51, seconds(lease_s))));
        options.push((1, vec![255, 255, 255, 0]));
        options.extend([(3, master.clone()), (6, master.clone())]);
        options.extend(self.name.map(|name| (12, name.as_bytes().to_vec())));
        options.extend([(15, b"cluster.lan".to_vec()), (28, vec![192, 168, 10, 255])]);
        options.extend(sent.asks_for(42).then_some((42, master)));
        if let Some(lease_s) = self.lease_s {
            options.extend([(58, seconds(lease_s / 2)), (59, seconds(lease_s / 8 * 7))]);
        }
        if ask.is("rom") {
            options.extend([(60, b"PXEClient".to_vec()), (43, vec![6, 1, 8, 255])]);
        } else if ask.is("http") {
            options.push((60, b"HTTPClient".to_vec()));
        }
        options.extend(echo(97));
        if !ask.is("system") {
            let server = with_nul(&self.master.to_string());
            options.extend(sent.asks_for(66).then_some((66, server)));
            options.extend(sent.asks_for(67).then_some((67, with_nul(&ask.file(self.master)))));
        }
        options.extend(ask.is_ipxe().then(|| (175, vec![176, 1, 1])));
        options.extend([echo(61), echo(82)].into_iter().flatten());
        options
    }

    fn destination(&self, ask: &Ask, sent: &Message) -> Destination {
        if ask.service == Service::BootServer {
            Destination::Client(ask.from)
        } else if sent.giaddr != Ipv4Addr::UNSPECIFIED {
            Destination::Relay(sent.giaddr)
        } else if sent.flags == [0x80, 0] || ask.is_bios() || self.kind == Kind::Nak {
            Destination::Broadcast
        } else {
            Destination::Unicast { ip: self.yiaddr, mac: ask.mac() }
        }
    }

    fn check(&self, ask: &Ask, sent: &[u8], answer: &Answer) {
        let place = &ask.place;
        let sent = Message::read(sent);
        assert_eq!(Message::read(&answer.bytes), self.message(ask, &sent), "{place}");
        assert_eq!(answer.destination, self.destination(ask, &sent), "{place}");
        let (len, boot) = (answer.bytes.len(), ask.boot());
        assert!((300..=ask.size_max()).contains(&len), "{place}: {len} bytes");
        let boot = if self.kind == Kind::Nak { Boot::Nothing } else { boot };
        let told = (answer.mac, answer.kind, answer.yiaddr, answer.boot);
        assert_eq!(told, (ask.mac(), self.kind, self.yiaddr, boot), "{place}");
    }
}

/// A server, and what it remembers.
pub(crate) struct Wire {
    pub(crate) dhcp: Dhcp,
    pub(crate) site: Site,
    state: State,
}

impl Wire {
    pub(crate) fn of(cluster: Cluster) -> Self {
        let (trees, snippets) = (BTreeMap::new(), Snippets::default());
        let loaders = Loader::ALL.into();
        let site = Site { cluster, trees, snippets, answers: BTreeMap::new(), loaders };
        Self { dhcp: Dhcp::default(), site, state: State::default() }
    }

    fn with_node(mac: Mac) -> Self {
        Self::of(cluster(OURS, Some((mac, NODE)), false))
    }

    fn without_nodes() -> Self {
        Self::of(cluster(OURS, None, false))
    }

    pub(crate) fn send(&mut self, ask: &Ask, bytes: &[u8]) -> Result<Answer, Ignored> {
        let datagram = Datagram { bytes, from: ask.from, service: ask.service };
        let now = 1_800_000_000_000 + u64::try_from(ask.at.as_millis()).unwrap();
        let mut step = self.dhcp.handle_packet(&self.site, &self.state, datagram, now)?;
        if let Step::Try(ip) = step {
            self.dhcp.tried(ip, None, now).expect("nobody is there");
            step = self.dhcp.handle_packet(&self.site, &self.state, datagram, now)?;
        }
        let Step::Answer(answer) = step else { panic!("asked twice") };
        Ok(answer)
    }
}

fn stranger(ask: &Ask) -> Ignored {
    Ignored::Decided { mac: ask.mac(), why: boot::Ignored::Stranger }
}

#[test]
fn every_capture_is_there_and_holds_what_was_measured() {
    let captures = pcap::captures();
    let names: Vec<_> = captures.iter().map(|capture| capture.name.as_str()).collect();
    let known: Vec<_> = CAPTURES.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known);
    assert_eq!(dialogues().iter().map(Vec::len).sum::<usize>(), PACKETS);
}

#[test]
fn a_node_is_answered_field_by_field() {
    for asks in dialogues() {
        let mut wire = Wire::with_node(asks[0].mac());
        for ask in &asks {
            let sent = ask.taking(NODE, OURS);
            let answer = wire.send(ask, &sent).unwrap();
            Expected::node(ask, NODE, OURS).at_service(ask.service).check(ask, &sent, &answer);
            assert_eq!(answer.seen, None, "{}", ask.place);
        }
    }
}

#[test]
fn an_unknown_machine_is_lent_an_address_to_boot_with_and_written_down_once() {
    for asks in dialogues() {
        let mut wire = Wire::without_nodes();
        let (first, _) = asks.split_first().unwrap();
        let lent = wire.send(first, &first.bytes).unwrap().yiaddr;
        assert!(wire.site.cluster.network().discovery.contains(lent));
        let mut wire = Wire::without_nodes();
        let mut seen = vec![];
        for ask in &asks {
            let sent = ask.taking(lent, OURS);
            let answer = wire.send(ask, &sent);
            if ask.is("system") {
                assert_eq!(answer, Err(stranger(ask)), "{}", ask.place);
                continue;
            }
            let answer = answer.unwrap();
            Expected::stranger(ask, lent, OURS).at_service(ask.service).check(ask, &sent, &answer);
            assert_eq!(wire.dhcp.mac_of(lent, &wire.site.cluster), Some(ask.mac()));
            seen.extend(answer.seen);
        }
        let arch = if first.is_bios() { Arch::Bios } else { Arch::UefiX64 };
        assert_eq!(seen, [Event::Seen { arch, ip: lent }], "{}", first.place);
    }
}

#[test]
fn an_unknown_system_gets_an_address_where_strangers_are_welcome() {
    let dialogues = dialogues();
    let systems = dialogues.iter().flatten().filter(|ask| ask.is("system"));
    let mut wire = Wire::of(cluster(OURS, None, true));
    let mut lent = NODE;
    for ask in systems {
        let sent = ask.taking(lent, OURS);
        let answer = wire.send(ask, &sent).unwrap();
        lent = answer.yiaddr;
        Expected::stranger(ask, lent, OURS).check(ask, &sent, &answer);
        assert_eq!(answer.seen, None);
    }
    assert!(wire.site.cluster.network().discovery.contains(lent));
}

#[test]
fn a_packet_that_comes_again_is_answered_with_the_same_bytes() {
    let mut repeats = 0;
    for asks in dialogues() {
        let mac = asks[0].mac();
        for mut wire in [Wire::with_node(mac), Wire::without_nodes()] {
            for pair in asks.windows(2) {
                let [one, again] = pair else { unreachable!() };
                if one.message.xid == again.message.xid && one.is_request == again.is_request {
                    let first = wire.send(one, &one.bytes).unwrap();
                    let second = wire.send(again, &again.bytes).unwrap();
                    assert_eq!(first.bytes, second.bytes, "{}", again.place);
                    repeats += 1;
                }
            }
        }
    }
    assert_eq!(repeats, 2 * 50);
}

#[test]
fn the_request_for_another_servers_offer_meets_silence() {
    let mut requests = 0;
    for ask in dialogues().iter().flatten().filter(|ask| ask.message.option(54).is_some()) {
        let other = Ignored::OtherServer { mac: ask.mac(), server: THEIRS };
        for mut wire in [Wire::with_node(ask.mac()), Wire::without_nodes()] {
            assert_eq!(wire.send(ask, &ask.bytes), Err(other), "{}", ask.place);
        }
        requests += 1;
    }
    assert_eq!(requests, 58);
}

#[test]
fn the_request_for_an_address_that_is_not_its_own_is_refused() {
    for asks in dialogues() {
        let mac = asks[0].mac();
        let node = cluster(THEIRS, Some((mac, NODE)), false);
        for (cluster, is_node) in [(node, true), (cluster(THEIRS, None, false), false)] {
            let mut wire = Wire::of(cluster);
            for ask in &asks {
                let answer = wire.send(ask, &ask.bytes);
                if ask.message.option(54).is_none() {
                    continue;
                }
                if ask.is("system") && !is_node {
                    assert_eq!(answer, Err(stranger(ask)), "{}", ask.place);
                } else {
                    Expected::refusal(THEIRS).check(ask, &ask.bytes, &answer.unwrap());
                }
            }
        }
    }
}

#[test]
fn the_request_of_a_machine_that_remembers_its_address_is_for_us_to_judge() {
    for ask in dialogues().iter().flatten().filter(|ask| ask.message.option(54).is_some()) {
        let sent = without_option(ask.bytes.clone(), 54);
        let (mac, ip) = (ask.mac(), ask.message.ip(50).unwrap());
        let mut right = Wire::of(cluster(OURS, Some((mac, ip)), false));
        let answer = right.send(ask, &sent).unwrap();
        Expected::node(ask, ip, OURS).check(ask, &sent, &answer);
        let answer = Wire::with_node(mac).send(ask, &sent).unwrap();
        Expected::refusal(OURS).check(ask, &sent, &answer);
        let unknown = Wire::without_nodes().send(ask, &sent);
        let silence = if ask.is("system") { stranger(ask) } else { Ignored::NotLent { mac, ip } };
        assert_eq!(unknown, Err(silence), "{}", ask.place);
    }
}

#[test]
fn a_relay_gets_the_answer_with_its_own_option_last() {
    let relay = Ipv4Addr::new(192, 168, 10, 2);
    let info = [1, 4, 0, 1, 0, 7, 2, 6, 2, 0, 0, 0, 0, 9];
    for asks in dialogues() {
        let mut wire = Wire::with_node(asks[0].mac());
        for ask in asks.iter().filter(|ask| ask.service == Service::Dhcp) {
            let sent = relayed(ask.taking(NODE, OURS), relay, &info);
            let answer = wire.send(ask, &sent).unwrap();
            Expected::node(ask, NODE, OURS).check(ask, &sent, &answer);
            let message = Message::read(&answer.bytes);
            assert_eq!(message.options.last(), Some(&(82, info.to_vec())), "{}", ask.place);
        }
    }
}

#[test]
fn the_url_an_answer_names_is_one_we_serve() {
    let mut urls = 0;
    for ask in dialogues().iter().flatten().filter(|ask| ask.is_ipxe() || ask.is("http")) {
        let answer = Wire::with_node(ask.mac()).send(ask, &ask.taking(NODE, OURS)).unwrap();
        let url = Message::read(&answer.bytes).file;
        let path = url.strip_prefix(&format!("http://{OURS}")).unwrap();
        let endpoint = if ask.is_ipxe() {
            Endpoint::Script(ask.mac(), None)
        } else {
            Endpoint::Loader(Loader::SnponlyX64)
        };
        assert_eq!(http::route(http::Method::Get, path), Ok(endpoint), "{}", ask.place);
        urls += 1;
    }
    assert_eq!(urls, 104);
}

#[test]
fn an_ipxe_without_http_is_led_to_ours() {
    for ask in dialogues().iter().flatten().filter(|ask| ask.is_ipxe()) {
        let features = ask.message.option(175).unwrap();
        let http = features.windows(3).position(|feature| feature == [19, 1, 1]).unwrap();
        let mut without = features.to_vec();
        without[http] = 16;
        let sent = with_option(ask.taking(NODE, OURS), 175, &without);
        let answer = Wire::with_node(ask.mac()).send(ask, &sent).unwrap();
        let loader = if ask.is_bios() { "undionly.kpxe" } else { "snponly.efi" };
        assert_eq!(Message::read(&answer.bytes).file, loader, "{}", ask.place);
    }
}

/// One packet of each sort: those that differ in transaction, time or card only are left out.
fn sorts() -> Vec<Ask> {
    let mut sorts: Vec<Ask> = vec![];
    let shape = |ask: &Ask| {
        let Message { options, flags, ciaddr, .. } = ask.message.clone();
        let is_shape = |(code, _): &(u8, Vec<u8>)| !matches!(code, 50 | 61);
        (
            ask.service == Service::Dhcp,
            flags,
            ciaddr,
            options.into_iter().filter(is_shape).collect::<Vec<_>>(),
        )
    };
    for ask in dialogues().into_iter().flatten() {
        if !sorts.iter().any(|other| shape(other) == shape(&ask)) {
            sorts.push(ask);
        }
    }
    sorts
}

#[test]
fn no_spoilt_packet_breaks_the_server_or_takes_what_is_another_machines() {
    let sorts = sorts();
    assert_eq!(sorts.len(), 47);
    let mut answered = 0;
    for ask in &sorts {
        let mut wires = [Wire::with_node(ask.mac()), Wire::without_nodes()];
        for bytes in spoilt(&ask.taking(NODE, OURS), 1) {
            for wire in &mut wires {
                wire.dhcp = Dhcp::default();
                let Ok(answer) = wire.send(ask, &bytes) else { continue };
                answered += 1;
                let message = Message::read(&answer.bytes);
                assert_eq!(message.op_htype_hlen_hops, [2, 1, 6, 0]);
                assert_eq!((&message.xid[..], message.mac()), (&bytes[4..8], answer.mac));
                assert!((300..=1472).contains(&answer.bytes.len()));
                assert!(message.yiaddr != NODE || answer.mac == ask.mac(), "{}", ask.place);
                let ip = match answer.destination {
                    Destination::Broadcast => continue,
                    Destination::Unicast { ip, .. } | Destination::Relay(ip) => ip,
                    Destination::Client(client) => *client.ip(),
                };
                assert!(wire.site.cluster.network().subnet.contains(&ip), "{}: {ip}", ask.place);
            }
        }
    }
    assert!(answered > 30_000, "{answered}: most changes are harmless");
}
