//! `rekindle check`: every mistake by file, line, value and fix.

use crate::sandbox::{CLUSTER, Sandbox};

/// One thing different in the cluster file, and what is said of it.
#[track_caller]
fn wrong(sandbox: &Sandbox, from: &str, to: &str, expected: &[&str]) {
    sandbox.change(from, to);
    let told = |line: &&str| format!("! rekindle: [DIR]/cluster.toml:{line}\n");
    let told: String = expected.iter().map(told).collect();
    sandbox.check("check", &format!("{told}exit 1\n"));
}

#[test]
fn a_sound_file_is_said_so() {
    let sandbox = Sandbox::new();
    sandbox.check("check", "[DIR]/cluster.toml is sound: 2 nodes\nexit 0\n");
    sandbox.check(
        "check --json",
        "{\n  \"findings\": [],\n  \"nodes\": 2,\n  \"ok\": true\n}\nexit 0\n",
    );
    assert_eq!(sandbox.names("."), ["cluster.toml", "tree"], "looking changes nothing");
}

#[test]
fn what_two_nodes_share_is_named_on_the_second() {
    let sandbox = Sandbox::new();
    let wrong = |from: &str, to: &str, expected: &str| wrong(&sandbox, from, to, &[expected]);
    wrong(
        "aa:bb:02",
        "aa:bb:01",
        "26: 52:54:00:aa:bb:01 already belongs to node `worker1`; every card has its own",
    );
    wrong(
        "52:54:00:aa:bb:02",
        "525400AABB01",
        "26: 52:54:00:aa:bb:01 already belongs to node `worker1`; every card has its own",
    );
    wrong(
        "10.11\"",
        "10.10\"",
        "27: 192.168.10.10 is already taken by node `worker1`; give this node another address",
    );
    wrong(
        "\"worker2\"",
        "\"worker1\"",
        "25: node `worker1` is there twice (first on line 19); rename one",
    );
    wrong("\"worker2\"", "\"master\"", "25: `master` is the master's name; rename the node");
}

#[test]
fn an_address_that_does_not_do_is_named_with_those_that_do() {
    let sandbox = Sandbox::new();
    let wrong = |to: &str, expected: &str| wrong(&sandbox, "\"192.168.10.11\"", to, &[expected]);
    wrong(
        "\"10.0.0.1\"",
        "27: 10.0.0.1 is no host address of 192.168.10.0/24; take one between 192.168.10.10 and 192.168.10.12",
    );
    wrong(
        "\"192.168.10.255\"",
        "27: 192.168.10.255 is no host address of 192.168.10.0/24; take one between 192.168.10.10 and 192.168.10.12",
    );
    wrong(
        "\"192.168.10.1\"",
        "27: 192.168.10.1 is the master's own address; give this node another address",
    );
    wrong(
        "\"192.168.10.220\"",
        "27: 192.168.10.220 lies in `discovery`, which is lent to unknown machines; take one between 192.168.10.10 and 192.168.10.12",
    );
    wrong(
        "\"192.168.10.011\"",
        "27: `192.168.10.011` is no IPv4 address; write it like 192.168.10.10",
    );
    wrong("\"fe80::1\"", "27: `fe80::1` is no IPv4 address; write it like 192.168.10.10");
    wrong("11", "27: `ip` must be a text; write ip = \"…\"");
}

#[test]
fn names_and_hardware_addresses_are_checked() {
    let sandbox = Sandbox::new();
    let wrong = |from: &str, to: &str, expected: &str| wrong(&sandbox, from, to, &[expected]);
    let rule =
        "use lower-case letters, digits and hyphens, begin with a letter, at most 63 characters";
    for name in ["Worker2", "2fast", "worker_2", "worker2.lan", "worker2-", "", "größe"] {
        wrong(
            "\"worker2\"",
            &format!("\"{name}\""),
            &format!("25: `{name}` cannot be a node name; {rule}"),
        );
    }
    wrong(
        "52:54:00:aa:bb:02",
        "52:54:00:aa:bb",
        "26: `52:54:00:aa:bb` is not a MAC address; write it like 52:54:00:aa:bb:01",
    );
    wrong(
        "52:54:00:aa:bb:02",
        "01:00:5e:00:00:01",
        "26: `01:00:5e:00:00:01` is a group or empty address, no network card has it; read it off the card",
    );
}

