use super::*;

#[test]
fn node_names_are_dns_labels_that_begin_with_a_letter() {
    let too_long = "a".repeat(64);
    for good in ["worker1", "n", "rack2-node7"] {
        assert!(good.parse::<NodeName>().is_ok(), "{good}");
    }
    for bad in ["", "Worker1", "1worker", "node_01!", "a.b", "-a", "a-", "../x", "a b", &too_long] {
        assert!(bad.parse::<NodeName>().is_err(), "{bad}");
    }
}

#[test]
fn nothing_that_could_leave_a_line_a_word_or_a_folder_is_a_name() {
    for bad in ["a\n", "a\0", "a/b", "a'b", "a$b", "a;b", "a b", "ä", ""] {
        assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        assert!(bad.parse::<OsName>().is_err(), "{bad:?}");
        assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        assert!(bad.parse::<Role>().is_err(), "{bad:?}");
    }
}

#[test]
fn a_bad_name_says_what_to_write_instead() {
    let message = "Node!".parse::<NodeName>().map_err(|bad| bad.to_string());
    assert_eq!(
        message,
        Err("`Node!` cannot be a node name; use lower-case letters, digits and hyphens, begin \
             with a letter, at most 63 characters"
            .to_owned())
    );
}
