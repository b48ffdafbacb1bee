use super::*;
use crate::media::tests::tree;

fn fits(cpu: Option<CpuLevel>, nic: Option<&str>, release: Release) -> Result<(), String> {
    let cpu_needed = release.cpu_floor();
    let tree = Tree { release, cpu: cpu_needed, ..tree() };
    let nic = nic.map(|text| text.parse().expect("PCI id"));
    Hardware { cpu, nic }.fits(&tree).map_err(|unfit| unfit.to_string())
}

#[test]
fn a_cpu_runs_what_its_level_allows() {
    use CpuLevel::{V0, V1, V2, V3};
    for (level, runs) in [
        (V0, &[][..]),
        (V1, &[Release::El7, Release::El8]),
        (V2, &[Release::El7, Release::El8, Release::El9]),
        (V3, &Release::ALL),
    ] {
        for release in Release::ALL {
            let fit = fits(Some(level), None, release).is_ok();
            assert_eq!(fit, runs.contains(&release), "{level} {release}");
        }
    }
}

#[test]
fn what_is_not_known_is_no_reason_to_refuse() {
    assert_eq!(fits(None, None, Release::El10), Ok(()));
}

#[test]
fn the_reason_is_in_plain_words() {
    assert_eq!(
        fits(Some(CpuLevel::V1), None, Release::El9),
        Err("this CPU has no SSE4.2: el9 cannot run on it, el8 and el7 can".to_owned())
    );
    assert_eq!(
        fits(Some(CpuLevel::V0), None, Release::El9),
        Err("this CPU has no 64-bit mode: el9 cannot run on it, no Enterprise Linux runs on it"
            .to_owned())
    );
    assert_eq!(
        fits(None, Some("0111ab4362"), Release::El9),
        Err("el9 has no driver (sky2) for this network card, put in an Intel or Realtek card, or install el7".to_owned())
    );
}

#[test]
fn cards_with_a_driver_pass_and_those_without_do_not() {
    for (id, release, good) in [
        ("018086100e", Release::El9, true),
        ("0110ec8168", Release::El10, true),
        ("011af41000", Release::El9, true),
        ("0111ab4362", Release::El7, true),
        ("0110de0057", Release::El7, false),
        ("0180861229", Release::El7, false),
    ] {
        assert_eq!(fits(None, Some(id), release).is_ok(), good, "{id} {release}");
    }
}

#[test]
fn odd_numbers_are_no_card() {
    for text in ["", "01", "01zzzzzzzz", "0280861229", "018086100e00"] {
        assert!(text.parse::<PciId>().is_err(), "{text}");
    }
}