#[test]
fn keys_and_types_are_checked() {
    let sandbox = Sandbox::new();
    let wrong = |from: &str, to: &str, expected: &str| wrong(&sandbox, from, to, &[expected]);
    wrong(
        "os = \"el9\"",
        "os = \"el9\"\ntimezome = \"UTC\"",
        "14: unknown key `timezome` in [defaults]; did you mean `timezone`?",
    );
    wrong(
        "\nip = \"192.168.10.11\"",
        "\nip = \"192.168.10.11\"\ncolour = \"red\"",
        "28: unknown key `colour` in node `worker2`; known here: name, mac, ip, os, timezone, keyboard, language, kernel_args, packages, disk, unfit, boot_order, loader, roles",
    );
    wrong(
        "\nip = \"192.168.10.11\"",
        "",
        "24: node `worker2` lacks `ip`; add ip = \"192.168.10.10\"",
    );
    wrong("\"eth1\"", "1", "4: `interface` must be a text; write interface = \"…\"");
    wrong(
        "os = \"el9\"",
        "os = \"el9\"\ntries = \"3\"",
        "14: `tries` is \"3\"; it must be a whole number from 1 to 10",
    );
    wrong("[os.el9]", "internet = 1\n[os.el9]", "9: `internet` is 1; it must be true or false");
    wrong(
        "os = \"el9\"",
        "os = \"el9\"\npackages = \"htop\"",
        "14: `packages` must be a list; write packages = [\"…\"]",
    );
    wrong(
        "os = \"el9\"",
        "os = \"el9\"\npackages = [\"htop\", 7]",
        "14: `packages` holds 7; it must hold texts in quotes",
    );
    wrong("os = \"el9\"", "os = \"el8\"", "13: there is no [os.el8]; add it or use one of: el9");
    wrong("os = \"el9\"", "os = \"el9\"\ndisk = 3", "14: `disk` must be a table; write [disk]");
}

#[test]
fn values_are_checked_before_they_reach_a_script() {
    let sandbox = Sandbox::new();
    let wrong = |to: &str, expected: &str| {
        wrong(&sandbox, "os = \"el9\"", &format!("os = \"el9\"\n{to}"), &[expected]);
    };
    wrong(
        "timezone = \"../etc\"",
        "14: `../etc` does not do as `timezone`; write it like Europe/Berlin",
    );
    wrong(
        "keyboard = \"us;reboot\"",
        "14: `us;reboot` does not do as `keyboard`; write it like us",
    );
    wrong(
        "language = \"de\\nrootpw x\"",
        "14: `de\\nrootpw x` does not do as `language`; write it like en_US.UTF-8",
    );
    wrong(
        "kernel_args = \"quiet $(reboot)\"",
        "14: `quiet $(reboot)` does not do as `kernel_args`; write it like console=ttyS0 quiet",
    );
    wrong(
        "kernel_args = \"quiet # not so loud\"",
        "14: `quiet # not so loud` does not do as `kernel_args`; write it like console=ttyS0 quiet",
    );
    wrong(
        "packages = [\"%end\"]",
        "14: `%end` is no package; write a name like htop, a group like @development, or -name to leave one out",
    );
    wrong(
        "disk = { serial = \"a b\" }",
        "14: `a b` is no `serial` of a disk; copy it from `lsblk -o NAME,SERIAL`",
    );
    wrong("disk = { path = \"sda\" }", "14: `sda` is no device; write one of /dev/disk/by-path");
    wrong(
        "disk = { min_gib = 100, max_gib = 50 }",
        "14: `max_gib` is below `min_gib` (100); no disk can be both",
    );
    wrong(
        "disk = { keep = [\"/usr\"] }",
        "14: `/usr` cannot be a mount point to keep; use one folder like /data: a slash and at most nine lower-case letters and digits, none of the system's own",
    );
    wrong(
        "disk = { root_gib = 50 }",
        "14: `root_gib` is only for a disk with `keep`; without, the root takes the whole disk",
    );
    wrong("unfit = \"wait\"", "14: `wait` is no `unfit`; write \"hold\" or \"local\"");
    wrong(
        "loader = \"pxelinux.1\"",
        "14: `pxelinux.1` is no loader; known are undionly.kpxe, ipxe.pxe, undionly.kkpxe, pxelinux.0, snponly.efi, ipxe.efi, ipxe-i386.efi, shimx64.efi",
    );
    wrong(
        "disk = { min_gib = 0 }",
        "14: `min_gib` is 0; it must be a whole number from 1 to 100000",
    );
}

