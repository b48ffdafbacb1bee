use proptest::prelude::*;

use super::*;

fn read(bytes: &[u8]) -> Read {
    match Packet::parse(bytes) {
        Ok(Packet::Read(read)) => read,
        other => panic!("{other:?}"),
    }
}

fn name(text: &[u8]) -> String {
    read(&[b"\0\x01", text, b"\0octet\0"].concat()).name
}

#[test]
fn a_request_with_options_is_read_in_order() {
    let read = read(b"\0\x01undionly.kpxe\0OCTET\0blksize\x001432\0TSIZE\x000\0");
    assert_eq!((read.name.as_str(), read.mode), ("undionly.kpxe", Mode::Octet));
    let asked = [("blksize", "1432"), ("TSIZE", "0")];
    assert_eq!(read.asked, asked.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

// Backslashes: shim. Capitals: dnsmasq's `--tftp-lowercase`. 0xFF: a ROM behind an option 67 without NUL,
// netbootxyz/netboot.xyz#1198 and garybowers/bootimus#117.
#[test]
fn names_are_freed_of_what_roms_do_to_them() {
    for text in [
        &b"snponly.efi"[..],
        b"/snponly.efi",
        b"///snponly.efi",
        b"\\snponly.efi",
        b".\\snponly.efi",
        b"SNPONLY.EFI",
        b"snponly.efi\xff",
        b"snponly.efi  ",
        b"snponly.efi\xff\xff\r\n",
    ] {
        assert_eq!(name(text), "snponly.efi");
    }
    assert_eq!(name(b"sb//./grubx64.efi"), "sb/grubx64.efi");
    assert_eq!(name(b"../etc/passwd"), "../etc/passwd", "refused later, not resolved");
}

// dnsmasq and async-tftp refuse what has more behind its end; a ROM cannot help it.
#[test]
fn the_end_of_a_request_may_be_missing_or_too_much() {
    for bytes in [
        &b"\0\x01a"[..],
        b"\0\x01a\0",
        b"\0\x01a\0octet",
        b"\0\x01a\0octet\0",
        b"\0\x01a\0octet\0\0\0\0",
        b"\0\x01a\0octet\0\xff",
        b"\0\x01a\0octet\0blksize",
        b"\0\x01a\0octet\0blksize\0",
    ] {
        let read = read(bytes);
        assert_eq!((read.name.as_str(), read.mode), ("a", Mode::Octet));
    }
    assert_eq!(read(b"\0\x01a\0octet\0blksize\x00512").asked.len(), 1);
    assert_eq!(read(b"\0\x01a\0binary\0").mode, Mode::Octet, "as TFTP's programs call it");
}

// RFC 1350 section 5, RFC 2347.
#[test]
fn every_operation_is_known() {
    assert_eq!(Packet::parse(b"\0\x02a\0octet\0"), Ok(Packet::Write));
    assert_eq!(Packet::parse(b"\0\x03\0\x01data"), Ok(Packet::Stray));
    assert_eq!(Packet::parse(b"\0\x04\x01\x02"), Ok(Packet::Ack(0x0102)));
    assert_eq!(Packet::parse(b"\0\x04\x01\x02junk"), Ok(Packet::Ack(0x0102)));
    assert_eq!(Packet::parse(b"\0\x05\0\x08User aborted\0"), Ok(Packet::Error(8)));
    assert_eq!(Packet::parse(b"\0\x05"), Ok(Packet::Error(0)));
    assert_eq!(Packet::parse(b"\0\x06tsize\0"), Ok(Packet::Stray));
    assert_eq!(Packet::parse(b"\0\x07"), Err(Malformed::Operation(7)));
    assert_eq!(Packet::parse(b"\0\x04\x01"), Err(Malformed::Short));
    assert_eq!(Packet::parse(b"\0"), Err(Malformed::Short));
    assert_eq!(Packet::parse(b"\0\x01"), Err(Malformed::NoName));
    assert_eq!(Packet::parse(b"\0\x01/\0octet\0"), Err(Malformed::NoName));
    assert_eq!(Packet::parse(b"\0\x01\xff\0octet\0"), Err(Malformed::NoName));
}

// RFC 1350 section 5, RFC 2347.
#[test]
fn what_is_sent_looks_as_rfc_1350_draws_it() {
    let mut bytes = vec![9];
    append_data(258, 3, &mut bytes);
    assert_eq!(bytes, b"\x09\0\x03\x01\x02\0\0\0");
    assert_eq!(oack(&[("tsize".to_owned(), 70)]), b"\0\x06tsize\x0070\0");
    assert_eq!(error(Refusal::NotFound), b"\0\x05\0\x01no such file\0");
}

proptest! {
    #[test]
    fn any_bytes_are_a_packet_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(Packet::Read(read)) = Packet::parse(&bytes) {
            prop_assert!(!read.name.is_empty() && !read.name.starts_with('/'));
            prop_assert!(!read.name.contains(['\\', '\0']));
        }
    }

    #[test]
    fn what_was_asked_is_read(options in prop::collection::vec(("[a-z]{1,10}", "[0-9]{1,6}"), 0..5)) {
        let mut bytes = b"\0\x01a.b\0netascii\0".to_vec();
        for (name, value) in &options {
            bytes.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        let read = read(&bytes);
        prop_assert_eq!(read.mode, Mode::Netascii);
        prop_assert_eq!(read.asked, options);
    }
}
