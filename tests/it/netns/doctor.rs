//! `rekindle doctor` on a master that works, and on the same one with one fault after the other.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rekindle::cluster::Cluster;
use rekindle::firewall::{self, text};
use rekindle::journal::Journal;
use rekindle::stage::{Event, Plan, Report};

use crate::lab::process::{Process, run};
use crate::lab::{Lab, NODE1, lab};

/// What the doctor finds, by name. Only those that are asked for ask the wire, which takes time.
fn found(lab: &Lab, words: &[&str]) -> Vec<String> {
    let mut command = lab.command(&[&["doctor", "--json"], words].concat());
    let done = run(&mut command);
    let told: serde_json::Value = serde_json::from_slice(&done.out)
        .unwrap_or_else(|error| panic!("{error}: {} {}", done.text(), done.err));
    let findings = told["findings"].as_array().expect("a list").clone();
    assert_eq!(done.code, Some(i32::from(!findings.is_empty())), "{told}");
    findings.iter().map(|it| it["check"].as_str().expect("a name").to_owned()).collect()
}

/// A master that works: rules, forwarding, a server.
struct Works {
    lab: Lab,
    server: Option<Process>,
    count: usize,
}

impl Works {
    fn new(lab: Lab) -> Self {
        let text =
            lab.config().replace("domain =", "internet = true\ndns = [\"9.9.9.9\"]\ndomain =");
        // The doctor is not asked about Torque's packages.
        lab.write_config(text.replace("\"torque\"", "\"none\""));
        let works = Self { server: Some(lab.serve()), lab, count: 0 };
        works.load_rules();
        works.master("sysctl -q -w net.ipv4.ip_forward=1");
        works
    }

    fn master(&self, words: &str) {
        let mut words = words.split(' ');
        let program = words.next().expect("a program");
        run(self.lab.master.command(program).args(words)).ok();
    }

    fn load_rules(&self) {
        let config = std::fs::read_to_string(self.lab.config_file()).expect("config");
        let cluster = Cluster::parse(&config, Path::new("cluster.toml")).expect("cluster");
        let file = self.lab.path("rules.nft");
        std::fs::write(&file, text::nft(&firewall::master(cluster.network()))).expect("rules");
        run(self.lab.master.command("nft").arg("-f").arg(file)).ok();
    }

    /// Makes a fault, sees that it is found by its name, and mends it.
    fn fault(&mut self, name: &str, words: &[&str], make: impl Fn(&Self), mend: impl Fn(&Self)) {
        make(self);
        let names = found(&self.lab, words);
        assert!(names.iter().any(|it| it == name), "{name} is not among {names:?}");
        mend(self);
        self.count += 1;
    }

    fn command_fault(&mut self, name: &str, make: &str, mend: &str) {
        self.fault(name, &["--silent"], |it| it.master(make), |it| it.master(mend));
    }

    /// A change of cluster.toml.
    fn config_fault(&mut self, name: &str, from: &str, to: &str) {
        let good = std::fs::read_to_string(self.lab.config_file()).expect("config");
        assert!(good.contains(from), "{from}");
        let bad = good.replace(from, to);
        self.fault(
            name,
            &["--silent"],
            |it| it.lab.write_config(&bad),
            |it| it.lab.write_config(&good),
        );
    }

    /// A file that is gone, or another.
    fn file_fault(&mut self, name: &str, words: &[&str], file: &str, content: Option<&[u8]>) {
        let path = self.lab.path(file);
        let good = std::fs::read(&path).expect("file");
        self.fault(
            name,
            words,
            |_| match content {
                Some(content) => std::fs::write(&path, content).expect("file"),
                None => std::fs::remove_file(&path).expect("file"),
            },
            |_| std::fs::write(&path, &good).expect("file"),
        );
    }
}

