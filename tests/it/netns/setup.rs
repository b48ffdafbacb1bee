//! `rekindle master` on a machine of its own: its network is a namespace, its `/etc` a copy.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lab::process::{Done, Process, run};
use crate::lab::{Lab, MASTER, lab};

pub(super) const AREAS: &str = "network,firewall,nat,names,ssh";

/// A master that nobody has set up.
pub(super) struct Fresh(pub(super) Lab);

impl Fresh {
    pub(super) fn new(lab: Lab) -> Self {
        Self::of(lab, "ID=debian\nVERSION_ID=\"12\"\n")
    }

    /// With `ifcfg` files and iptables.
    pub(super) fn release_7(lab: Lab) -> Self {
        Self::of(lab, "ID=\"centos\"\nID_LIKE=\"rhel fedora\"\nVERSION_ID=\"7\"\n")
    }

    /// One of that release.
    fn of(lab: Lab, os_release: &str) -> Self {
        run(Command::new("cp").arg("-a").arg("/etc").arg(lab.path("etc"))).ok();
        // As Debian's installer leaves it, whatever this machine is.
        let network = lab.path("etc/network");
        std::fs::create_dir_all(&network).expect("folder");
        std::fs::remove_dir_all(network.join("interfaces.d")).unwrap_or_default();
        let text = "source /etc/network/interfaces.d/*\nauto lo\niface lo inet loopback\n";
        std::fs::write(network.join("interfaces"), text).expect("interfaces");
        let release = lab.path("etc/os-release");
        std::fs::remove_file(&release).unwrap_or_default();
        std::fs::write(release, os_release).expect("os-release");
        lab.master.ip(&format!("addr del {MASTER}/24 dev eth1"));
        lab.master.ip("link set dev eth1 down");
        Self(lab)
    }

    fn command(&self, words: &[&str]) -> Command {
        self.command_in(&[], words)
    }

    /// With more folders of its own, below a `/var/lib` where nothing else is.
    pub(super) fn command_in(&self, own: &[(PathBuf, &str)], words: &[&str]) -> Command {
        let mut mount = format!("mount --bind {} /etc && ", self.0.path("etc").display());
        if !own.is_empty() {
            mount.push_str("mount -t tmpfs none /var/lib && ");
        }
        for (from, to) in own {
            mount.push_str(&format!("mkdir -p {to} && mount --bind {} {to} && ", from.display()));
        }
        mount.push_str("exec \"$@\"");
        self.0.command_by("sh", &["-c", &mount, "sh"], &[&["master"], words].concat())
    }

    pub(super) fn run(&self, words: &[&str]) -> Done {
        run(&mut self.command(words))
    }

    /// Everything that a plan may touch: files with owner and mode, addresses, rules, settings.
    pub(super) fn state(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.0.path("etc"), &mut found);
        let mut ask = |program: &str, words: &[&str]| {
            let done = run(self.0.master.command(program).args(words));
            found.insert(format!("{program} {words:?}"), done.out);
        };
        ask("ip", &["-o", "addr", "show", "dev", "eth1", "scope", "global"]);
        ask("nft", &["list", "table", "inet", "rekindle"]);
        // Empty tables of iptables do nothing, and stay.
        ask("iptables", &["-S"]);
        ask("ip6tables", &["-S"]);
        ask(
            "sysctl",
            &["net.ipv4.ip_forward", "net.netfilter.nf_conntrack_tcp_timeout_established"],
        );
        found
    }

    fn has_rules(&self) -> bool {
        run(self.0.master.command("nft").args(["list", "table", "inet", "rekindle"])).code
            == Some(0)
    }

    /// Waits for the process that undoes what nobody confirmed.
    fn wait_until_undone(&self) {
        let rollback = self.0.path("state-master/pending.json");
        let gone = format!("while [ -e {} ]; do sleep 0.1; done", rollback.display());
        Process::start(Command::new("sh").args(["-c", &gone])).wait();
    }
}

fn collect(dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).expect("folder") {
        let path: PathBuf = entry.expect("entry").path();
        let about = path.symlink_metadata().expect("metadata");
        if about.is_dir() {
            found.insert(format!("{}/", path.display()), vec![]);
            collect(&path, found);
        } else if about.is_file() {
            let key =
                format!("{} {:o} {} {}", path.display(), about.mode(), about.uid(), about.gid());
            found.insert(key, std::fs::read(&path).expect("file"));
        }
    }
}

