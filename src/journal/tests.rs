use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cluster::sample::mac;

#[test]
fn what_one_process_appends_another_reads_in_order() {
    let dir = tempfile::tempdir().expect("dir");
    let (one, two) =
        (Journal::open(dir.path()).expect("open"), Journal::open(dir.path()).expect("open"));
    let first = one.append(mac(1), &Event::Armed).expect("append");
    let second = two.append(mac(1), &Event::Disarmed).expect("append");
    assert_eq!(one.entries_after(0).expect("read"), vec![first.clone(), second.clone()]);
    assert_eq!(two.entries_after(first.seq).expect("read"), vec![second]);
    assert_eq!(one.state().expect("state").last_seq(), 2);
}

#[test]
fn it_survives_being_reopened() {
    let dir = tempfile::tempdir().expect("dir");
    let entry = Journal::open(dir.path()).expect("open").append(mac(1), &Event::Armed);
    let again = Journal::open(dir.path()).expect("open").entries_after(0).expect("read");
    assert_eq!(again, vec![entry.expect("append")]);
}

#[test]
fn history_cannot_be_rewritten() {
    let dir = tempfile::tempdir().expect("dir");
    let journal = Journal::open(dir.path()).expect("open");
    journal.append(mac(1), &Event::Armed).expect("append");
    assert!(journal.db.execute("UPDATE entry SET at_ms = 0", []).is_err());
}

#[test]
fn nobody_else_can_look_into_its_folder() {
    let dir = tempfile::tempdir().expect("dir");
    let state = dir.path().join("state");
    Journal::open(&state).expect("open");
    let mode = std::fs::metadata(&state).expect("folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_file_that_is_no_journal_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("journal.db"), "not a database, but long enough to look at")
        .expect("write");
    let message = Journal::open(dir.path()).expect_err("no journal").to_string();
    assert!(message.contains("journal.db"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().expect("dir");
    let journal = Journal::open(dir.path()).expect("open");
    journal.db.pragma_update(None, "user_version", 99).expect("pragma");
    drop(journal);
    assert!(matches!(Journal::open(dir.path()), Err(JournalError::Newer { found: 99, .. })));
}

#[test]
fn a_full_disk_is_said_so_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let journal = Journal::open(dir.path()).expect("open");
    journal.append(mac(1), &Event::Armed).expect("append");
    journal.db.pragma_update(None, "max_page_count", 8).expect("pragma");
    let log = "x".repeat(4096);
    let report = crate::stage::Report::Failed { log };
    let event = Event::Reported { arm: 1, report };
    let error = (0..100).find_map(|_| journal.append(mac(1), &event).err()).expect("full");
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(journal.entries_after(0).expect("read").len() > 1);
}
