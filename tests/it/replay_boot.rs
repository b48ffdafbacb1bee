//! The captured boots as a whole: what the machines sent, byte for byte and in its order, fed to
//! us as if we had been their server. Only file names of loaders are ours.

use std::net::Ipv4Addr;

use rekindle::cluster::Cluster;
use rekindle::dhcp::reply::Kind;
use rekindle::http::{self, Endpoint, Method, NoEndpoint};
use rekindle::mac::Mac;
use rekindle::machine::Loader;
use rekindle::tftp::Step;

use crate::pcap::{self, Capture, Packet, Transport};
use crate::replay_dhcp::{Ask, Wire, asks};
use crate::replay_tftp::{Asked, fetch_whole, reads, renamed, server};
use crate::wire::{Message, THEIRS, cluster};

/// How each capture goes on from DHCP, and how many HTTP requests are in it. `FILE?` is an offer
/// of that file, `FILE!` its confirmation, `sent` a loader that was read whole, `404` a name that
/// is not ours; what comes again at once is told once. Files of ours are shortened.
const STORIES: [(&str, &str, usize); 35] = [
    ("a-bios-e1000-ipxe2019", "script? script! 404", 3),
    ("a-bios-e1000e-ipxe2019", "script? script! 404", 3),
    ("a-bios-i82557b-ipxe2019", "script? script! 404", 2),
    ("a-bios-ne2k_pci-ipxe2019", "script? script! 404", 3),
    ("a-bios-pcnet-ipxe2019", "script? script! 404", 2),
    ("a-bios-rtl8139-ipxe2019", "script? script! 404", 3),
    ("a-bios-virtio-net-pci-ipxe2019", "script? script! 404", 3),
    ("b-legacyrom-e1000-undionly2019", "undionly? undionly! sent script? script! 404", 3),
    ("b-legacyrom-e1000-undionly2025", "undionly? undionly! sent script? script! 404", 3),
    ("b-legacyrom-e1000-undionlyHEAD", "undionly? undionly! sent script? script! 404", 3),
    ("b-legacyrom-rtl8139-undionly2019", "undionly? undionly! sent script? script! 404", 3),
    ("b-legacyrom-virtio-undionly2019", "undionly? undionly! sent script? script! 404", 3),
    ("c-ovmf-e1000rom-snponly2025", "script? script! 404", 3),
    ("c-ovmf-virtio-ipxe2019", "snponly? snponly! sent script? script! 404", 3),
    ("c-ovmf-virtio-snponly2019", "snponly? snponly! sent script? script! 404", 3),
    ("c-ovmf-virtio-snponly2025", "snponly? snponly! sent 404 script? script! 404", 3),
    ("di-netboot", "script? script! 404 nothing? nothing! 404", 28),
    ("e-ovmf-sb-shim-grub-http", "snponly? url? url! 404", 6),
    ("e-ovmf-sb-shim-grub-tftp", "snponly? snponly! sent 404 url?", 0),
    ("e-ovmf-sb-shim-grub-tftp3", "snponly? snponly! sent 404", 0),
    (
        "el-bios-legacy-e1000-ide",
        "undionly? undionly! sent script? script! nothing? nothing! \
         undionly? undionly! sent script? script!",
        0,
    ),
    ("el-bios-virtio", "script? script! nothing? nothing! script? script!", 0),
    ("el-install-bios-virtio", "script? script! nothing? nothing! script? script!", 0),
    ("proto-A1", "snponly? snponly! sent script? script!", 0),
    ("proto-A2", "snponly? snponly! sent script? script!", 0),
    ("proto-B1", "snponly? snponly! url?", 0),
    ("proto-B2", "snponly? snponly! sent script? script!", 0),
    ("proto-B3", "snponly? snponly! sent script? script!", 0),
    ("proto-B4", "snponly? snponly! sent script? script!", 0),
    ("proto-C1", "script? script!", 0),
    ("proto-C2", "script? script!", 0),
    ("proto-C3", "script? script!", 0),
    ("proto-D1", "snponly? url? url!", 0),
    ("proto-E1", "snponly? snponly! sent script? script!", 0),
    ("proto-S1", "snponly? snponly! sent 404", 0),
];

/// A machine between its power button and the end of its capture.
struct Boot {
    wire: Wire,
    mac: Mac,
    /// The file of the last confirmation.
    file: String,
    steps: Vec<String>,
    http: usize,
}