#[test]
fn a_master_is_planned_applied_confirmed_and_reverted() {
    let fresh = Fresh::new(lab!());
    let before = fresh.state();
    let planned = fresh.run(&["plan", "--only", AREAS]);
    assert_eq!(planned.code, Some(1), "{}", planned.err);
    let text = planned.text();
    for wanted in [
        "S1 network: write /etc/network/interfaces.d/rekindle-eth1",
        "S1 network: eth1 gets 192.168.10.1/24 and is up",
        "+  address 192.168.10.1/24",
        "S3 firewall: write /etc/rekindle/firewall.nft",
        "S3 firewall: load the rules",
        "+192.168.10.10 worker1.cluster.lan worker1",
    ] {
        assert!(text.contains(wanted), "no {wanted} in {text}");
    }
    assert_eq!(fresh.state(), before, "a plan changes nothing");

    let applied = fresh.run(&["apply", "--yes", "--only", AREAS]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    assert!(applied.text().contains("undone in 60 s unless you say: rekindle master confirm"));
    assert!(fresh.has_rules());
    let twice = fresh.run(&["apply", "--yes", "--only", AREAS]);
    assert_eq!(twice.code, Some(2));
    assert!(twice.err.contains("an earlier change waits"), "{}", twice.err);
    assert_eq!(fresh.run(&["confirm"]).text(), "kept\n");
    let again = fresh.run(&["plan", "--only", AREAS]);
    assert_eq!((again.code, again.text().as_str()), (Some(0), "nothing to do\n"), "{}", again.err);
    // What it set up is what `serve` wants to find.
    let server = fresh.0.serve();
    drop(server);

    let reverted = fresh.run(&["revert"]);
    assert_eq!(reverted.code, Some(0), "{}", reverted.err);
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
}

#[test]
fn on_release_7_it_is_iptables_and_ifcfg() {
    let fresh = Fresh::release_7(lab!());
    let filters = || {
        let saved = |program: &str| run(fresh.0.master.command(program).args(["-S"])).text();
        saved("iptables") + &saved("ip6tables")
    };
    let (before, open) = (fresh.state(), filters());
    let applied = fresh.run(&["apply", "--yes", "--only", AREAS]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    assert!(applied.text().contains("write /etc/sysconfig/network-scripts/ifcfg-eth1"));
    assert_eq!(filters().matches("-P INPUT DROP").count(), 2, "{}", filters());
    assert_eq!(fresh.run(&["confirm"]).text(), "kept\n");
    let again = fresh.run(&["plan", "--only", AREAS]);
    assert_eq!((again.code, again.text().as_str()), (Some(0), "nothing to do\n"), "{}", again.err);
    assert_eq!(fresh.run(&["revert"]).code, Some(0));
    assert_eq!(filters(), open);
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
}

#[test]
fn the_clusters_own_packages_are_indexed_by_the_real_createrepo() {
    let fresh = Fresh::new(lab!());
    let repo = fresh.0.path("repo");
    std::fs::remove_dir_all(&repo).expect("folder");
    let apply = || fresh.run(&["apply", "--yes", "--only", "repo"]);
    let applied = apply();
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    let index = std::fs::read_to_string(repo.join("repodata/repomd.xml")).expect("index");
    assert!(index.contains("primary"), "{index}");
    assert_eq!(apply().text(), "nothing to do\n");
    // Somebody puts a package there: the index is made anew.
    std::fs::write(repo.join("new.rpm"), "not a package, and not taken for one").expect("file");
    assert!(apply().text().contains("index the packages in"));
    // Somebody makes an index by hand: nodes would refuse it, so it is signed anew.
    let file = repo.join("repodata/repomd.xml.asc");
    let signature = || std::fs::metadata(&file).and_then(|it| it.modified()).expect("signature");
    let signed = signature();
    assert_eq!(apply().text(), "nothing to do\n");
    run(Command::new("createrepo_c").args(["--quiet", "--update"]).arg(&repo)).ok();
    assert!(apply().text().contains("index the packages in"));
    assert!(signature() > signed);
    assert_eq!(fresh.run(&["revert"]).code, Some(0));
    let left = std::fs::read_dir(&repo).expect("folder").flatten().map(|entry| entry.file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["new.rpm"]);
    assert!(!fresh.0.path(".repo.lock").exists());
}

#[test]
fn who_came_by_another_port_is_not_locked_out() {
    let fresh = Fresh::new(lab!());
    let mut apply = fresh.command(&["apply", "--yes", "--only", "firewall"]);
    let refused = run(apply.env("SSH_CONNECTION", "10.0.0.5 50000 172.31.0.2 2222"));
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(refused.err.contains("write ssh_port = 2222 into [network]"), "{}", refused.err);
    assert!(!fresh.has_rules());
}

#[test]
fn what_nobody_confirms_is_undone() {
    let fresh = Fresh::new(lab!());
    let before = fresh.state();
    let applied = fresh.run(&["apply", "--yes", "--within", "5", "--only", AREAS]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    fresh.wait_until_undone();
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
    assert_eq!(fresh.run(&["confirm"]).text(), "nothing waits to be confirmed\n");
}

#[test]
fn what_is_undone_at_boot_can_be_done_again_and_reverted() {
    let fresh = Fresh::new(lab!());
    let before = fresh.state();
    let apply = ["apply", "--yes", "--within", "3600", "--only", AREAS];
    assert_eq!(fresh.run(&apply).code, Some(0));
    // As the unit does it.
    assert_eq!(fresh.run(&["rollback"]).text(), "undone\n");
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
    assert_eq!(fresh.run(&apply).code, Some(0));
    assert_eq!(fresh.run(&["confirm"]).text(), "kept\n");
    assert_eq!(fresh.run(&["rollback"]).text(), "nothing waits to be confirmed\n");
    assert_eq!(fresh.run(&["revert"]).code, Some(0));
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
}

#[test]
fn a_change_that_takes_longer_than_its_confirmation_is_undone_whole() {
    let fresh = Fresh::new(lab!());
    // As on a slow machine: the rules take their time.
    let slow = fresh.0.path("slow");
    std::fs::create_dir(&slow).expect("folder");
    let script = "#!/bin/sh\ncase $1 in -f) sleep 8 ;; esac\nexec /usr/sbin/nft \"$@\"\n";
    std::fs::write(slow.join("nft"), script).expect("script");
    run(Command::new("chmod").arg("755").arg(slow.join("nft"))).ok();
    let before = fresh.state();
    let path = format!("{}:{}", slow.display(), std::env::var_os("PATH").expect("path").display());
    let mut apply = fresh.command(&["apply", "--yes", "--within", "5", "--only", AREAS]);
    let applied = run(apply.env("PATH", path));
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    assert!(fresh.has_rules(), "the time begins when all is done");
    fresh.wait_until_undone();
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
}

#[test]
fn a_crash_in_the_middle_is_undone_too() {
    let fresh = Fresh::new(lab!());
    let before = fresh.state();
    let words = ["apply", "--yes", "--within", "5", "--only", AREAS];
    let apply = Process::start(&mut fresh.command(&words));
    apply.wait_for("firewall: load the rules");
    apply.signal("KILL");
    fresh.wait_until_undone();
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
}

#[test]
fn a_file_that_cannot_be_written_undoes_the_rest_at_once() {
    let fresh = Fresh::new(lab!());
    // A folder that leads nowhere: the fourth file cannot be made.
    symlink("/nowhere", fresh.0.path("etc/modules-load.d.new")).expect("link");
    std::fs::remove_dir_all(fresh.0.path("etc/modules-load.d")).unwrap_or_default();
    std::fs::rename(fresh.0.path("etc/modules-load.d.new"), fresh.0.path("etc/modules-load.d"))
        .expect("link");
    let before = fresh.state();
    let applied = fresh.run(&["apply", "--yes", "--only", AREAS]);
    assert_eq!(applied.code, Some(2), "{}", applied.text());
    assert!(
        applied.err.contains("nothing was kept: /etc/modules-load.d/rekindle.conf"),
        "{}",
        applied.err
    );
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
}

/// What is not the same, by name.
pub(super) fn differs(
    now: &BTreeMap<String, Vec<u8>>,
    before: &BTreeMap<String, Vec<u8>>,
) -> Vec<String> {
    let names = now.keys().chain(before.keys());
    names.filter(|name| now.get(*name) != before.get(*name)).cloned().collect()
}