#[test]
fn what_the_master_shares_is_not_kept_on_a_node() {
    let sandbox = Sandbox::new();
    sandbox.change("# The nodes.", "[home]\nnfs = true\n# The nodes.");
    sandbox.check("check", "[DIR]/cluster.toml is sound: 2 nodes\nexit 0\n");
    let keep = "disk = { keep = [\"/home\"] }\n[home]\nnfs = true\n# The nodes.";
    sandbox.change("\n# The nodes.", keep);
    sandbox.check("check", "! rekindle: [DIR]/cluster.toml:17: `nfs` would hide the /home that `worker1` keeps; drop one of them\nexit 1\n");
}

#[test]
fn a_node_with_a_disk_of_its_own_keeps_what_all_keep() {
    let sandbox = Sandbox::new();
    sandbox.change("\n# The nodes.", "disk = { keep = [\"/data\"] }\n# The nodes.");
    sandbox
        .also("ip = \"192.168.10.11\"\n", "ip = \"192.168.10.11\"\ndisk = { serial = \"S1\" }\n");
    let told = sandbox.run("render kickstart worker2");
    assert!(told.contains("\nKEEP=\"/data\"\n") && told.contains("S1"), "{told}");
}

#[test]
fn a_key_that_would_log_nobody_in_is_refused() {
    let sandbox = Sandbox::new();
    let wrong = |to: &str, expected: &str| wrong(&sandbox, "[\"[KEY]\"]", to, &[expected]);
    wrong(
        "[\"ssh-ed25519 AAAA you@home\"]",
        "14: `ssh-ed25519 AAAA you@home…` is no OpenSSH public key; paste the one line of ~/.ssh/id_ed25519.pub",
    );
    wrong(
        "[\"[KEY]\\u2028rootpw --plaintext x\"]",
        "14: `ssh-ed25519 AAAAC3NzaC1lZDI1NT…` is no OpenSSH public key; paste the one line of ~/.ssh/id_ed25519.pub",
    );
    wrong(
        "[]",
        "14: `admin_keys` is empty; add your public key (~/.ssh/id_ed25519.pub), or nobody could log in",
    );
    wrong(
        "[\n \"[KEY]\",\n \"-----BEGIN OPENSSH PRIVATE KEY-----\",\n]",
        "16: `-----BEGIN OPENSSH PRIVATE KEY…` is no OpenSSH public key; paste the one line of ~/.ssh/id_ed25519.pub",
    );
}