#[test]
fn nothing_is_found_on_a_master_that_works_and_every_fault_by_its_name() {
    let mut works = Works::new(lab!());
    assert_eq!(found(&works.lab, &[]), Vec::<String>::new());

    works.command_fault("link-down", "ip link set dev eth1 down", "ip link set dev eth1 up");
    works.command_fault(
        "no-address",
        "ip addr del 192.168.10.1/24 dev eth1",
        "ip addr add 192.168.10.1/24 dev eth1",
    );
    works.command_fault(
        "small-packets",
        "ip link set dev eth1 mtu 1400",
        "ip link set dev eth1 mtu 1500",
    );
    works.command_fault(
        "leads-out",
        "ip route add default via 192.168.10.9 dev eth1 metric 900",
        "ip route del default via 192.168.10.9 dev eth1 metric 900",
    );
    works.command_fault(
        "overlap",
        "ip addr add 192.168.10.77/25 dev eth0",
        "ip addr del 192.168.10.77/25 dev eth0",
    );
    works.command_fault(
        "no-forwarding",
        "sysctl -q -w net.ipv4.ip_forward=0",
        "sysctl -q -w net.ipv4.ip_forward=1",
    );
    for name in ["no-rules", "open-forwarding"] {
        works.fault(
            name,
            &["--silent"],
            |it| it.master("nft delete table inet rekindle"),
            Works::load_rules,
        );
    }
    works.config_fault("no-interface", "\"eth1\"", "\"eth9\"");
    works.config_fault("config", "[defaults]", "[defaulds]");
    // The two the other way round.
    let good = std::fs::read_to_string(works.lab.config_file()).expect("config");
    let swapped = good.replace(
        "uplink = \"eth0\"\ninterface = \"eth1\"",
        "uplink = \"eth1\"\ninterface = \"eth0\"",
    );
    assert_ne!(swapped, good);
    works.fault(
        "swapped",
        &["--silent"],
        |it| it.lab.write_config(&swapped),
        |it| it.lab.write_config(&good),
    );

    works.file_fault("tree-broken", &["--silent"], "tree/.treeinfo", None);
    works.file_fault("tree-broken", &["--silent"], "tree/images/pxeboot/initrd.img", None);
    works.file_fault("tree-broken", &["--silent"], "tree/RPM-GPG-KEY-x", None);
    works.file_fault("repository-broken", &["--silent"], "repo/repodata/repomd.xml", None);
    let treeinfo = std::fs::read(works.lab.path("tree/.treeinfo")).expect("treeinfo");
    let sums = [&treeinfo[..], b"\n[checksums]\nimages/install.img = sha256:00\n"].concat();
    works.file_fault("tree-corrupt", &["--silent", "--checksums"], "tree/.treeinfo", Some(&sums));
    on_disk(&mut works);
    labels(&mut works);
    other_programs(&mut works);
    on_the_wire(&mut works);
    assert!(works.count >= 25, "{} faults", works.count);
}

/// Secrets and journal.
fn on_disk(works: &mut Works) {
    let key = works.lab.path("state/secrets/token.key");
    let mode = |mode: u32| {
        let key = key.clone();
        move |_: &Works| {
            std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).expect("mode");
        }
    };
    works.fault("secrets", &["--silent"], mode(0o644), mode(0o600));
    works.file_fault("secrets", &["--silent"], "state/secrets/token.key", Some(b"short"));
    // A change that waits: names can be written without harm to this machine, which has its own /etc.
    let pending = works.lab.path("state-master/pending.json");
    works.fault(
        "unconfirmed",
        &["--silent"],
        |it| {
            std::fs::create_dir_all(it.lab.path("state-master")).expect("folder");
            std::fs::write(&pending, "{\"id\":1,\"lines\":0}").expect("pending");
        },
        |_| std::fs::remove_file(&pending).expect("pending"),
    );
    // A folder without room, and one that holds no journal.
    let config = works.lab.config_file().display().to_string();
    let elsewhere = |name: &str, prepare: &str| {
        let binary = env!("CARGO_BIN_EXE_rekindle");
        let dir = works.lab.path("elsewhere").display().to_string();
        let script = format!(
            "mkdir -p {dir} && mount -t tmpfs -o size=4m,mode=700 none {dir} && cd {dir} && {prepare} && \
             exec {binary} --config {config} --state {dir} doctor --silent"
        );
        let done = run(works.lab.master.command("sh").args(["-c", &script]));
        assert!(done.text().contains(&format!("{name}: ")), "{name}: {} {}", done.text(), done.err);
    };
    elsewhere("disk-full", "true");
    elsewhere("journal", "echo nonsense >journal.db");
    works.count += 2;
}

