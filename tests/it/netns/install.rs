//! One installation as its node lives it, asked for by curl; and what is secret about it.

use std::os::unix::fs::PermissionsExt;

use crate::lab::net::Namespace;
use crate::lab::process::Process;
use crate::lab::{Lab, MASTER, NODE1, NODE2, curl, lab, script, status};

/// The node's own URL out of its script, with the token in it.
fn node_url(script: &str) -> String {
    let (before, _) = script.split_once("/ks ").expect("a kickstart");
    let (_, url) = before.rsplit_once("inst.ks=").expect("its place");
    assert!(url.starts_with(&format!("http://{MASTER}/node/")), "{url}");
    url.to_owned()
}

fn token(url: &str) -> &str {
    url.rsplit('/').next().expect("last segment")
}

fn get(from: &Namespace, url: &str) -> String {
    status(from, &[url])
}

fn post(from: &Namespace, url: &str, body: &str) -> String {
    status(from, &["--data-binary", body, url])
}

/// Goes through an installation and checks at each step who may have what. Returns the token.
fn install(lab: &Lab, server: &Process, node: &Namespace, other: &Namespace) -> String {
    lab.arm(server);
    let url = node_url(&script(node, NODE1.0));
    let (ks, key) = (format!("{url}/ks"), format!("{url}/secret/munge.key"));
    let event = |name: &str| format!("{url}/event/{name}");
    let gone = |url: &str| assert_eq!(get(other, url), "410", "{url} from another address");

    assert_eq!(get(node, &key), "410", "no secret before the kickstart");
    gone(&ks);
    let first = curl(node, &["--fail", &ks]).ok();
    assert!(String::from_utf8_lossy(&first).contains("rootpw --lock"), "a kickstart");
    assert!(curl(node, &["--fail", &ks]).ok() == first, "an answer that was lost is given again");
    gone(&ks);
    gone(&key);
    assert_eq!(post(other, &event("installed"), ""), "410");

    assert_eq!(post(node, &event("pre"), "Linux 5.14"), "200");
    assert_eq!(get(node, &ks), "410", "the installer has it");
    let secret = curl(node, &["--fail", &key]).ok();
    assert!(secret == std::fs::read(lab.state().join("secrets/munge.key")).expect("key"));
    gone(&key);
    assert_eq!(post(node, &event("packages"), "12/219"), "200");
    assert_eq!(post(node, &event("packages"), "nonsense"), "400");
    assert_eq!(post(node, &event("installed"), ""), "200");
    assert_eq!(post(node, &event("installed"), ""), "200", "said again");
    assert_eq!(get(node, &key), "410");
    assert_eq!(get(node, &ks), "410");
    server.wait_for("to=\"installed\"");
    assert!(script(node, NODE1.0).contains("sanboot"), "its own disk from now on");
    assert_eq!(post(node, &event("first-boot"), "up"), "200");
    assert_eq!(post(other, &event("first-boot"), "up"), "410");
    server.wait_for("to=\"ready\"");
    token(&url).to_owned()
}

#[test]
fn a_node_is_installed_once_and_only_it_gets_what_belongs_to_it() {
    let lab = lab!();
    let server = lab.serve();
    let (node, other) = (lab.client_at(NODE1), lab.client_at(NODE2));
    install(&lab, &server, &node, &other);
    let told = lab.rekindle(&["node", "list", "--json"]);
    assert!(told.contains("\"stage\": \"ready\""), "{told}");
    let story = lab.rekindle(&["log", "worker1"]);
    for line in ["may be installed once", "gets its kickstart", "packages 12/219", "is installed"] {
        assert_eq!(story.matches(line).count(), 1, "{line} in {story}");
    }
}

#[test]
fn a_restarted_server_goes_on_where_the_installation_was() {
    let lab = lab!();
    let server = lab.serve();
    let node = lab.client_at(NODE1);
    lab.arm(&server);
    let url = node_url(&script(&node, NODE1.0));
    // Not asked to stop: the power went.
    server.signal("KILL");
    assert_eq!(server.wait().code, None);
    let server = lab.serve();
    let first = curl(&node, &["--fail", &format!("{url}/ks")]).ok();
    server.signal("KILL");
    assert_eq!(server.wait().code, None);
    let _server = lab.serve();
    assert!(curl(&node, &["--fail", &format!("{url}/ks")]).ok() == first);
    assert_eq!(post(&node, &format!("{url}/event/pre"), ""), "200");
    assert_eq!(get(&node, &format!("{url}/ks")), "410");
}

#[test]
fn nothing_secret_is_in_the_log_the_arguments_or_the_reach_of_others() {
    let lab = lab!();
    let server = lab.serve_with(&["--log", "trace"]);
    let (node, other) = (lab.client_at(NODE1), lab.client_at(NODE2));
    let token = install(&lab, &server, &node, &other);
    assert_eq!(token.len(), 32);
    let half = token.get(..16).expect("half of it");
    // Also in ways that no installer asks.
    for path in [
        format!("node/{token}"),
        format!("node/{token}/"),
        format!("node/{token}/nothing"),
        format!("/node/{token}/ks"),
        format!("node/%{:x}{}/ks", token.as_bytes()[0], &token[1..]),
        format!("node/{token}/ks?x={token}"),
    ] {
        get(&node, &format!("http://{MASTER}/{path}"));
        status(&node, &["-X", "PUT", &format!("http://{MASTER}/{path}")]);
    }
    let log = server.text();
    assert!(log.contains("/node/TOKEN/ks"), "requests are in it");
    let lines: Vec<_> = log.lines().filter(|line| line.contains(half)).collect();
    assert_eq!(lines, Vec::<&str>::new());
    for file in ["cmdline", "environ"] {
        let told = std::fs::read(format!("/proc/{}/{file}", server.pid())).expect("of ours");
        assert!(!String::from_utf8_lossy(&told).contains(half), "{file}");
    }
    let story = lab.rekindle(&["log", "--json"]) + &lab.rekindle(&["log"]);
    assert!(!story.contains(half), "{story}");

    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    };
    for dir in ["", "secrets"] {
        assert_eq!(mode(&lab.state().join(dir)), 0o700, "{dir}");
    }
    let entries = std::fs::read_dir(lab.state().join("secrets")).expect("folder");
    let files: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files.iter().chain([&lab.state().join("journal.db")]) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
}