#[test]
fn the_private_network_must_hold_together() {
    let sandbox = Sandbox::new();
    let wrong = |from: &str, to: &str, expected: &str| wrong(&sandbox, from, to, &[expected]);
    wrong(
        "\"eth1\"",
        "\"eth0\"",
        "4: `eth0` is the uplink too; the private switch needs an interface of its own, or rekindle would answer on the uplink",
    );
    wrong(
        "10.200-",
        "10.12-",
        "7: `discovery` overlaps `workers`; give machines that wait their own addresses",
    );
    wrong(
        "10.10-",
        "10.1-",
        "6: `workers` holds the master's own address 192.168.10.1; leave that out",
    );
    wrong(
        "10.10-192",
        "11.10-192",
        "6: `workers` ends before it begins; swap 192.168.11.10 and 192.168.10.12",
    );
    wrong(
        "10.240\"",
        "11.240\"",
        "7: `discovery` = 192.168.10.200-192.168.11.240 leaves the subnet 192.168.10.0/24; keep it inside",
    );
    wrong(
        "192.168.10.200-192.168.10.240",
        "20 machines",
        "7: `20 machines` is no range of addresses; write discovery = \"192.168.10.10-192.168.10.99\"",
    );
    wrong(
        "192.168.10.1/24",
        "192.168.10.1",
        "5: `192.168.10.1` is no address with prefix; write it like 192.168.10.1/24",
    );
    wrong(
        "192.168.10.1/24",
        "192.168.10.1/32",
        "5: a /32 network does not do; use /8 to /29, most take /24",
    );
    wrong(
        "192.168.10.1/24",
        "192.168.10.0/24",
        "5: 192.168.10.0 is the network or broadcast address of 192.168.10.0/24; take one between",
    );
    wrong(
        "[os.el9]",
        "dns = [\"resolver\"]\n[os.el9]",
        "9: `resolver` is no IPv4 address; write it like 192.168.10.10",
    );
    wrong(
        "[os.el9]",
        "internet = true\n[os.el9]",
        "9: `internet` is on, but nobody resolves names for the nodes; add dns = [\"…\"] with a resolver they reach (`cat /etc/resolv.conf` shows yours)",
    );
}

#[test]
fn users_and_scheduler_are_checked() {
    let sandbox = Sandbox::new();
    let wrong = |to: &str, expected: &str| {
        wrong(&sandbox, "# The nodes.", to, &[expected]);
    };
    wrong(
        "[scheduler]\nkind = \"sge\"",
        "17: `sge` is no scheduler; write \"torque\", \"openpbs\", \"slurm\" or \"none\"",
    );
    wrong(
        "[[users]]\nname = \"root\"\nuid = 1500",
        "17: `root` cannot be a user name; use lower-case letters, digits, - and _, begin with a letter, at most 31 characters",
    );
    wrong(
        "[[users]]\nname = \"mpi\"\nuid = 10",
        "18: `uid` is 10; it must be a whole number from 1000 to 60000",
    );
    wrong(
        "[[users]]\nname = \"mpi\"\nuid = 1500\n[[users]]\nname = \"ada\"\nuid = 1500",
        "21: uid 1500 is already taken by user `mpi`; give this user another",
    );
    wrong(
        "[[users]]\nname = \"mpi\"\nuid = 1500\n[[users]]\nname = \"mpi\"\nuid = 1501",
        "20: user `mpi` is there twice; remove one",
    );
}

#[test]
fn what_is_no_toml_is_told_by_its_line() {
    let sandbox = Sandbox::new();
    let wrong = |from: &str, to: &str, expected: &str| wrong(&sandbox, from, to, &[expected]);
    wrong("\"eth0\"", "\"eth0", "3: this is not TOML: invalid basic string, expected `\"`");
    wrong("[defaults]", "[defaults", "12: this is not TOML: unclosed table, expected `]`");
    wrong(
        "\"eth0\"",
        "eth0",
        "3: this is not TOML: string values must be quoted, expected literal string",
    );
    wrong("[defaults]", "[os.el9]", "12: this is not TOML: duplicate key");
}

#[test]
fn findings_are_for_scripts_too() {
    let sandbox = Sandbox::new();
    sandbox.change("aa:bb:02", "aa:bb:01");
    sandbox.check(
        "check --json",
        "{\n  \"findings\": [\n    {\n      \"file\": \"[DIR]/cluster.toml\",\n      \"line\": 26,\n      \
         \"message\": \"52:54:00:aa:bb:01 already belongs to node `worker1`; every card has its own\"\n    }\n  ],\n  \
         \"nodes\": 0,\n  \"ok\": false\n}\n\
         ! rekindle: [DIR]/cluster.toml:26: 52:54:00:aa:bb:01 already belongs to node `worker1`; every card has its own\n\
         exit 1\n",
    );
}

