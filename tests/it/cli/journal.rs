//! What happened, as the owner asks for it: `node list`, `show`, `reinstall`, `disarm`,
//! `machines`, `log`.

use rekindle::journal::Journal;
use rekindle::machine::{Arch, Loader};
use rekindle::stage::{Event, Plan, Report};

use crate::sandbox::{Sandbox, same};

fn sent(plan: Plan) -> Event {
    Event::ScriptSent { plan, os: None, why: String::new() }
}

/// Two nodes: one half installed, one that failed; and a machine that nobody added.
fn lived_in() -> Sandbox {
    let sandbox = Sandbox::new();
    let journal = Journal::open(&sandbox.path("state")).expect("journal");
    let add = |mac: &str, event: Event| {
        journal.append(mac.parse().expect("mac"), &event).expect("append");
    };
    let (one, two, stranger) = ("52:54:00:aa:bb:01", "52:54:00:aa:bb:02", "00:16:3e:00:00:63");
    add(one, Event::Armed);
    add(one, Event::LoaderSent { loader: Loader::Undionly, bytes: 74_213 });
    add(one, sent(Plan::Install));
    add(one, Event::Released { arm: 1 });
    add(
        one,
        Event::Reported {
            arm: 1,
            report: Report::Pre { detail: "kernel 5.14, 3900 MiB".to_owned() },
        },
    );
    add(
        one,
        Event::Reported {
            arm: 1,
            report: Report::Disk { detail: "sda, 149 GiB".to_owned(), serial: None, drive: None },
        },
    );
    add(one, Event::Reported { arm: 1, report: Report::Packages { done: 12, total: 219 } });
    add(two, Event::Armed);
    add(two, sent(Plan::Install));
    add(two, Event::Released { arm: 8 });
    add(
        two,
        Event::Reported { arm: 8, report: Report::Failed { log: "no space\nleft\n".to_owned() } },
    );
    add(stranger, Event::Seen { arch: Arch::UefiX64, ip: "192.168.10.200".parse().expect("ip") });
    sandbox
}

#[test]
fn the_list_says_how_far_each_node_is() {
    let sandbox = lived_in();
    sandbox.check(
        "node list",
        "NAME     MAC                IP             OS   STAGE            SINCE                 TRIES\n\
         worker1  52:54:00:aa:bb:01  192.168.10.10  el9  packages 12/219  0000-00-00T00:00:00Z  1\n\
         worker2  52:54:00:aa:bb:02  192.168.10.11  el9  failed           0000-00-00T00:00:00Z  1\n\
         exit 0\n",
    );
    let list: serde_json::Value = json(&sandbox, "node list --json");
    assert_eq!(list[0]["stage"], "packages");
    assert_eq!(list[0]["packages"]["total"], 219);
    assert_eq!(list[1]["detail"], "no space\nleft\n");
    assert_eq!(list[1]["armed"], true);
    let show: serde_json::Value = json(&sandbox, "node show worker1 --json");
    assert_eq!(show, list[0]);
}

