use super::*;
use crate::cluster::sample::mac;

/// Writes a journal as a dialogue: each event gets the next number and one second later.
pub(crate) fn journal(events: &[Event]) -> Vec<Entry> {
    let entry = |(index, event): (usize, &Event)| {
        let seq = index as u64 + 1;
        Entry { seq, at_ms: seq * 1000, mac: mac(1), event: event.clone() }
    };
    events.iter().enumerate().map(entry).collect()
}

pub(crate) const fn sent(plan: Plan) -> Event {
    Event::ScriptSent { plan, os: None, why: String::new() }
}

pub(crate) fn state(events: &[Event]) -> State {
    State::from_entries(&journal(events))
}

pub(crate) const SCRIPT: Event = sent(Plan::Install);
pub(crate) const RELEASED: Event = Event::Released { arm: 1 };

pub(crate) fn reported(report: Report) -> Event {
    Event::Reported { arm: 1, report }
}

pub(crate) fn pre() -> Event {
    reported(Report::Pre { detail: String::new() })
}

fn check(events: &[Event], stage: Stage, tries: Option<u32>) {
    let state = state(events);
    let progress = state.progress(mac(1)).expect("progress");
    assert_eq!((progress.stage, progress.arm.map(|arm| arm.tries)), (stage, tries), "{events:?}");
}

// A ROM that does not acknowledge the last block of its loader: that it was sent is known seconds later.
#[test]
fn a_loader_that_is_written_down_late_makes_no_release_uncounted() {
    let loader = Event::LoaderSent { loader: Loader::Undionly, bytes: 74_213 };
    let events = [Event::Armed, SCRIPT, loader.clone(), RELEASED, RELEASED];
    check(&events, Stage::Kickstart, Some(1));
    let events = [Event::Armed, SCRIPT, RELEASED, loader, RELEASED, SCRIPT, RELEASED];
    check(&events, Stage::Kickstart, Some(2));
}

#[test]
fn an_installation_walks_through_its_stages_and_uses_its_arming_up() {
    let loader = Event::LoaderSent { loader: Loader::Undionly, bytes: 74_213 };
    let ready = reported(Report::FirstBoot { detail: "6.1".to_owned(), cores: Some(4) });
    let mut events = vec![];
    for (event, stage, tries) in [
        (Event::Armed, Stage::Waiting, Some(0)),
        (loader, Stage::Loader, Some(0)),
        (SCRIPT, Stage::Script, Some(0)),
        (RELEASED, Stage::Kickstart, Some(1)),
        (RELEASED, Stage::Kickstart, Some(1)),
        (pre(), Stage::Pre, Some(1)),
        (reported(Report::Packages { done: 3, total: 219 }), Stage::Packages, Some(1)),
        (reported(Report::Post), Stage::Post, Some(1)),
        (reported(Report::Installed), Stage::Installed, None),
        (ready, Stage::Ready, None),
    ] {
        events.push(event);
        check(&events, stage, tries);
    }
}

#[test]
fn every_boot_that_takes_a_kickstart_is_a_try() {
    check(&[Event::Armed, SCRIPT, RELEASED, pre(), SCRIPT, RELEASED], Stage::Kickstart, Some(2));
}

#[test]
fn a_report_with_an_old_token_changes_nothing() {
    let old = Event::Reported { arm: 1, report: Report::Installed };
    check(&[Event::Armed, Event::Disarmed, Event::Armed, old], Stage::Waiting, Some(0));
}

#[test]
fn a_first_boot_counts_as_installed_when_that_report_was_lost() {
    let first = reported(Report::FirstBoot { detail: String::new(), cores: None });
    check(&[Event::Armed, SCRIPT, RELEASED, pre(), first], Stage::Ready, None);
}

#[test]
fn an_installed_node_that_boots_by_network_stays_ready() {
    let loader = Event::LoaderSent { loader: Loader::Undionly, bytes: 1 };
    let first = reported(Report::FirstBoot { detail: String::new(), cores: None });
    let local = sent(Plan::Local);
    let installed = reported(Report::Installed);
    check(&[Event::Armed, SCRIPT, RELEASED, installed, first, loader, local], Stage::Ready, None);
}