#[test]
fn a_tree_that_cannot_be_installed_from_is_said_so() {
    let sandbox = Sandbox::new();
    sandbox.remove("tree/RPM-GPG-KEY-AlmaLinux-9");
    sandbox.check("check", "! rekindle: os `el9`: no package-signing key in [DIR]/tree; name the vendor's key file in `gpg_keys`\nexit 1\n");
    sandbox.remove("tree/AppStream/repodata/repomd.xml");
    sandbox.check("check", "! rekindle: os `el9`: [DIR]/tree/AppStream/repodata/repomd.xml is missing; the copy of the tree is not complete, copy it again\nexit 1\n");
    for text in ["<html>404</html>", "[tree]\nvariants\n"] {
        sandbox.write("tree/.treeinfo", text);
        sandbox.check("check", "! rekindle: os `el9`: [DIR]/tree/.treeinfo: this is no .treeinfo; copy the DVD's own one there\nexit 1\n");
    }
    sandbox.write("tree/.treeinfo", "[tree]\n");
    sandbox.check("check", "! rekindle: os `el9`: [DIR]/tree/.treeinfo: `arch` is missing in [tree]; this is no install tree of an Enterprise Linux\nexit 1\n");
    sandbox.remove("tree/.treeinfo");
    sandbox.check("check", "! rekindle: os `el9`: no install tree in [DIR]/tree: No such file or directory (os error 2); copy the whole DVD there (with its hidden .treeinfo)\nexit 1\n");
    sandbox.change("[DIR]/tree\"", "[DIR]/tree\"\nrepo = \"[DIR]/repo\"");
    sandbox.check("check", "! rekindle: os `el9`: no install tree in [DIR]/tree: No such file or directory (os error 2); copy the whole DVD there (with its hidden .treeinfo)\nexit 1\n");
}

#[test]
fn a_batch_system_that_a_release_lacks_is_said_for_each_node() {
    let sandbox = Sandbox::new();
    sandbox.write("tree/.treeinfo", &crate::sandbox::TREEINFO.replace("9.8", "8.10"));
    sandbox.change("# The nodes.", "[scheduler]\nkind = \"torque\"\n# The nodes.");
    sandbox.check(
        "check",
        "! rekindle: node `worker1`: there are no packages of torque for el8; set scheduler.kind to \"openpbs\" or \"slurm\"\n\
         ! rekindle: node `worker2`: there are no packages of torque for el8; set scheduler.kind to \"openpbs\" or \"slurm\"\n\
         exit 1\n",
    );
}

#[test]
fn a_batch_system_needs_a_repository_that_has_it() {
    let sandbox = Sandbox::new();
    sandbox.change("# The nodes.", "[scheduler]\nkind = \"torque\"\n# The nodes.");
    sandbox.check(
        "check",
        "! rekindle: node `worker1`: torque is in no install tree; name a folder with its packages as `repo` in [os.el9]\n\
         ! rekindle: node `worker2`: torque is in no install tree; name a folder with its packages as `repo` in [os.el9]\n\
         exit 1\n",
    );
    std::fs::create_dir_all(sandbox.path("repo/repodata")).expect("folder");
    sandbox.write("repo/repodata/repomd.xml", "<repomd/>\n");
    sandbox.also("[DIR]/tree\"", "[DIR]/tree\"\nrepo = \"[DIR]/repo\"");
    sandbox.check("check", "[DIR]/cluster.toml is sound: 2 nodes\nexit 0\n");
}

