use proptest::prelude::*;

use super::*;

fn agree(asked: &[(&str, &str)]) -> Agreed {
    let asked: Vec<_> =
        asked.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Agreed::new(&asked, Mode::Octet, 70_000)
}

fn oack(asked: &[(&str, &str)]) -> Vec<(String, u64)> {
    agree(asked).oack
}

fn said(options: &[(&str, u64)]) -> Vec<(String, u64)> {
    options.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

// RFC 2347.
#[test]
fn without_options_there_is_no_oack() {
    let agreed = agree(&[]);
    assert_eq!((agreed.blksize, agreed.windowsize, agreed.timeout), (512, 1, None));
    assert!(agreed.oack.is_empty());
}

// Some ROMs give up over an OACK with something else in it: gagle/node-tftp#13, pypxe/PyPXE#125, troglobit/uftpd#43.
#[test]
fn options_come_back_as_they_were_spelled_and_ordered() {
    let asked = [("TSize", "0"), ("BLKSIZE", "1432"), ("windowsize", "4")];
    let agreed = said(&[("TSize", 70_000), ("BLKSIZE", 1432), ("windowsize", 4)]);
    assert_eq!(oack(&asked), agreed);
    // Liberal in what is accepted: RFC 1123 section 1.2.2.
    assert_eq!(oack(&[("blksize", " 1024 ")]), said(&[("blksize", 1024)]));
}

// RFC 2348, 2349 and 7440. dnsmasq clamps blksize to the MTU; tftpd took 8.58 GB for blksize 65464 in windows of 65535.
#[test]
fn sizes_stay_within_an_ethernet_frame_and_small_memory() {
    assert_eq!(oack(&[("blksize", "65464")]), said(&[("blksize", 1468)]));
    assert_eq!(agree(&[("blksize", "8")]).blksize, 8);
    assert_eq!(oack(&[("windowsize", "65535")]), said(&[("windowsize", 64)]));
    assert_eq!(agree(&[("windowsize", "65535")]).windowsize, 64);
    assert_eq!(agree(&[("timeout", "5")]).timeout, Some(Duration::from_secs(5)));
}

// RFC 2348: 8 to 65464; RFC 2349: 1 to 255; RFC 7440: 1 to 65535; RFC 2347: an option comes once.
#[test]
fn senseless_options_count_as_not_asked_for() {
    for (name, value) in [
        ("blksize", "7"),
        ("blksize", "many"),
        ("blksize", "-1"),
        ("blksize", "99999999999999999999"),
        ("windowsize", "0"),
        ("timeout", "0"),
        ("timeout", "256"),
        ("multicast", ""),
        ("", ""),
    ] {
        assert!(oack(&[(name, value)]).is_empty());
    }
    let doubled = [("blksize", "512"), ("BlkSize", "1024")];
    assert_eq!(oack(&doubled), said(&[("blksize", 512)]));
}

// RFC 2349: tsize is for octet transfers.
#[test]
fn the_size_of_a_text_is_not_told() {
    let asked = [("tsize".to_owned(), "0".to_owned())];
    assert!(Agreed::new(&asked, Mode::Netascii, 5).oack.is_empty());
}

proptest! {
    #[test]
    fn whatever_is_asked_the_terms_are_sane(asked in prop::collection::vec(("blksize|tsize|timeout|windowsize|[a-z]{0,6}", "[0-9]{0,20}"), 0..9)) {
        let agreed = Agreed::new(&asked, Mode::Octet, 1000);
        prop_assert!((8..=1468).contains(&agreed.blksize));
        prop_assert!((1..=64).contains(&agreed.windowsize));
        prop_assert!(agreed.oack.len() <= 4);
    }
}