fn json(sandbox: &Sandbox, words: &str) -> serde_json::Value {
    let output = sandbox.command().args(words.split(' ')).output().expect("run");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn arming_and_disarming_are_said_and_written_down() {
    let sandbox = Sandbox::new();
    sandbox.check(
        "node reinstall worker1 worker2",
        "worker1: its next network boot installs it again and erases its disk\n\
         worker2: its next network boot installs it again and erases its disk\n\
         exit 0\n",
    );
    sandbox.check("node disarm worker2", "worker2: it boots its own disk\nexit 0\n");
    sandbox.check("node rm worker1", "worker1 is removed; its disk was not touched\nexit 0\n");
    sandbox.check(
        "log",
        "0000-00-00T00:00:00Z  -            52:54:00:aa:bb:01  may be installed once\n\
         0000-00-00T00:00:00Z  worker2      52:54:00:aa:bb:02  may be installed once\n\
         0000-00-00T00:00:00Z  worker2      52:54:00:aa:bb:02  may not be installed any more\n\
         0000-00-00T00:00:00Z  -            52:54:00:aa:bb:01  may not be installed any more\n\
         exit 0\n",
    );
    for words in ["node reinstall worker2 nobody", "node disarm worker2 nobody", "log nobody"] {
        let told = sandbox.run(words);
        assert!(
            told.starts_with("! rekindle: there is no node `nobody`") && told.ends_with("exit 1\n"),
            "{told}"
        );
    }
    let log = sandbox.run("log worker2");
    assert_eq!(log.lines().count(), 3, "a wrong name among good ones arms nobody: {log}");
}

#[test]
fn the_log_reads_as_a_story() {
    let sandbox = lived_in();
    sandbox.check(
        "log worker2",
        "0000-00-00T00:00:00Z  worker2      52:54:00:aa:bb:02  may be installed once\n\
         0000-00-00T00:00:00Z  worker2      52:54:00:aa:bb:02  is told to run the installer\n\
         0000-00-00T00:00:00Z  worker2      52:54:00:aa:bb:02  gets its kickstart\n\
         0000-00-00T00:00:00Z  worker2      52:54:00:aa:bb:02  FAILED; the end of its log:\n    no space\n    left\n\
         exit 0\n",
    );
    let all = sandbox.run("log");
    assert!(all.contains("-            00:16:3e:00:00:63  asked to boot (uefi-x64), unknown, lent 192.168.10.200\n"), "{all}");
    let output = sandbox.command().args(["log", "--json"]).output().expect("run");
    let lines = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 12);
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], index + 1);
        assert!(
            line["at_ms"].is_u64() && line["at"].is_string() && line["event"].is_string(),
            "{line}"
        );
    }
    assert_eq!(lines[0]["node"], "worker1");
    assert!(lines[11]["node"].is_null());
}

#[test]
fn machines_that_wait_are_listed_until_they_are_added() {
    let sandbox = lived_in();
    sandbox.check(
        "machines",
        "MAC                ARCH      LENT            FIRST SEEN            LAST SEEN\n\
         00:16:3e:00:00:63  uefi-x64  192.168.10.200  0000-00-00T00:00:00Z  0000-00-00T00:00:00Z\n\
         ! they wait; to install one: rekindle node add --mac MAC\n\
         exit 0\n",
    );
    let list = json(&sandbox, "machines --json");
    assert_eq!(
        (list[0]["mac"].as_str(), list[0]["arch"].as_str()),
        (Some("00:16:3e:00:00:63"), Some("uefi-x64"))
    );
    sandbox.run("node add --mac 00:16:3e:00:00:63");
    sandbox.check("machines", "no unknown machine has asked to boot\nexit 0\n");
    same("json", &sandbox.run("machines --json"), "[]\nexit 0\n");
}

#[test]
fn a_state_folder_that_cannot_be_made_is_a_failure() {
    let sandbox = Sandbox::new();
    sandbox.write("state", "a file");
    let told = sandbox.run("node list");
    assert!(
        told.starts_with("! rekindle: cannot open the journal [DIR]/state/journal.db: "),
        "{told}"
    );
    assert!(told.ends_with("exit 2\n"), "{told}");
    let told = sandbox.run("node add --mac 52:54:00:aa:bb:03");
    assert!(told.ends_with("exit 2\n"), "{told}");
    assert!(!sandbox.read("cluster.toml").contains("worker3"));
}

#[test]
fn one_node_is_shown_with_its_last_words() {
    let sandbox = lived_in();
    sandbox.check(
        "node show worker1",
        "name       worker1\n\
         mac        52:54:00:aa:bb:01\n\
         ip         192.168.10.10\n\
         os         el9\n\
         roles      -\n\
         disk       the smallest fixed one of 10 GiB or more\n\
         stage      packages since 0000-00-00T00:00:00Z\n\
         armed      yes: its next network boot installs it (1 tries so far)\n\
         said       sda, 149 GiB\n\
         exit 0\n",
    );
    sandbox.check(
        "node show worker2",
        "name       worker2\n\
         mac        52:54:00:aa:bb:02\n\
         ip         192.168.10.11\n\
         os         el9\n\
         roles      -\n\
         disk       the smallest fixed one of 10 GiB or more\n\
         stage      failed since 0000-00-00T00:00:00Z\n\
         armed      yes: its next network boot installs it (1 tries so far)\n\
         said       no space\n           left\n\
         exit 0\n",
    );
    sandbox.check(
        "node show nobody",
        "! rekindle: there is no node `nobody`; `rekindle node list` names them\nexit 1\n",
    );
}
