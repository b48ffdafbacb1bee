//! Byte ranges: `Range` and its conditions against a file -> which part to send (RFC 9110
//! section 14). yum of EL7 fails on servers without them.

/// What part of a file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// 200, all of it.
    Whole,
    /// 206, from `first` to `last`, both included.
    Slice {
        /// First byte.
        first: u64,
        /// Last byte, at least `first`.
        last: u64,
    },
    /// 416, the file has no such bytes.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of `len` bytes.
///
/// A header that does not parse, another unit, or several ranges at once count as absent, which
/// RFC 9110 section 14.2 allows: the client gets the whole file.
pub fn part(header: Option<&str>, len: u64) -> Part {
    let Some(spec) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return Part::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else { return Part::Whole };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than u64 has is simply beyond the end.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (number(first.trim()), number(last.trim()), first.trim(), last.trim()) {
        (Some(first), Some(last), ..) if first > last => Part::Whole,
        (Some(first), ..)
            if first >= len && (last.trim().is_empty() || number(last.trim()).is_some()) =>
        {
            Part::Unsatisfiable
        }
        (Some(first), Some(last), ..) => Part::Slice { first, last: last.min(len - 1) },
        (Some(first), None, _, "") => Part::Slice { first, last: len - 1 },
        (None, Some(0), "", _) => Part::Unsatisfiable,
        (None, Some(_), "", _) if len == 0 => Part::Unsatisfiable,
        (None, Some(suffix), "", _) => {
            Part::Slice { first: len.saturating_sub(suffix), last: len - 1 }
        }
        _ => Part::Whole,
    }
}

/// Whether `If-Range` still holds: the client has a part of the very file we have now. An absent
/// header holds. Only our own strong tag and the exact date do (RFC 9110 section 13.1.5).
pub fn if_range_holds(header: Option<&str>, etag: &str, last_modified: &str) -> bool {
    header.is_none_or(|value| value == etag || value == last_modified)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(header: &str, len: u64, expected: Part) {
        assert_eq!(part(Some(header), len), expected, "{header} of {len}");
    }

    #[test]
    fn every_form_of_one_range_is_understood() {
        check("bytes=0-99", 1000, Part::Slice { first: 0, last: 99 });
        check("bytes=900-", 1000, Part::Slice { first: 900, last: 999 });
        check("bytes=-100", 1000, Part::Slice { first: 900, last: 999 });
        check("bytes=0-4000", 1000, Part::Slice { first: 0, last: 999 });
        check("bytes=-4000", 1000, Part::Slice { first: 0, last: 999 });
        check("bytes=5-99999999999999999999999", 1000, Part::Slice { first: 5, last: 999 });
    }

    #[test]
    fn bytes_beyond_the_end_are_refused() {
        for (header, len) in
            [("bytes=1000-", 1000), ("bytes=-0", 1000), ("bytes=0-", 0), ("bytes=-5", 0)]
        {
            check(header, len, Part::Unsatisfiable);
        }
    }

    #[test]
    fn what_is_no_single_range_counts_as_absent() {
        for header in [
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-3",
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=1-x",
            "bytes=+1-5",
        ] {
            check(header, 1000, Part::Whole);
        }
        assert_eq!(part(None, 1000), Part::Whole);
    }

    #[test]
    fn a_part_of_another_version_is_not_continued() {
        assert!(if_range_holds(None, "\"a\"", "date"));
        assert!(if_range_holds(Some("\"a\""), "\"a\"", "date"));
        assert!(if_range_holds(Some("date"), "\"a\"", "date"));
        assert!(!if_range_holds(Some("\"b\""), "\"a\"", "date"));
    }

    proptest! {
        #[test]
        fn a_slice_always_lies_inside_the_file(header in "(bytes=)?[0-9, a-]{0,24}", len: u64) {
            if let Part::Slice { first, last } = part(Some(&header), len) {
                prop_assert!(first <= last && last < len);
            }
        }
    }
}
