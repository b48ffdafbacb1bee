//! What other programs make of the files that `rekindle master apply` writes: chrony gives the nodes the
//! time (S13), dhclient asks the uplink under the name that its owner gave (S1).

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;

use super::setup::Fresh;
use crate::lab::lab;
use crate::lab::process::{DEADLINE, Process, run};
use crate::lab::{MASTER, NODE1};

/// A program that sees the master's `/etc`, and folders of its own where it keeps things.
fn with_etc(fresh: &Fresh, words: &[&str]) -> Command {
    let mount = format!(
        "mount --bind {} /etc && mount -t tmpfs none /run && mount -t tmpfs none /var/lib && \
         mkdir -p /run/chrony /var/lib/chrony /var/lib/dhcp && exec \"$@\"",
        fresh.0.path("etc").display()
    );
    let mut command = fresh.0.master.command("sh");
    command.args(["-c", &mount, "sh"]).args(words);
    command
}

#[test]
fn nodes_get_the_time_from_chrony_on_the_master() {
    let fresh = Fresh::new(lab!());
    let lab = &fresh.0;
    lab.master.ip(&format!("addr add {MASTER}/24 dev eth1"));
    lab.master.ip("link set dev eth1 up");
    let applied = fresh.run(&["apply", "--yes", "--only", "time"]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    // -x: this machine's own clock is left alone.
    let server = ["chronyd", "-x", "-d", "-u", "root", "-f", "/etc/chrony/chrony.conf"];
    let server = Process::start(&mut with_etc(&fresh, &server));
    server.wait_for("chronyd version");
    let pid_file = format!("pidfile {}", lab.path("chronyd.pid").display());
    let node = lab.client_at(NODE1);
    let mut ask = node.command("chronyd");
    ask.args(["-x", "-Q", "-t", "60", "-u", "root", "-f", "/dev/null"]);
    let ask = run(ask.arg(format!("server {MASTER} iburst maxsamples 1")).arg(&pid_file));
    assert_eq!(ask.code, Some(0), "{} {}", ask.text(), ask.err);
    assert!(ask.err.contains("System clock wrong by"), "{}", ask.err);
    // Nobody else is answered.
    let mut ask = lab.inet.command("chronyd");
    ask.args(["-x", "-Q", "-t", "3", "-u", "root", "-f", "/dev/null"]);
    let ask =
        run(ask.arg(format!("server {} iburst maxsamples 1", crate::lab::UPLINK)).arg(&pid_file));
    assert_ne!(ask.code, Some(0), "{}", ask.err);
}

#[test]
fn the_uplink_is_asked_under_the_name_that_its_owner_gave() {
    let lab = lab!();
    let text = lab.config();
    lab.write_config(text.replace("[network]", "[network]\nuplink_client_id = \"cluster-master\""));
    let fresh = Fresh::new(lab);
    let lab = &fresh.0;
    let server = lab.inet.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).expect("port 67"));
    server.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let is_named = || {
        let words =
            ["dhclient", "-d", "-sf", "/bin/true", "-pf", "/run/pid", "-lf", "/run/leases", "eth0"];
        let _client = Process::start(&mut with_etc(&fresh, &words));
        let mut buffer = [0; 1500];
        let (len, _) = server.recv_from(&mut buffer).expect("it asks");
        buffer[..len].windows(16).any(|bytes| bytes == b"\x3d\x0ecluster-master")
    };
    assert!(!is_named());
    let applied = fresh.run(&["apply", "--yes", "--only", "network"]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    assert!(
        applied.err.contains("eth0: its client id is sent from its next start on"),
        "{}",
        applied.err
    );
    // What the first one may have said twice is heard first.
    server.set_nonblocking(true).expect("mode");
    while server.recv(&mut [0; 1500]).is_ok() {}
    server.set_nonblocking(false).expect("mode");
    assert!(is_named());
    fresh.run(&["rollback"]);
}
