use proptest::prelude::*;

use super::*;

#[test]
fn words_are_quoted_where_they_must_be() {
    let ks = |text| KsWord::new("field", text).map(|word| word.to_string()).ok();
    assert_eq!(ks("Europe/Berlin").as_deref(), Some("Europe/Berlin"));
    assert_eq!(ks("a \"b\" \\").as_deref(), Some(r#""a \"b\" \\""#));
    assert_eq!(ks("").as_deref(), Some("\"\""));
    assert_eq!(ks("x\nrootpw --plaintext x"), None);
    let sh = |text| ShWord::new("field", text).map(|word| word.to_string()).ok();
    assert_eq!(sh("it's $(here)").as_deref(), Some(r"'it'\''s $(here)'"));
    assert_eq!(sh("a\0b"), None);
    for text in ["a\u{2028}rootpw --plaintext x", "a\u{2029}b", "a\u{85}b"] {
        assert_eq!((ks(text), sh(text)), (None, None), "{text:?}: Python ends a line there");
    }
}

#[test]
fn no_line_ends_the_document_it_stands_in() {
    let here = |text| HereLine::new("field", text).map(|line| line.to_string()).ok();
    assert_eq!(here("a $(b) REKINDLE 'c'").as_deref(), Some("a $(b) REKINDLE 'c'"));
    for text in ["REKINDLE", "%end", "a\nb", "a\u{2028}%end"] {
        assert_eq!(here(text), None, "{text}");
    }
}

#[test]
fn an_unwritable_value_is_named() {
    let error = KsWord::new("timezone", "a\nb").map_err(|error| error.to_string());
    assert_eq!(
        error.err().as_deref(),
        Some(
            "timezone: `a\\nb` cannot be written into a kickstart; remove quotes, control and other special characters"
        )
    );
}

#[test]
fn ipxe_never_expands_what_a_node_is_called() {
    assert_eq!(ScreenText::new("a ${net0/mac} && reboot").to_string(), "a   net0/mac     reboot");
}

proptest! {
    #[test]
    fn every_word_stays_one_line(text: String) {
        let words = [
            KsWord::new("f", &text).map(|word| word.to_string()),
            ShWord::new("f", &text).map(|word| word.to_string()),
            HereLine::new("f", &text).map(|word| word.to_string()),
            PackageWord::new(&text).map(|word| word.to_string()),
            KernelArgs::new(std::slice::from_ref(&text)).map(|word| word.to_string()),
            Ok(ScreenText::new(&text).to_string()),
        ];
        for word in words.into_iter().flatten() {
            prop_assert!(is_one_line(&word), "{word:?}");
        }
    }
}
