//! The real binary as its owner types it: whole output, exit code, and what is in the folder
//! afterwards.

mod check;

use std::process::Stdio;

use crate::sandbox::{Sandbox, is_root, same};

#[test]
fn words_that_are_no_command_are_a_failure_not_a_finding() {
    let sandbox = Sandbox::new();
    for words in
        ["", "frobnicate", "node", "node add", "node add --mac zz", "render all", "check --yaml"]
    {
        let told = sandbox.run(words);
        assert!(told.starts_with("! ") && told.ends_with("exit 2\n"), "{words}: {told}");
    }
    sandbox.check("--version", &format!("rekindle {}\nexit 0\n", env!("CARGO_PKG_VERSION")));
    assert!(
        sandbox.run("--help").contains("\n  node      Add, list, remove and reinstall nodes\n")
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = Sandbox::new();
    sandbox.run("node reinstall worker1 worker2");
    for words in
        ["render all worker1", "node list", "node list --json", "log", "log --json", "check"]
    {
        let mut child = sandbox
            .command()
            .args(words.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run");
        // The pipe is closed before anything can have been written into it.
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("end");
        same(words, &sandbox.transcript(&output), "exit 0\n");
    }
}