#[test]
fn the_owners_own_pieces_are_checked_too() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("kickstart.d")).expect("folder");
    sandbox.write("kickstart.d/all.post", "echo fine\n");
    sandbox.check("check", "[DIR]/cluster.toml is sound: 2 nodes\nexit 0\n");
    sandbox.write("kickstart.d/all.post", "if true\n");
    sandbox.check(
        "check",
        "! rekindle: kickstart.d/all.post: line 2: syntax error: unexpected end of file\nexit 1\n",
    );
    sandbox.write("kickstart.d/all.post", "echo\n%end\n");
    sandbox.write("kickstart.d/node-nobody.pre", "");
    sandbox.check(
        "check",
        "! rekindle: kickstart.d/all.post:2: `%end` cannot stand here: rekindle writes the sections itself\n\
         ! rekindle: kickstart.d/node-nobody.pre: there is no node `nobody` in cluster.toml\n\
         exit 1\n",
    );
}

#[test]
fn a_file_in_another_encoding_is_told_by_its_line() {
    let sandbox = Sandbox::new();
    let text = CLUSTER.replace("Rack 2, slow disk", "B\u{fc}ro");
    let latin1: Vec<u8> = text.chars().map(|letter| u8::try_from(letter).expect("latin")).collect();
    std::fs::write(sandbox.path("cluster.toml"), latin1).expect("write");
    sandbox.check("check", "! rekindle: [DIR]/cluster.toml:23: this is not UTF-8; save the file in that encoding\nexit 1\n");
}

#[test]
fn a_finding_is_one_line_whatever_the_value() {
    let sandbox = Sandbox::new();
    let wrong = |from: &str, to: &str, expected: &str| wrong(&sandbox, from, to, &[expected]);
    wrong(
        "\"worker2\"",
        "\"a\\nb\\u001b[2J\"",
        "25: `a\\nb\\u{1b}[2J` cannot be a node name; use lower-case letters, digits and hyphens, begin with a letter, at most 63 characters",
    );
    wrong(
        "\"52:54:00:aa:bb:02\"",
        "\"52\\n54\"",
        "26: `52\\n54` is not a MAC address; write it like 52:54:00:aa:bb:01",
    );
    wrong(
        "[os.el9]",
        "[os.\"a\\nb\"]\ntree = \"/x\"\n[os.el9]",
        "9: `a\\nb` cannot be a name of an os; use lower-case letters, digits and hyphens, like el9",
    );
    wrong(
        "[os.el9]",
        "[os]\n\"a\\nb\" = 1\n[os.el9]",
        "10: `a\\nb` must be a table; write [os.NAME]",
    );
    wrong(
        "os = \"el9\"",
        "os = \"el9\"\npackages = [[\n1,\n2]]",
        "14: `packages` holds [; it must hold texts in quotes",
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_lines() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "cluster.toml",
        &CLUSTER
            .replace("\"eth1\"", "\"eth0\"")
            .replace("aa:bb:02", "aa:bb:01")
            .replace("\"192.168.10.11\"", "\"192.168.10.10\"")
            .replace("tree = ", "treee = ")
            .replace("\"worker2\"", "\"Worker\""),
    );
    sandbox.check(
        "check",
        "! rekindle: [DIR]/cluster.toml:4: `eth0` is the uplink too; the private switch needs an interface of its own, or rekindle would answer on the uplink\n\
         ! rekindle: [DIR]/cluster.toml:9: [os.el9] lacks `tree`; add tree = \"/srv/rekindle/tree/el9\"\n\
         ! rekindle: [DIR]/cluster.toml:10: unknown key `treee` in [os.el9]; did you mean `tree`?\n\
         ! rekindle: [DIR]/cluster.toml:25: `Worker` cannot be a node name; use lower-case letters, digits and hyphens, begin with a letter, at most 63 characters\n\
         ! rekindle: [DIR]/cluster.toml:26: 52:54:00:aa:bb:01 already belongs to node `worker1`; every card has its own\n\
         ! rekindle: [DIR]/cluster.toml:27: 192.168.10.10 is already taken by node `worker1`; give this node another address\n\
         exit 1\n",
    );
}
