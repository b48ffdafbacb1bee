use proptest::prelude::*;

use super::*;
use crate::cluster::sample::mac;
use crate::dhcp::tests::{CIADDR, HTTP, IPXE, ROM, SYSTEM, UEFI, packet, with};

fn parse(head: &[(u8, &[u8])], kind: &[(u8, &[u8])]) -> Request {
    Request::parse(&packet(mac(1), head, kind)).unwrap()
}

fn asker(kind: &[(u8, &[u8])]) -> Asker {
    parse(&[(53, &[1])], kind).asker
}

fn malformed(bytes: &[u8]) -> Malformed {
    Request::parse(bytes).unwrap_err()
}

// RFC 4578 section 2.1 with erratum 4624: 7 and 9 are swapped (xcat2/xcat-core#7645, opnsense/core#2223). Of several
// codes the first known one, as in tinkerbell/smee.
#[test]
fn askers_are_told_apart() {
    assert_eq!(asker(ROM), Asker::Rom(Arch::Bios));
    assert_eq!(asker(UEFI), Asker::Rom(Arch::UefiX64));
    assert_eq!(asker(HTTP), Asker::HttpBoot(Arch::UefiX64));
    assert_eq!(asker(IPXE), Asker::Ipxe { arch: Arch::Bios, http: true });
    assert_eq!(asker(SYSTEM), Asker::System);
    assert_eq!(asker(&[(93, &[0, 9])]), Asker::Rom(Arch::UefiX64), "93 alone, and erratum 4624");
    assert_eq!(asker(&[(60, b"PXEClient")]), Asker::Rom(Arch::Bios), "60 alone");
    assert_eq!(asker(&[(60, b"PXEClient:Arch:00006:UNDI:003000")]), Asker::Rom(Arch::UefiIa32));
    assert_eq!(asker(&[(60, b"HTTPClient")]), Asker::HttpBoot(Arch::UefiX64));
    assert_eq!(asker(&[(93, &[0, 99, 0, 7, 1])]), Asker::Rom(Arch::UefiX64), "first known");
    assert_eq!(asker(&[(93, &[0, 99])]), Asker::Rom(Arch::Other(99)));
}

// iPXE sends option 77 as a bare text, RFC 3004 section 4 wants texts with lengths.
#[test]
fn ipxe_is_known_in_every_notation_of_its_class() {
    let ipxe = Asker::Ipxe { arch: Arch::Bios, http: true };
    for class in [&b"iPXE"[..], b"iPXE\0", b"\x04iPXE", b"\x03lab\x04iPXE", b"rekindle"] {
        assert_eq!(asker(&[(93, &[0, 0]), (77, class)]), ipxe);
    }
    for class in [&b""[..], b"gPXE", b"iPXEx", b"\x09iPXE"] {
        assert_eq!(asker(&[(93, &[0, 0]), (77, class)]), Asker::Rom(Arch::Bios));
    }
}

// iPXE include/ipxe/features.h; the ROM of a card may be built without HTTP.
#[test]
fn ipxe_without_http_is_known_by_its_feature_list() {
    let with_features = |features: &'static [u8]| asker(&[(77, b"iPXE"), (175, features)]);
    let (arch, http) = (Arch::Bios, false);
    assert_eq!(with_features(&[33, 1, 1]), Asker::Ipxe { arch, http });
    assert_eq!(with_features(&[33, 1, 1, 19, 1, 1]), Asker::Ipxe { arch, http: true });
}

