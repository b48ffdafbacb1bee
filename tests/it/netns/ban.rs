//! S11 with the real thing: fail2ban, set up by `rekindle master apply`, locks out who guesses passwords.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::setup::Fresh;
use crate::lab::net::Namespace;
use crate::lab::process::{Process, run};
use crate::lab::{INET, MASTER, NODE1, UPLINK, lab};

/// One wrong password.
fn guess(fresh: &Fresh, from: &Namespace, host: &str) {
    let ask = fresh.0.path("ask");
    let mut ssh = from.command("ssh");
    ssh.args(["-F", "/dev/null", "-o", "PreferredAuthentications=password"]);
    ssh.args(["-o", "NumberOfPasswordPrompts=1", "-o", "StrictHostKeyChecking=no"]);
    ssh.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=60"]);
    ssh.arg(format!("guess@{host}")).arg("true");
    let done = run(ssh.env("SSH_ASKPASS", ask).env("SSH_ASKPASS_REQUIRE", "force"));
    assert_eq!(done.code, Some(255), "{}", done.err);
}

#[test]
fn five_wrong_passwords_from_outside_and_the_door_is_shut() {
    let fresh = Fresh::new(lab!());
    let lab = &fresh.0;
    lab.master.ip(&format!("addr add {MASTER}/24 dev eth1"));
    lab.master.ip("link set dev eth1 up");
    let applied = fresh.run(&["apply", "--yes", "--only", "fail2ban"]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);

    let ask = lab.path("ask");
    std::fs::write(&ask, "#!/bin/sh\necho wrong\n").expect("script");
    std::fs::set_permissions(&ask, PermissionsExt::from_mode(0o755)).expect("mode");
    let (key, log) = (lab.path("host_key"), lab.path("sshd.log"));
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).ok();
    let conf = lab.path("sshd_config");
    let text =
        format!("HostKey {}\nPasswordAuthentication yes\nUsePAM no\nPidFile none\n", key.display());
    std::fs::write(&conf, text).expect("conf");
    std::fs::write(&log, "").expect("log");
    std::fs::create_dir_all("/run/sshd").expect("folder");
    // Its words as the system's log would have them.
    let words = format!(
        "exec /usr/sbin/sshd -D -e -f {} 2> >(sed -u 's/^/master sshd[1]: /' >>{})",
        conf.display(),
        log.display()
    );
    let sshd = Process::start(lab.master.command("bash").args(["-c", &words]));

    // There is no journal here, and those lines have no time.
    let local = lab.path("etc/fail2ban/jail.d/zz-here.conf");
    let text =
        format!("[sshd]\nbackend = polling\nlogpath = {}\ndatepattern = {{NONE}}\n", log.display());
    std::fs::write(local, text).expect("jail");
    let text = "[Definition]\ndbfile = None\n";
    std::fs::write(lab.path("etc/fail2ban/fail2ban.local"), text).expect("settings");
    let mount = format!("mount --bind {} /etc && exec \"$@\"", lab.path("etc").display());
    let (socket, pid) =
        (lab.path("f2b.sock").display().to_string(), lab.path("f2b.pid").display().to_string());
    let mut server = lab.master.command("sh");
    server.args(["-c", &mount, "sh", "fail2ban-server", "-f", "-s", &socket, "-p", &pid]);
    let server = Process::start(server.args(["--logtarget", "STDERR", "start"]));
    server.wait_for("Jail 'sshd' started");

    // The cluster itself is never locked out.
    let worker = lab.client_at(NODE1);
    for _ in 0..6 {
        guess(&fresh, &worker, MASTER);
    }
    for _ in 0..5 {
        guess(&fresh, &lab.inet, UPLINK);
    }
    let said = server.wait_for(&format!("Ban {INET}"));
    assert!(!said.contains(&format!("Ban {}", NODE1.1)), "{said}");
    let banned = "until nft list ruleset | grep -q 172.31.0.1; do sleep 0.1; done";
    run(lab.master.command("sh").args(["-c", banned])).ok();
    let knock = |from: &Namespace, host: &str| {
        run(from.command("nc").args(["-z", "-w", "2", host, "22"])).code
    };
    assert_ne!(knock(&lab.inet, UPLINK), Some(0), "shut for who guessed");
    assert_eq!(knock(&worker, MASTER), Some(0), "open for the cluster");
    drop(sshd);
}