/// A package without an index, a daemon that may not read its files, a program with a label of /root.
fn labels(works: &mut Works) {
    let package = works.lab.path("repo/new.rpm");
    works.fault(
        "repository-stale",
        &["--silent"],
        |_| std::fs::write(&package, "a package").expect("package"),
        |_| std::fs::remove_file(&package).expect("package"),
    );
    let run_in = |it: &Works, words: &[&str]| {
        run(Command::new(words[0]).args(&words[1..]).current_dir(it.lab.path(""))).ok();
    };
    works.fault(
        "hidden",
        &["--silent"],
        |it| {
            run_in(it, &["chown", "-R", "nobody:nogroup", "state"]);
            run_in(it, &["chmod", "750", "tree"]);
        },
        |it| {
            run_in(it, &["chmod", "755", "tree"]);
            assert_eq!(found(&it.lab, &["--silent"]), Vec::<String>::new());
            run_in(it, &["chown", "-R", "root:root", "state"]);
        },
    );
    let tools = works.lab.path("tools");
    std::fs::create_dir(&tools).expect("folder");
    let stat = "#!/bin/sh\necho unconfined_u:object_r:admin_home_t:s0\n";
    std::fs::write(tools.join("stat"), stat).expect("stat");
    std::fs::set_permissions(tools.join("stat"), PermissionsExt::from_mode(0o755)).expect("mode");
    let enforces = format!(
        "mount -t tmpfs none /sys/fs && mkdir /sys/fs/selinux && echo 1 >/sys/fs/selinux/enforce && \
         PATH={}:$PATH exec \"$@\"",
        tools.display()
    );
    let words = ["doctor", "--silent"];
    let done = run(&mut works.lab.command_by("sh", &["-c", &enforces, "sh"], &words));
    assert!(
        done.text().contains("label: ") && done.text().contains("admin_home_t"),
        "{}",
        done.text()
    );
    works.count += 1;
}

/// Who holds the ports, and what is not installed.
fn other_programs(works: &mut Works) {
    works.server = None;
    assert!(found(&works.lab, &["--silent"]).contains(&"not-serving".to_owned()));
    let other = Process::start(works.lab.master.command("nc").args(["-u", "-l", "69"]));
    while !found(&works.lab, &["--silent"]).contains(&"port-taken".to_owned()) {
        assert!(other.is_running(), "{}", other.text());
    }
    drop(other);
    works.server = Some(works.lab.serve());
    // As if they were not installed.
    let hidden = |name: &str, over: &str| {
        let empty = works.lab.path("empty").display().to_string();
        let mount = format!("mkdir -p {empty} && mount --bind {empty} {over} && exec \"$@\"");
        let done =
            run(&mut works.lab.command_by("sh", &["-c", &mount, "sh"], &["doctor", "--silent"]));
        assert!(done.text().contains(&format!("{name}: ")), "{name}: {} {}", done.text(), done.err);
    };
    hidden("loader-missing", "/usr/lib/ipxe");
    works.count += 3;
}

/// Cable, strangers, and nodes that are not where they were.
fn on_the_wire(works: &mut Works) {
    works.fault(
        "no-cable",
        &["--silent"],
        |it| it.lab.switch_port("m", "down"),
        |it| it.lab.switch_port("m", "up"),
    );
    let (_rogue, server) = works.lab.other_dhcp_server();
    works.fault("rogue-dhcp", &[], |_| {}, |_| server.signal("KILL"));

    let twin = works.lab.client_at(("52:54:00:aa:bb:78", "192.168.10.1"));
    works.fault("address-twice", &[], |_| {}, |_| twin.ip("addr flush dev eth0"));
    let spanning = |on: u8| move |it: &Works| it.lab.switch_does_spanning_tree(on);
    works.fault("spanning-tree", &[], spanning(1), spanning(0));

    // worker1 was up once.
    let journal = Journal::open(&works.lab.state()).expect("journal");
    let mac = NODE1.0.parse().expect("mac");
    let arm = journal.append(mac, &Event::Armed).expect("armed").seq;
    let reported = |report| Event::Reported { arm, report };
    let script = Event::ScriptSent { plan: Plan::Install, os: None, why: String::new() };
    let detail = String::new();
    for event in [
        script.clone(),
        Event::Released { arm },
        reported(Report::Installed),
        reported(Report::FirstBoot { detail, cores: Some(2) }),
    ] {
        journal.append(mac, &event).expect("written");
    }
    works.fault("node-silent", &[], |_| {}, |_| {});
    let other = works.lab.client_at(("52:54:00:aa:bb:77", NODE1.1));
    works.fault("wrong-card", &[], |_| {}, |_| {});
    drop(other);
    let arm = journal.append(mac, &Event::Armed).expect("armed").seq;
    let failed = Report::Failed { log: "no disk".to_owned() };
    for event in [script, Event::Released { arm }, Event::Reported { arm, report: failed }] {
        journal.append(mac, &event).expect("written");
    }
    works.fault("node-waits", &["--silent"], |_| {}, |_| {});
}