#[test]
fn the_first_boot_report_is_taken_once() {
    let first = |text: &str| reported(Report::FirstBoot { detail: text.to_owned(), cores: None });
    let installed = reported(Report::Installed);
    let state = state(&[Event::Armed, SCRIPT, RELEASED, installed, first("a"), first("b")]);
    assert_eq!(state.progress(mac(1)).map(|progress| progress.detail.as_str()), Some("a"));
}

#[test]
fn a_flood_of_strangers_is_forgotten_oldest_first() {
    let mut state = State::default();
    for seq in 1..=1000_u64 {
        let [.., a, b] = seq.to_be_bytes();
        let mac = Mac::from_wire([2, 0, 0, 0, a, b]).expect("mac");
        let event = Event::Seen { arch: Arch::Bios, ip: Ipv4Addr::new(192, 168, 10, 200) };
        state.apply(&Entry { seq, at_ms: seq, mac, event });
    }
    assert_eq!(state.seen().count(), SEEN_MAX);
    assert!(state.seen().all(|(_, seen)| seen.last_ms > 1000 - SEEN_MAX as u64));
}

#[test]
fn entries_survive_the_journal_as_json() {
    for entry in journal(&[
        Event::Armed,
        Event::Seen { arch: Arch::UefiX64, ip: Ipv4Addr::new(192, 168, 10, 200) },
        SCRIPT,
        reported(Report::Packages { done: 1, total: 2 }),
        reported(Report::Failed { log: "line\n\"quoted\"".to_owned() }),
    ]) {
        let text = serde_json::to_string(&entry).expect("json");
        assert_eq!(serde_json::from_str::<Entry>(&text).expect("entry"), entry, "{text}");
    }
}

fn disk(serial: &str) -> Event {
    reported(Report::Disk {
        detail: String::new(),
        serial: Some(serial.to_owned()),
        drive: "0x82".parse().ok(),
    })
}

fn expected(events: &[Event]) -> Option<String> {
    state(events).progress(mac(1)).and_then(|progress| progress.disks.expected().map(str::to_owned))
}

#[test]
fn the_disk_of_the_last_installation_is_remembered_until_its_owner_allows_another() {
    let installed = |serial: &str| {
        vec![Event::Armed, SCRIPT, RELEASED, pre(), disk(serial), reported(Report::Installed)]
    };
    assert_eq!(expected(&[Event::Armed, SCRIPT, RELEASED, pre(), disk("A")]), None, "not yet");
    let mut events = installed("A");
    events.push(Event::Armed);
    assert_eq!(expected(&events).as_deref(), Some("A"));
    events.extend([Event::NewDiskAllowed, Event::Armed]);
    assert_eq!(expected(&events), None);
}

#[test]
fn a_bios_boots_the_disk_that_was_installed_last() {
    let drive = |events: &[Event]| {
        let state = state(events);
        state.progress(mac(1)).map(|progress| progress.disks.boots_from().to_string())
    };
    let mut events = vec![Event::Armed, SCRIPT, RELEASED, pre(), disk("A")];
    assert_eq!(drive(&events).as_deref(), Some("0x80"), "not yet");
    events.push(reported(Report::Installed));
    assert_eq!(drive(&events).as_deref(), Some("0x82"));
    events.push(Event::Armed);
    assert_eq!(drive(&events).as_deref(), Some("0x82"), "until another is installed");
}

#[test]
fn a_machine_that_may_be_installed_and_is_not_waits_for_its_owner() {
    let why = "this CPU has no SSE4.2".to_owned();
    for plan in [Plan::Hold, Plan::Local] {
        let event = Event::ScriptSent { plan, os: None, why: why.clone() };
        let state = state(&[Event::Armed, event]);
        let progress = state.progress(mac(1)).expect("progress");
        assert_eq!((progress.stage, &progress.detail), (Stage::Held, &why));
    }
}

#[test]
fn entries_of_an_older_journal_are_read() {
    for text in [
        r#"{"event":"script-sent","plan":"install"}"#,
        r#"{"event":"reported","arm":1,"report":{"stage":"disk","detail":"sda"}}"#,
    ] {
        serde_json::from_str::<Event>(text).expect(text);
    }
}
