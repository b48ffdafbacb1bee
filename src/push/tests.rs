use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn file(path: &'static str, text: &str, reload: Option<&'static str>) -> NodeFile {
    NodeFile { path, mode: 0o644, text: text.to_owned(), reload }
}

/// What bash makes of a script, in a folder of its own that `/X` stands for.
fn bash(script: &str) -> String {
    let mut bash = Command::new("bash")
        .arg("-s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    bash.stdin.take().expect("input").write_all(script.as_bytes()).expect("write");
    let done = bash.wait_with_output().expect("output");
    assert!(done.status.success(), "{script}");
    String::from_utf8(done.stdout).expect("text")
}

#[test]
fn a_node_is_read_written_and_then_as_it_should_be() {
    let dir = tempfile::tempdir().expect("dir");
    let here = |name: &str| -> &'static str {
        // Paths of nodes are known when we are built.
        Box::leak(format!("{}/{name}", dir.path().display()).into_boxed_str())
    };
    std::fs::write(here("old"), "one\ntwo\n").expect("write");
    std::fs::write(here("same"), "same\n").expect("write");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(here("same"), mode(0o644)).expect("chmod");
    std::fs::set_permissions(here("old"), mode(0o600)).expect("chmod");
    let files = [
        file(here("old"), "one\nthree\n", Some("echo reloaded")),
        file(here("same"), "same\n", Some("echo never")),
        file(here("new/deep"), "it's $HOME `x`\n", Some("echo reloaded")),
    ];
    let look = || {
        let answer = bash(&reading(&files));
        changes(&files, parse(&answer, &files).expect("answer"))
    };
    let found = look();
    assert_eq!(
        found.iter().map(|one| one.file.path).collect::<Vec<_>>(),
        [here("old"), here("new/deep")]
    );
    let diff = found[0].diff("worker1");
    assert!(diff.contains("-two\n+three\n") && diff.contains("mode 600 -> 644"), "{diff}");
    assert_eq!(bash(&writing(&found)), "reloaded\n", "each once, and only what changed");
    assert_eq!(look(), []);
    assert_eq!(std::fs::read_to_string(here("new/deep")).expect("read"), "it's $HOME `x`\n");
}

#[test]
fn an_answer_that_is_none_is_refused() {
    let files = [file("/etc/hosts", "x\n", None)];
    assert_eq!(parse("", &files), Err(BadAnswer::Short));
    assert_eq!(parse("FILE 644\nZm9v", &files), Err(BadAnswer::Short));
    assert!(matches!(parse("Last login\nEND\n", &files), Err(BadAnswer::Form(_))));
    assert!(matches!(parse("FILE 9z\nEND\n", &files), Err(BadAnswer::Form(_))));
    assert!(matches!(parse("FILE 644\n!!\nEND\n", &files), Err(BadAnswer::Form(_))));
    assert_eq!(parse("FILE -\nEND\n", &files), Ok(vec![None]));
}

#[test]
fn terminal_escapes_of_a_node_stay_there() {
    let file = file("/etc/hosts", "x\n", None);
    let found = Some(Found { mode: 0o644, text: b"\x1b[2Jold\n".to_vec() });
    assert!(!Change { file: &file, found }.diff("worker1").contains('\x1b'));
}
