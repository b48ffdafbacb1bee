//! S13 with the real thing: munge and Slurm, set up by `rekindle master apply`, run a job on two nodes.

use std::process::Command;

use rekindle::journal::Journal;
use rekindle::mac::Mac;
use rekindle::stage::{Event, Plan, Report};

use super::setup::Fresh;
use crate::lab::net::Namespace;
use crate::lab::process::{Process, run};
use crate::lab::{MASTER, NODE1, NODE2, lab};

/// Writes down that a node was installed and is up, with one core.
pub(super) fn is_ready(journal: &Journal, mac: &str) {
    let mac: Mac = mac.parse().expect("mac");
    let arm = journal.append(mac, &Event::Armed).expect("armed").seq;
    let script = Event::ScriptSent { plan: Plan::Install, os: None, why: String::new() };
    let reported = |report| Event::Reported { arm, report };
    let detail = String::new();
    for event in [
        script,
        Event::Released { arm },
        reported(Report::Pre { detail: detail.clone() }),
        reported(Report::Installed),
        reported(Report::FirstBoot { detail, cores: Some(1) }),
    ] {
        journal.append(mac, &event).expect("written");
    }
}

/// A program in a namespace, with the machine's folders in place of this one's. Nodes have a folder of
/// their own for what Slurm fetches.
fn there(fresh: &Fresh, place: &Namespace, own: &str, words: &[&str]) -> Command {
    let path = |name: &str| fresh.0.path(name).display().to_string();
    let folders = [
        (path("etc"), "/etc"),
        (path("munge"), "/run/munge"),
        (path("munge"), "/var/lib/munge"),
        (path("munge"), "/var/log/munge"),
        (path("slurmctld"), "/var/lib/slurm/slurmctld"),
        (path(own), "/var/spool/slurmd"),
        (path(own), "/run/slurm"),
    ];
    let mounts: String =
        folders.map(|(from, to)| format!("mkdir -p {to} && mount --bind {from} {to} && ")).concat();
    let mut command = place.command("sh");
    command.args(["-c", &format!("{mounts}exec \"$@\""), "sh"]).args(words);
    command
}

#[test]
fn an_ordinary_user_runs_a_job_on_two_nodes() {
    let lab = lab!();
    lab.write_config(lab.config().replace("\"torque\"", "\"slurm\""));
    let fresh = Fresh::new(lab);
    let lab = &fresh.0;
    let journal = Journal::open(&lab.state()).expect("journal");
    for (mac, _) in [NODE1, NODE2] {
        is_ready(&journal, mac);
    }
    lab.master.ip(&format!("addr add {MASTER}/24 dev eth1"));
    lab.master.ip("link set dev eth1 up");
    let applied = fresh.run(&["apply", "--yes", "--only", "names,scheduler"]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    let shown = applied.text();
    assert!(
        shown.contains("+NodeName=worker1 NodeAddr=192.168.10.10 CPUs=1 State=UNKNOWN"),
        "{shown}"
    );
    assert!(shown.contains("+worker2 slots=1"), "{shown}");
    let again = fresh.run(&["plan", "--only", "names,scheduler"]);
    assert_eq!((again.code, again.text().as_str()), (Some(0), "nothing to do\n"), "{}", again.err);

    for (folder, owner) in
        [("munge", "munge:"), ("slurmctld", "slurm:"), ("one", "root:"), ("two", "root:")]
    {
        std::fs::create_dir_all(lab.path(folder)).expect("folder");
        run(Command::new("chown").arg(owner).arg(lab.path(folder))).ok();
    }
    run(Command::new("chown").args(["-R", "munge:"]).arg(lab.path("etc/munge"))).ok();
    // Nothing limits anything in a namespace; version 1 does not look for what is not there.
    std::fs::write(lab.path("etc/slurm/cgroup.conf"), "CgroupPlugin=cgroup/v1\n").expect("conf");
    // The path to the test's folder is for everybody: munge and jobs are not root.
    run(Command::new("chmod").arg("755").arg(lab.path(""))).ok();
    let munge = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "-F"];
    let munged = Process::start(&mut there(&fresh, &lab.master, "one", &munge));
    munged.wait_for("Created socket");
    let server = Process::start(&mut there(&fresh, &lab.master, "one", &["slurmctld", "-D", "-v"]));
    server.wait_for("Running as primary controller");
    let nodes = [(NODE1, "worker1", "one"), (NODE2, "worker2", "two")].map(|(at, name, own)| {
        let place = lab.client_at(at);
        let words = ["slurmd", "-D", "-v", "-N", name, "--conf-server", "master:6817"];
        let daemon = Process::start(&mut there(&fresh, &place, own, &words));
        daemon.wait_for("slurmd started");
        (place, daemon)
    });
    let user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    let job = ["srun", "--chdir=/", "-N2", "printenv", "SLURMD_NODENAME"];
    let ran = run(&mut there(&fresh, &lab.master, "one", &[&user[..], &job].concat()));
    let said = String::from_utf8(ran.ok()).expect("text");
    let mut names: Vec<_> = said.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["worker1", "worker2"]);
    drop(nodes);
}
