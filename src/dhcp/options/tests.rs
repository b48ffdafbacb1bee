use proptest::prelude::*;

use super::*;

fn parse(vend: &[u8]) -> Options {
    Options::parse(vend, &[], &[])
}

// RFC 2132 sections 3.1 and 3.2.
#[test]
fn pads_are_skipped_and_the_end_ends() {
    let options = parse(&[0, 53, 1, 1, 0, 0, 12, 2, b'p', b'c', 255, 61, 1, 9]);
    assert_eq!(options.fixed(OptionCode::MessageType), Some([1]));
    assert_eq!(options.get(OptionCode::Hostname), Some(&b"pc"[..]));
    assert_eq!(options.get(OptionCode::ClientIdentifier), None);
}

// RFC 2131 section 4.1 wants an END; what stands before it is no less true without.
#[test]
fn a_missing_end_is_no_loss() {
    assert_eq!(parse(&[53, 1, 3]).fixed(OptionCode::MessageType), Some([3]));
}

#[test]
fn a_truncated_option_loses_only_itself() {
    for tail in [&[12, 9, b'p'][..], &[12], &[12, 200]] {
        let options = parse(&[&[53, 1, 3], tail].concat());
        assert_eq!(options.fixed(OptionCode::MessageType), Some([3]));
        assert_eq!(options.get(OptionCode::Hostname), None);
    }
}

// dhcproto 0.15 drops what stands behind such an option, or panics.
#[test]
fn options_that_dhcproto_chokes_on_hide_nothing() {
    // Non-UTF-8 host name, option 50 of length 3, 94 of length 2, 54 of length 0.
    let options = parse(&[12, 1, 0xff, 50, 3, 1, 2, 3, 94, 2, 1, 2, 54, 0, 53, 1, 1]);
    assert_eq!(options.fixed(OptionCode::MessageType), Some([1]));
    assert_eq!(options.fixed::<4>(OptionCode::RequestedIpAddress), None);
    assert_eq!(options.fixed::<4>(OptionCode::ServerIdentifier), None);
}

// RFC 3396 section 7.
#[test]
fn options_of_one_code_belong_together_wherever_they_stand() {
    let options = parse(&[60, 3, b'P', b'X', b'E', 53, 1, 1, 60, 2, b'C', b'l']);
    assert_eq!(options.get(OptionCode::ClassIdentifier), Some(&b"PXECl"[..]));
}

// RFC 2131 section 4.1; edk2 reads them in the same order.
#[test]
fn overloaded_fields_are_read_file_first_and_only_when_announced() {
    let (file, sname) = ([12, 1, b'f', 255], [12, 1, b's', 61, 1, 7]);
    let host = |overload: u8| {
        let options = Options::parse(&[52, 1, overload, 255], &file, &sname);
        options.get(OptionCode::Hostname).map(<[u8]>::to_vec)
    };
    assert_eq!(host(0), None);
    assert_eq!(host(1).as_deref(), Some(&b"f"[..]));
    assert_eq!(host(2).as_deref(), Some(&b"s"[..]));
    assert_eq!(host(3).as_deref(), Some(&b"fs"[..]));
    let nested = Options::parse(&[52, 1, 1], &[52, 1, 3], &sname);
    assert_eq!(nested.get(OptionCode::Hostname), None, "announced in the wrong place");
}

// isc-dhcp, common/options.c: "Some broken clients NUL-terminate".
#[test]
fn trailing_nuls_are_no_part_of_a_text() {
    assert_eq!(
        parse(&[77, 6, b'i', b'P', b'X', b'E', 0, 0]).text(OptionCode::UserClass),
        Some(&b"iPXE"[..])
    );
    assert_eq!(trim_nuls(&[0, 0]), b"");
}

proptest! {
    #[test]
    fn any_bytes_are_walked(vend in prop::collection::vec(any::<u8>(), 0..400), file: [u8; 32], sname: [u8; 32]) {
        let options = Options::parse(&vend, &file, &sname);
        let stored: usize = options.0.values().map(Vec::len).sum();
        prop_assert!(stored <= vend.len() + file.len() + sname.len());
    }

    #[test]
    fn what_was_written_is_read(written in prop::collection::btree_map(1u8..255, prop::collection::vec(any::<u8>(), 0..60), 0..12)) {
        prop_assume!(!written.contains_key(&OVERLOAD));
        let mut vend = vec![];
        for (code, value) in &written {
            vend.extend([*code, u8::try_from(value.len()).unwrap()]);
            vend.extend(value);
        }
        prop_assert_eq!(parse(&vend).0, written);
    }
}
