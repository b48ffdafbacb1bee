//! Eyes and hands that share nothing with `src/`: DHCP messages read byte by byte and changed in
//! one place, and packets spoilt.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;

use rekindle::cluster::Cluster;
use rekindle::mac::Mac;

/// The server of the captures.
pub(crate) const THEIRS: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 1);
/// Us, where the captured clients name somebody else.
pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 254);
/// An address that no capture names.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 10);

/// A cluster of one node at most. None of the captures names an address of its discovery range.
pub(crate) fn cluster(master: Ipv4Addr, node: Option<(Mac, Ipv4Addr)>, strangers: bool) -> Cluster {
    let node = node.map_or_else(String::new, |(mac, ip)| {
        format!("[[node]]\nname = \"worker1\"\nmac = \"{mac}\"\nip = \"{ip}\"\n")
    });
    let text = format!(
        r#"
        [network]
        uplink = "eth0"
        interface = "eth1"
        address = "{master}/24"
        workers = "192.168.10.10-192.168.10.199"
        discovery = "192.168.10.200-192.168.10.240"
        strangers = {strangers}
        [os.el9]
        tree = "/srv/rekindle/tree/el9"
        [defaults]
        os = "el9"
        admin_keys = [
          "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz you@home",
        ]
        {node}"#
    );
    Cluster::parse(&text, Path::new("cluster.toml")).unwrap()
}

/// A DHCP message, every byte of it: what stands behind texts and options must be zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) op_htype_hlen_hops: [u8; 4],
    pub(crate) xid: [u8; 4],
    pub(crate) secs: [u8; 2],
    pub(crate) flags: [u8; 2],
    pub(crate) ciaddr: Ipv4Addr,
    pub(crate) yiaddr: Ipv4Addr,
    pub(crate) siaddr: Ipv4Addr,
    pub(crate) giaddr: Ipv4Addr,
    pub(crate) chaddr: [u8; 16],
    pub(crate) sname: String,
    pub(crate) file: String,
    pub(crate) options: Vec<(u8, Vec<u8>)>,
}

impl Message {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let ip = |at: usize| Ipv4Addr::from(bytes[at..].first_chunk::<4>().copied().unwrap());
        assert_eq!(bytes[236..240], [99, 130, 83, 99], "cookie");
        let places = option_places(bytes);
        let end = places.last().map_or(240, |(_, value)| value.end);
        assert_eq!(bytes[end], 255, "option 255 ends the others");
        assert!(bytes[end + 1..].iter().all(|byte| *byte == 0), "zeros behind the end");
        Self {
            op_htype_hlen_hops: bytes[..4].try_into().unwrap(),
            xid: bytes[4..8].try_into().unwrap(),
            secs: bytes[8..10].try_into().unwrap(),
            flags: bytes[10..12].try_into().unwrap(),
            ciaddr: ip(12),
            yiaddr: ip(16),
            siaddr: ip(20),
            giaddr: ip(24),
            chaddr: bytes[28..44].try_into().unwrap(),
            sname: text(&bytes[44..108]),
            file: text(&bytes[108..236]),
            options: places
                .into_iter()
                .map(|(code, value)| (code, bytes[value].to_vec()))
                .collect(),
        }
    }

    pub(crate) fn mac(&self) -> Mac {
        Mac::from_wire(*self.chaddr.first_chunk().unwrap()).unwrap()
    }

    pub(crate) fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|(it, _)| *it == code).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn ip(&self, code: u8) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.option(code)?).unwrap()))
    }

    pub(crate) fn asks_for(&self, code: u8) -> bool {
        self.option(55).is_some_and(|codes| codes.contains(&code))
    }
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).expect("a NUL ends the text");
    assert!(field[end..].iter().all(|byte| *byte == 0), "zeros behind the text");
    String::from_utf8(field[..end].to_vec()).unwrap()
}

/// Where each option's value stands.
fn option_places(bytes: &[u8]) -> Vec<(u8, Range<usize>)> {
    let (mut places, mut at) = (vec![], 240);
    while bytes[at] != 255 {
        let start = at + 2;
        at = start + usize::from(bytes[at + 1]);
        places.push((bytes[start - 2], start..at));
    }
    places
}

/// The message with another value, of the same length, in an option it has.
pub(crate) fn with_option(mut bytes: Vec<u8>, code: u8, value: &[u8]) -> Vec<u8> {
    let (_, place) = option_places(&bytes).into_iter().find(|(it, _)| *it == code).unwrap();
    bytes[place].copy_from_slice(value);
    bytes
}

/// The message without an option it has.
pub(crate) fn without_option(mut bytes: Vec<u8>, code: u8) -> Vec<u8> {
    let (_, place) = option_places(&bytes).into_iter().find(|(it, _)| *it == code).unwrap();
    bytes.drain(place.start - 2..place.end);
    bytes
}

/// The message as a relay passes it on: its address in giaddr, its option 82 behind the others.
pub(crate) fn relayed(mut bytes: Vec<u8>, relay: Ipv4Addr, info: &[u8]) -> Vec<u8> {
    let end = option_places(&bytes).last().unwrap().1.end;
    let option = [&[82, u8::try_from(info.len()).unwrap()], info].concat();
    bytes.splice(end..end, option);
    bytes[3] += 1;
    bytes[24..28].copy_from_slice(&relay.octets());
    bytes
}

/// The packet cut at every length, and with each of its bytes changed in `changes` ways; the same
/// ones in every run.
pub(crate) fn spoilt(bytes: &[u8], changes: usize) -> impl Iterator<Item = Vec<u8>> {
    let cut = (0..bytes.len()).map(|len| bytes[..len].to_vec());
    let mut random = Random(bytes.len() as u64);
    let flipped = (0..bytes.len() * changes).map(move |turn| {
        let mut copy = bytes.to_vec();
        let at = turn % copy.len();
        // Never 0, which would change nothing.
        copy[at] ^= random.below(255) + 1;
        copy
    });
    cut.chain(flipped)
}

/// Steele and Vigna's splitmix64.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u8) -> u8 {
        let [byte, ..] = self.next().to_le_bytes();
        byte % limit
    }
}
