//! `rekindle explain`: the way of a packet in words, and what a machine boots.

use rekindle::journal::Journal;
use rekindle::machine::Loader;
use rekindle::stage::Event;

use crate::sandbox::Sandbox;

fn online() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.change("[os.el9]", "internet = true\ndns = [\"9.9.9.9\"]\n\n[os.el9]");
    sandbox
}

#[test]
fn a_worker_that_goes_out_is_told_both_ways() {
    online().check(
        "explain flow worker1 8.8.8.8:443",
        "worker1 -> 8.8.8.8:443\n\
         \x20 there, master, eth1 to eth0:\n\
         \x20   S9 workers reach the internet: accept\n\
         \x20   S2 under the master's own address: masquerade; the answer's destination is put back\n\
         \x20 back, master, eth0 to eth1:\n\
         \x20   S14 answers, and what belongs to a known connection: accept\n\
         \x20 back, worker1:\n\
         \x20   S6 answers, and what belongs to a known connection: accept\n\
         it works\nexit 0\n",
    );
}

#[test]
fn what_does_not_pass_ends_where_it_is_dropped() {
    let dropped = "\x20 there, master, eth1 to eth0:\n\
         \x20   S11 who knocks in vain is written down, and never floods the log: log\n\
         \x20   no rule lets it pass: dropped\n\
         it does not work\nexit 0\n";
    Sandbox::new()
        .check("explain flow worker1 8.8.8.8:443", &format!("worker1 -> 8.8.8.8:443\n{dropped}"));
    online().check(
        "explain flow outside worker1:22",
        &format!("outside -> worker1:22\n{}", dropped.replace("eth1 to eth0", "eth0 to eth1")),
    );
}

#[test]
fn a_script_reads_it_as_json() {
    let told = online().run("explain flow worker1 master:67 --udp --json");
    for wanted in [
        "\"flow\": \"worker1 -> master:67/udp\"",
        "\"works\": true",
        "\"S3 DHCP: who asks has no address yet: accept\"",
    ] {
        assert!(told.contains(wanted), "{told}");
    }
}

#[test]
fn who_is_unknown_is_said() {
    let sandbox = online();
    sandbox.check(
        "explain flow worker9 master",
        "! rekindle: `worker9` is no node; write a node, `master`, `outside` or an address\nexit 1\n",
    );
    sandbox.check(
        "explain flow worker1 192.168.10.77:22",
        "! rekindle: nobody in the cluster has 192.168.10.77\nexit 1\n",
    );
    sandbox.check(
        "explain flow worker1 master:http",
        "! rekindle: `http` is no port; write one like 443\nexit 1\n",
    );
}

#[test]
fn what_a_machine_boots_is_told_with_the_reason() {
    let sandbox = Sandbox::new();
    let told = sandbox.run("explain boot worker1");
    assert!(told.starts_with("worker1 (52:54:00:aa:bb:01)\n  BIOS: "), "{told}");
    assert!(told.contains("\n  then it boots its own disk (never armed); "), "{told}");
    let journal = Journal::open(&sandbox.path("state")).expect("journal");
    let add = |event: Event| {
        journal.append("52:54:00:aa:bb:01".parse().expect("mac"), &event).expect("append");
    };
    add(Event::Armed);
    add(Event::LoaderSent { loader: Loader::Undionly, bytes: 74_213 });
    add(Event::LoaderLost { loader: Loader::Undionly });
    let told = sandbox.run("explain boot 52:54:00:AA:BB:01");
    assert!(told.contains("\n  nothing was heard from undionly.kpxe\n"), "{told}");
    assert!(told.contains("\n  then its hardware is looked at, and el9 is installed"), "{told}");
    let told = sandbox.run("explain boot worker1 --json");
    assert!(told.contains("\"lost\": [\n    \"undionly.kpxe\"\n  ]"), "{told}");
    let told = sandbox.run("explain boot 02:00:00:00:00:09");
    assert!(told.contains("then it waits at a screen that shows its MAC"), "{told}");
    sandbox.check(
        "explain boot worker9",
        "! rekindle: `worker9` is no node and no MAC; `rekindle node list`\nexit 1\n",
    );
    let told = sandbox.run("log worker1");
    assert!(told.contains("nothing was heard from undionly.kpxe"), "{told}");
}