// RFC 2131 section 4.3.2 and table 5. Whoever asks for an address has none, whatever it wrote: dnsmasq zeroes it, too.
#[test]
fn requests_are_told_apart_by_the_state_of_their_sender() {
    let (server, ip) = (Ipv4Addr::new(192, 168, 10, 1), Ipv4Addr::new(192, 168, 10, 7));
    let claim = |head: &[(u8, &[u8])], ciaddr: [u8; 4]| {
        let request = Request::parse(&with(packet(mac(1), head, &[]), CIADDR, &ciaddr))?;
        Ok::<_, Malformed>((request.message, request.ciaddr))
    };
    let (zero, none) = (Ipv4Addr::UNSPECIFIED, [0; 4]);
    let (named, by) = ((50, &ip.octets()[..]), (54, &server.octets()[..]));
    let request = (53, &[3][..]);
    let selecting = |ip| Message::Request(Claim::Selecting { server, ip });
    assert_eq!(claim(&[request, by, named], none), Ok((selecting(Some(ip)), zero)));
    assert_eq!(claim(&[request, by], ip.octets()), Ok((selecting(Some(ip)), zero)));
    assert_eq!(claim(&[request, by], none), Ok((selecting(None), zero)));
    let reboot = Message::Request(Claim::InitReboot { ip });
    assert_eq!(claim(&[request, named], none), Ok((reboot, zero)));
    assert_eq!(claim(&[request, named], [1, 2, 3, 4]), Ok((reboot, zero)));
    let renewing = Message::Request(Claim::Renewing);
    assert_eq!(claim(&[request], ip.octets()), Ok((renewing, ip)));
    assert_eq!(claim(&[request], none), Err(Malformed::NoAddress));
    let discover = Message::Discover { wanted: None };
    assert_eq!(claim(&[(53, &[1])], ip.octets()), Ok((discover, zero)), "it cannot have one");
    assert_eq!(claim(&[], none), Ok((Message::Bootp, zero)));
}

#[test]
fn servers_messages_are_not_for_us() {
    for code in [2, 5, 6, 9, 200] {
        let bytes = packet(mac(1), &[(53, &[code])], &[]);
        assert_eq!(malformed(&bytes), Malformed::MessageType(code));
    }
}

// dnsmasq (rfc2131.c, dhcp_reply) drops the same: addresses longer than chaddr, no cookie.
#[test]
fn what_is_no_request_is_named() {
    let good = packet(mac(1), &[(53, &[1])], ROM);
    assert_eq!(malformed(&good[..239]), Malformed::Short { len: 239 });
    assert_eq!(malformed(&with(good.clone(), 0, &[2])), Malformed::NotARequest(2));
    assert_eq!(
        malformed(&with(good.clone(), 2, &[255])),
        Malformed::NotEthernet { htype: 1, hlen: 255 }
    );
    assert_eq!(malformed(&with(good.clone(), 3, &[17])), Malformed::Hops(17));
    assert_eq!(malformed(&with(good.clone(), 236, &[0])), Malformed::Cookie);
    assert_eq!(malformed(&with(good.clone(), 28, &[1])), Malformed::NotACard);
    assert_eq!(malformed(&with(good, 28, &[0; 6])), Malformed::NotACard);
}

// RFC 2132 section 9.10; edk2 sends 1472 in DISCOVER and its bytes swapped in REQUEST (every OVMF capture).
#[test]
fn the_size_a_client_takes_stays_within_reason() {
    let size = |value: &[u8]| parse(&[(57, value)], &[]).size_max;
    assert_eq!(parse(&[], &[]).size_max, 548);
    assert_eq!(size(&[2, 64]), 548, "576 counts the headers in");
    assert_eq!(size(&[5, 192]), 1444);
    assert_eq!(size(&[0xff, 0]), 1472, "edk2's REQUEST asks for more than Ethernet carries");
    assert_eq!(size(&[0, 1]), 548);
    assert_eq!(size(&[9]), 548, "of the wrong length");
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        drop(Request::parse(&bytes));
    }

    #[test]
    fn any_options_behind_a_good_header_are_read(vend in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = packet(mac(1), &[], &[]);
        bytes.pop();
        bytes.extend(vend);
        let parsed = Request::parse(&bytes);
        let is_fine = matches!(parsed, Ok(_) | Err(Malformed::MessageType(_) | Malformed::NoAddress));
        prop_assert!(is_fine);
    }
}
