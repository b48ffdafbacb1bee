//! Captures of real machines: the files of `tests/captures/` -> the IPv4 datagrams in them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

/// Everything one machine and its server said to each other.
pub(crate) struct Capture {
    /// The file's name without its extension.
    pub(crate) name: String,
    /// In the order of the wire.
    pub(crate) packets: Vec<Packet>,
}

pub(crate) struct Packet {
    /// Since the first frame.
    pub(crate) at: Duration,
    pub(crate) transport: Transport,
    pub(crate) from: SocketAddrV4,
    pub(crate) to: SocketAddrV4,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// All captures, by name.
pub(crate) fn captures() -> Vec<Capture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut captures = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "pcap") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let packets = frames(&std::fs::read(path).unwrap())
                .filter_map(|(at, frame)| packet(at, frame))
                .collect();
            captures.push(Capture { name, packets });
        }
    }
    captures.sort_by(|one, other| one.name.cmp(&other.name));
    captures
}

/// tcpdump's classic file on a little-endian machine: times in microseconds, whole frames.
fn frames(file: &[u8]) -> impl Iterator<Item = (Duration, &[u8])> {
    let word = |at: &[u8]| u32::from_le_bytes(*at.first_chunk().unwrap());
    assert_eq!(word(file), 0xa1b2_c3d4, "the byte order or time unit is another");
    assert_eq!(word(&file[20..]), 1, "it is not Ethernet");
    let mut rest = &file[24..];
    let mut first = None;
    std::iter::from_fn(move || {
        let (record, behind) = rest.split_at_checked(16)?;
        let at = Duration::new(word(record).into(), word(&record[4..]) * 1000);
        let (held, sent) = (word(&record[8..]), word(&record[12..]));
        assert_eq!(held, sent, "a frame was cut off");
        let (frame, behind) = behind.split_at(usize::try_from(held).unwrap());
        rest = behind;
        Some((at - *first.get_or_insert(at), frame))
    })
}

/// `None` for what is not UDP or TCP over IPv4, and for fragments.
fn packet(at: Duration, frame: &[u8]) -> Option<Packet> {
    let short = |at: &[u8]| u16::from_be_bytes(*at.first_chunk().unwrap());
    let (ethernet, ip) = frame.split_at(14);
    if short(&ethernet[12..]) != 0x0800 || short(&ip[6..]) & 0x3fff != 0 {
        return None;
    }
    let address = |at: &[u8]| Ipv4Addr::from(*at.first_chunk::<4>().unwrap());
    let segment = &ip[usize::from(ip[0] & 15) * 4..short(&ip[2..]).into()];
    let (transport, payload) = match ip[9] {
        17 => (Transport::Udp, &segment[8..short(&segment[4..]).into()]),
        6 => (Transport::Tcp, &segment[usize::from(segment[12] >> 4) * 4..]),
        _ => return None,
    };
    let from = SocketAddrV4::new(address(&ip[12..]), short(segment));
    let to = SocketAddrV4::new(address(&ip[16..]), short(&segment[2..]));
    Some(Packet { at, transport, from, to, payload: payload.to_vec() })
}

#[test]
fn nothing_in_the_captures_is_missed() {
    let captures = captures();
    let count = |transport| {
        let packets = captures.iter().flat_map(|capture| &capture.packets);
        packets.filter(|packet| packet.transport == transport).count()
    };
    // `tcpdump -r FILE ip and udp`, and the same for tcp, over all of them.
    assert_eq!((captures.len(), count(Transport::Udp), count(Transport::Tcp)), (35, 564, 437));
}
