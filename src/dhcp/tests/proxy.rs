//! Beside another DHCP server that has to stay.

use super::*;
use crate::cluster::DhcpMode;

fn proxy() -> Wire {
    let mut parts = sample::parts();
    parts.network.dhcp = DhcpMode::Proxy;
    Wire::of(parts)
}

// PXE 2.1 section 2.2.3; the options as pixiecore and dnsmasq send them, and as edk2 tells offers apart
// (PxeBcDhcp4.c, PxeBcSelectDhcp4Offer).
#[test]
fn beside_another_server_a_machine_is_told_what_to_boot_and_no_address() {
    for (kind, file, has_vendor_options) in [
        (ROM, "undionly.kpxe", true),
        (UEFI, "snponly.efi", false),
        (IPXE, "http://192.168.10.1/ipxe/52-54-00-aa-bb-01", false),
    ] {
        let answer = proxy().discover(1, kind).unwrap();
        assert_eq!((answer.kind, answer.yiaddr), (Kind::Offer, Ipv4Addr::UNSPECIFIED));
        assert_eq!(answer.destination, Destination::Broadcast);
        let message = decode(&answer.bytes);
        assert_eq!(
            (message.siaddr(), message.fname()),
            (MASTER, Some(format!("{file}\0").as_bytes()))
        );
        let has = |code| message.opts().get(code).is_some();
        assert_eq!(
            message.opts().get(OptionCode::ClassIdentifier),
            Some(&DhcpOption::ClassIdentifier(b"PXEClient".to_vec()))
        );
        assert_eq!(has(OptionCode::VendorExtensions), has_vendor_options, "{file}");
        for code in [
            OptionCode::AddressLeaseTime,
            OptionCode::SubnetMask,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::Hostname,
        ] {
            assert!(!has(code), "{code:?}");
        }
    }
}

// danderson/netboot, README.booting: UEFI takes a proxy's file only from port 4011.
#[test]
fn a_proxy_answers_uefi_at_the_boot_servers_port() {
    let own = SocketAddrV4::new(ip(10), 4011);
    let bytes = with(packet(mac(1), &[(53, &[3])], UEFI), CIADDR, &own.ip().octets());
    let answer = proxy().send_to(Service::BootServer, own, &bytes).unwrap();
    assert_eq!((answer.kind, answer.destination), (Kind::Ack, Destination::Client(own)));
    let message = decode(&answer.bytes);
    assert_eq!(message.fname(), Some(&b"snponly.efi\0"[..]));
    assert_eq!(message.opts().get(OptionCode::VendorExtensions), None);
}

#[test]
fn a_proxy_says_nothing_where_an_address_is_asked_for() {
    let mut wire = proxy();
    let proxied = |last| Err(Ignored::Proxied(mac(last)));
    assert_eq!(wire.discover(1, SYSTEM), proxied(1));
    assert_eq!(wire.discover(STRANGER, SYSTEM), proxied(STRANGER));
    assert_eq!(wire.select(1, ip(10), ROM), proxied(1));
    assert_eq!(wire.init_reboot(1, ip(11), ROM), proxied(1));
    assert_eq!(wire.renew(1, ip(10), IPXE), proxied(1));
    let head: [(u8, &[u8]); 3] = [(53, &[3]), (54, &[192, 168, 10, 9]), (50, &[192, 168, 10, 5])];
    assert_eq!(wire.send(&packet(mac(1), &head, ROM)), proxied(1), "nobody is alarmed");
    let answer = wire.discover(STRANGER, ROM).unwrap();
    assert_eq!(answer.seen, Some(Event::Seen { arch: Arch::Bios, ip: Ipv4Addr::UNSPECIFIED }));
    assert_eq!(answer.yiaddr, Ipv4Addr::UNSPECIFIED);
}
