//! What a node posts: stage and body -> [`Report`]. And its log lines -> package progress.

use crate::stage::Report;

/// Longest body that is read. A log's tail is 20 kB.
pub const BODY_MAX: usize = 64 * 1024;

/// Longest text that is kept of a node's own words.
const DETAIL_MAX: usize = 400;
/// Characters of a serial number that are kept.
const SERIAL_MAX: usize = 64;
const LOG_MAX: usize = 20_000;

/// The stages a node may report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageName {
    /// `%pre` runs.
    Pre,
    /// The disk is chosen.
    Disk,
    /// Packages go in.
    Packages,
    /// `%post` runs.
    Post,
    /// The installer is through.
    Installed,
    /// The installed system is up.
    FirstBoot,
    /// The installer gave up.
    Failed,
}

impl StageName {
    /// Reads the last segment of an event's path.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "pre" => Self::Pre,
            "disk" => Self::Disk,
            "packages" => Self::Packages,
            "post" => Self::Post,
            "installed" => Self::Installed,
            "first-boot" => Self::FirstBoot,
            "failed" => Self::Failed,
            _ => return None,
        })
    }
}

/// Makes a report of what was posted; `None` when the body does not fit the stage.
pub fn report(stage: StageName, body: &[u8]) -> Option<Report> {
    let text = printable(&String::from_utf8_lossy(body));
    let detail =
        || text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(DETAIL_MAX).collect();
    Some(match stage {
        StageName::Pre => Report::Pre { detail: detail() },
        StageName::Disk => Report::Disk {
            detail: detail(),
            serial: word_behind(&text, "serial")
                .map(|serial| serial.chars().take(SERIAL_MAX).collect()),
            drive: word_behind(&text, "drive").and_then(|word| word.parse().ok()),
        },
        StageName::Packages => {
            let (done, total) = fraction(text.trim())?;
            Report::Packages { done, total }
        }
        StageName::Post => Report::Post,
        StageName::Installed => Report::Installed,
        StageName::FirstBoot => Report::FirstBoot { detail: detail(), cores: cores(&text) },
        StageName::Failed => {
            let skip = text.chars().count().saturating_sub(LOG_MAX);
            Report::Failed { log: text.chars().skip(skip).collect() }
        }
    })
}

/// The number before `cores` in what a node says of itself; no machine has none, or a million.
fn cores(text: &str) -> Option<u32> {
    let words: Vec<_> = text.split_whitespace().collect();
    let pair = words.windows(2).find(|pair| matches!(pair, [_, "cores"]))?;
    pair.first()?.parse().ok().filter(|cores| (1..=4096).contains(cores))
}

/// A word in what a node says of its disk, by the word before it.
fn word_behind<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let word = text.split_whitespace().skip_while(|word| *word != name).nth(1)?;
    Some(word.trim_end_matches(',')).filter(|word| *word != "none")
}

/// Terminal escapes and other control characters of a node's words never reach a terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '\n' | '\t' => letter,
            '\r' => '\n',
            letter if letter.is_control() => '·',
            letter => letter,
        })
        .collect()
}

fn fraction(text: &str) -> Option<(u32, u32)> {
    let (done, total) = text.split_once('/')?;
    let (done, total) = (done.trim().parse().ok()?, total.trim().parse().ok()?);
    (done <= total && total > 0).then_some((done, total))
}

/// Package progress in a line of the installer's log: `… Installing NAME.ARCH (12/219)`, as
/// Anaconda's DNF payload writes it.
pub fn packages_in_log(line: &str) -> Option<(u32, u32)> {
    let (_, rest) = line.split_once("Installing ")?;
    let (_, rest) = rest.rsplit_once('(')?;
    fraction(rest.trim_end().strip_suffix(')')?)
}