impl Boot {
    fn new(mac: Mac, cluster: Cluster) -> Self {
        Self { wire: Wire::of(cluster), mac, file: String::new(), steps: vec![], http: 0 }
    }

    fn tell(&mut self, step: String) {
        if self.steps.last() != Some(&step) {
            self.steps.push(step);
        }
    }

    fn dhcp(&mut self, ask: &Ask) {
        let answer = self.wire.send(ask, &ask.bytes).unwrap();
        let file = Message::read(&answer.bytes).file;
        let short = match file.strip_prefix(&format!("http://{THEIRS}")) {
            Some(path) if ask.is_ipxe() => {
                let script = Ok(Endpoint::Script(self.mac, None));
                assert_eq!(http::route(Method::Get, path), script);
                "script"
            }
            Some(path) => {
                let loader = Ok(Endpoint::Loader(Loader::SnponlyX64));
                assert_eq!(http::route(Method::Get, path), loader);
                "url"
            }
            None => file.split('.').next().unwrap(),
        };
        let short = if short.is_empty() { "nothing" } else { short };
        let mark = if answer.kind == Kind::Offer { '?' } else { '!' };
        self.tell(format!("{short}{mark}"));
        if answer.kind == Kind::Ack {
            self.file = file;
        }
    }

    /// The first file is the one DHCP named. Later ones are named by what was loaded.
    fn tftp(&mut self, asked: &Asked, is_first: bool) {
        if !is_first {
            let step = server(1).request(&asked.bytes, asked.from, asked.at);
            assert!(matches!(step, Step::Refuse { .. }), "{step:?}");
            self.tell("404".to_owned());
            return;
        }
        let loader = Loader::ALL.into_iter().find(|loader| loader.file_name() == self.file);
        let request = renamed(&asked.bytes, self.file.as_bytes());
        fetch_whole(&request, asked.from, loader.unwrap(), 74_213);
        self.tell("sent".to_owned());
    }

    /// The paths are those of another server; ours it would have got from the script.
    fn http(&mut self, packet: &Packet) {
        let end = packet.payload.iter().position(|byte| *byte == b'\r').unwrap();
        let line = std::str::from_utf8(&packet.payload[..end]).unwrap();
        let path = line.split(' ').nth(1).unwrap();
        assert_eq!(http::route(Method::Get, path), Err(NoEndpoint::NotFound), "{line}");
        self.tell("404".to_owned());
        self.http += 1;
    }
}

fn is_http(packet: &Packet) -> bool {
    let is_request = packet.payload.starts_with(b"GET ") || packet.payload.starts_with(b"HEAD ");
    packet.transport == Transport::Tcp && packet.to.port() == 80 && is_request
}

/// The address the captured server gave, the same in every dialogue of a capture.
fn lease(asks: &[Ask]) -> Ipv4Addr {
    asks.iter().find_map(|ask| ask.message.ip(50)).unwrap()
}

fn boot(capture: &Capture) -> Boot {
    let (asks, reads) = (asks(capture), reads(capture));
    let (mac, ip) = (asks[0].message.mac(), lease(&asks));
    let mut boot = Boot::new(mac, cluster(THEIRS, Some((mac, ip)), false));
    let (mut next_ask, mut next_read) = (asks.iter().peekable(), reads.iter());
    let first = reads.first().map(|asked| asked.read.name.clone());
    for packet in &capture.packets {
        if next_ask.peek().is_some_and(|ask| ask.bytes == packet.payload) {
            boot.dhcp(next_ask.next().unwrap());
        } else if packet.transport == Transport::Udp && packet.to.port() == 69 {
            let asked = next_read.next().unwrap();
            boot.tftp(asked, Some(&asked.read.name) == first.as_ref());
        } else if is_http(packet) {
            boot.http(packet);
            assert_eq!(
                boot.wire.dhcp.mac_of(*packet.from.ip(), &boot.wire.site.cluster),
                Some(mac)
            );
        }
    }
    assert!(next_ask.next().is_none() && next_read.next().is_none());
    boot
}

#[test]
fn every_captured_boot_goes_its_way_with_us_as_the_server() {
    let stories: Vec<_> = pcap::captures()
        .iter()
        .map(|capture| {
            let boot = boot(capture);
            (capture.name.clone(), boot.steps.join(" "), boot.http)
        })
        .collect();
    let known = STORIES.map(|(name, story, http)| (name.to_owned(), story.to_owned(), http));
    for (story, known) in stories.iter().zip(&known) {
        assert_eq!(story, known);
    }
    assert_eq!(stories.len(), known.len());
}
