//! The corpus of the fuzzers, replayed on every `cargo test`: seeds, and every input that once
//! broke something.

use std::path::Path;

/// What the fuzzers do with their bytes; no libFuzzer is needed for it.
#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "it is the library of another package")]
mod targets;

#[expect(clippy::print_stdout, reason = "names the input when it panics")]
fn replay(name: &str, target: fn(&[u8])) {
    let entries = std::fs::read_dir(Path::new("fuzz/corpus").join(name)).expect("corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        println!("{}", path.display());
        target(&std::fs::read(path).expect("input"));
    }
}

#[test]
fn dhcp() {
    replay("dhcp", targets::dhcp);
}

#[test]
fn tftp() {
    replay("tftp", targets::tftp);
}

#[test]
fn http() {
    replay("http", targets::http);
}

#[test]
fn cluster_file() {
    replay("cluster_file", targets::cluster_file);
}

#[test]
fn treeinfo() {
    replay("treeinfo", targets::treeinfo);
}

#[test]
fn repodata() {
    replay("repodata", targets::repodata);
}