/// Whether a step of the package counter is worth writing down: every twentieth part and the end.
pub fn is_milestone(before: Option<(u32, u32)>, done: u32, total: u32) -> bool {
    match before {
        Some((last, known)) if known == total => {
            done > last && (done == total || done - last >= (total / 20).max(1))
        }
        // One that changes to and fro would write without end.
        Some((_, known)) => total > known,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cores_are_counted_when_they_are_told() {
        let cores = |body: &[u8]| match report(StageName::FirstBoot, body) {
            Some(Report::FirstBoot { cores, .. }) => cores,
            other => panic!("no first boot: {other:?}"),
        };
        assert_eq!(cores(b"kernel 6.1.0, 4 cores"), Some(4));
        for bad in ["", "cores", "kernel 4", "0 cores", "-1 cores", "9999999 cores", "x cores"] {
            assert_eq!(cores(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_report_keeps_what_the_node_says_in_one_line() {
        let got = report(StageName::Disk, b"sda 500 GiB\n  ST500 ");
        let detail = "sda 500 GiB ST500".to_owned();
        assert_eq!(got, Some(Report::Disk { detail, serial: None, drive: None }));
        let disk = |body: &[u8]| match report(StageName::Disk, body) {
            Some(Report::Disk { serial, drive, .. }) => (serial, drive.map(|it| it.to_string())),
            other => panic!("no disk: {other:?}"),
        };
        let (serial, drive) = disk(b"sda, 1 GiB, BIOS drive 0x81, serial WD-12 x");
        assert_eq!((serial.as_deref(), drive.as_deref()), (Some("WD-12"), Some("0x81")));
        let (serial, _) = disk(b"sda, 1 GiB, serial WD-12, keeps /data=sda4");
        assert_eq!(serial.as_deref(), Some("WD-12"), "the comma is not part of it");
        for bad in [
            "serial none",
            "drive",
            "drive 0x7f",
            "drive 0x90",
            "drive 81",
            "drive 0x1ff",
            "drive 0x",
        ] {
            assert_eq!(disk(bad.as_bytes()), (None, None), "{bad}");
        }
    }

    #[test]
    fn packages_are_a_fraction() {
        let got = |body: &[u8]| report(StageName::Packages, body);
        assert_eq!(got(b"12/219\n"), Some(Report::Packages { done: 12, total: 219 }));
        for bad in [&b"12"[..], b"a/b", b"5/3", b"0/0", b"-1/5", b""] {
            assert_eq!(got(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_log_keeps_its_tail_without_terminal_escapes() {
        let body = format!("{}\x1b[2Jend", "x".repeat(50_000));
        let Some(Report::Failed { log }) = report(StageName::Failed, body.as_bytes()) else {
            panic!("a log");
        };
        assert_eq!(log.chars().count(), LOG_MAX);
        assert!(log.ends_with("·[2Jend"));
    }

    #[test]
    fn the_installers_log_tells_the_packages() {
        let line = "<14>Nov 24 02:03:04 worker1 packaging: Installing glibc.x86_64 (12/219)";
        assert_eq!(packages_in_log(line), Some((12, 219)));
        for other in ["Installing boot loader", "Installing x (a/b)", "Configuring x (1/2)", ""] {
            assert_eq!(packages_in_log(other), None, "{other}");
        }
    }

    #[test]
    fn the_counter_is_written_down_in_twentieths() {
        let mut last = None;
        let mut written = 0;
        for done in 1..=219 {
            if is_milestone(last, done, 219) {
                (last, written) = (Some((done, 219)), written + 1);
            }
        }
        assert_eq!((last, written), (Some((219, 219)), 23));
        assert!(!is_milestone(Some((100, 219)), 90, 219), "it never goes back");
    }

    proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>, line: String) {
            for stage in ["pre", "disk", "packages", "post", "installed", "first-boot", "failed"] {
                let stage = StageName::parse(stage).expect("stage");
                if let Some(Report::Failed { log: text } | Report::Pre { detail: text }) = report(stage, &body) {
                    prop_assert!(text.chars().all(|letter| !letter.is_control() || "\n\t".contains(letter)));
                }
            }
            packages_in_log(&line);
        }
    }
}
