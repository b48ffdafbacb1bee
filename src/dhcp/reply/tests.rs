use super::*;
use crate::cluster::sample::{mac, network, node};
use crate::dhcp::tests::{HTTP, IPXE, ROM, UEFI, packet};

type Kinds<'a> = &'a [(u8, &'a [u8])];

fn encode(kind: Kinds<'_>, boot: Boot) -> Vec<u8> {
    let request = Request::parse(&packet(mac(1), &[(53, &[1])], kind)).unwrap();
    let (network, node) = (network(), node(1));
    let reply = Reply {
        request: &request,
        network: &network,
        kind: Kind::Offer,
        yiaddr: node.ip,
        lease_s: Some(300),
        name: Some(&node.name),
        boot,
    };
    reply.encode()
}

fn codes(bytes: &[u8]) -> Vec<u8> {
    crate::dhcp::options::walk(&bytes[240..]).map(|(code, _)| code).collect()
}

// 53 first: 23watejona/teatime-os#7. 82 last: RFC 3046 section 2.1.
#[test]
fn options_stand_in_the_order_that_small_stacks_need() {
    let mut kind = UEFI.to_vec();
    kind.extend([(61, &[1, 2, 3][..]), (82, &[1, 1, 7])]);
    let bytes = encode(&kind, Boot::Loader(Loader::SnponlyX64));
    assert_eq!(
        codes(&bytes),
        [53, 54, 51, 1, 3, 6, 12, 15, 28, 58, 59, 60, 43, 97, 66, 67, 61, 82]
    );
}

// With 60 alone edk2 asks for a boot server and ends with PXE-E16 (PxeBcDhcp4.c; tests/captures/proto-B1.pcap).
#[test]
fn sixty_and_fortythree_go_together_or_not_at_all() {
    let both = |bytes: Vec<u8>| {
        let codes = codes(&bytes);
        (codes.contains(&60), codes.contains(&43))
    };
    assert_eq!(both(encode(ROM, Boot::Loader(Loader::Undionly))), (true, true));
    assert_eq!(both(encode(ROM, Boot::Nothing)), (false, false), "there is no file to use");
    assert_eq!(both(encode(IPXE, Boot::Script)), (false, false));
    assert_eq!(both(encode(&[(93, &[0, 0])], Boot::Loader(Loader::Undionly))), (false, false));
    assert_eq!(both(encode(HTTP, Boot::Loader(Loader::SnponlyX64))), (true, false));
}

// ROMs swallow the byte behind option 67: netbootxyz/netboot.xyz#1198, dnsmasq rfc2131.c ("buggy PXE").
#[test]
fn sixtysix_and_sixtyseven_come_only_when_asked_for_and_end_with_nul() {
    let bytes = encode(ROM, Boot::Loader(Loader::Undionly));
    let value = |wanted| {
        let found = crate::dhcp::options::walk(&bytes[240..]).find(|(code, _)| *code == wanted);
        found.map(|(_, value)| value.to_vec())
    };
    assert_eq!(value(66).as_deref(), Some(&b"192.168.10.1\0"[..]));
    assert_eq!(value(67).as_deref(), Some(&b"undionly.kpxe\0"[..]));
    let unasked = encode(&[(60, b"PXEClient")], Boot::Loader(Loader::Undionly));
    assert!(!codes(&unasked).iter().any(|code| matches!(code, 66 | 67)));
}

// RFC 2131 section 2: 576 bytes of datagram is what every client takes.
#[test]
fn a_reply_fits_whatever_a_client_makes_us_echo() {
    let (long, longer) = ([7; 255], [9; 255]);
    let kind: Kinds<'_> =
        &[(60, b"PXEClient"), (55, &[66, 67]), (61, &long), (97, &longer), (82, &[1; 40])];
    let bytes = encode(kind, Boot::Loader(Loader::Undionly));
    assert!(bytes.len() <= 548);
    let codes = codes(&bytes);
    assert!(codes.contains(&60) && codes.contains(&43) && codes.contains(&67), "{codes:?}");
    assert!(codes.contains(&82) && !codes.contains(&97));
    let endless: Kinds<'_> = &[(82, &long), (82, &longer), (82, &long), (60, b"PXEClient")];
    assert!(!self::codes(&encode(endless, Boot::Nothing)).contains(&82));
}

#[test]
fn a_text_never_fills_its_field_to_the_end() {
    assert_eq!(field::<4>("abcdef"), *b"abc\0");
    assert_eq!(field::<4>(""), [0; 4]);
}
