use proptest::prelude::*;

use super::*;

fn check(text: &str, expected: Option<&str>) {
    let got = text.parse::<Mac>().ok().map(|mac| mac.to_string());
    assert_eq!(got.as_deref(), expected, "{text:?}");
}

#[test]
fn reads_every_notation_that_stickers_and_tools_use() {
    let mac = Some("52:54:00:aa:bb:01");
    check("52:54:00:aa:bb:01", mac);
    check("52-54-00-AA-BB-01", mac);
    check("5254.00AA.bb01", mac);
    check("525400aabb01", mac);
    check(" 52:54:0:aa:bb:1 ", mac);
    check("01-52-54-00-aa-bb-01", mac);
}

#[test]
fn refuses_what_no_card_can_have() {
    for text in
        ["", "52:54", "52:54:00:aa:bb:zz", "52:54:00:aa:bb:01:02", "+25400aabb01", "5254:00aa"]
    {
        check(text, None);
    }
    check("ff:ff:ff:ff:ff:ff", None);
    check("00:00:00:00:00:00", None);
    check("01:00:5e:00:00:01", None);
}

proptest! {
    #[test]
    fn printing_and_reading_agree(bytes: [u8; 6]) {
        if let Some(mac) = Mac::from_wire(bytes) {
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            prop_assert_eq!(mac.hyphens().parse(), Ok(mac));
        }
    }

    #[test]
    fn no_text_panics(text: String) {
        drop(text.parse::<Mac>());
    }
}
