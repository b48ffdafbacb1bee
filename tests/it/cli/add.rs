//! `rekindle node add` and `node rm`: what they say, and what they leave of the file.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use crate::sandbox::{CLUSTER, Sandbox, same};

/// The file as it should be after a third node was added.
fn with_third(mac: &str) -> String {
    format!("{CLUSTER}\n[[node]]\nname = \"worker3\"\nmac = \"{mac}\"\nip = \"192.168.10.12\"\n")
}

const ADDED: &str = "worker3 (52:54:00:aa:bb:03, 192.168.10.12) is added: its next network boot installs it and erases its disk\nexit 0\n";

#[test]
fn a_node_gets_the_next_name_and_address_and_the_rest_of_the_file_stays() {
    for mac in [
        "52:54:00:aa:bb:03",
        "52-54-00-AA-BB-03",
        "5254.00aa.bb03",
        "525400aabb03",
        "01-52-54-00-aa-bb-03",
        "52:54:0:aa:bb:3",
    ] {
        let sandbox = Sandbox::new();
        sandbox.check(&format!("node add --mac {mac}"), ADDED);
        same("the file", &sandbox.read("cluster.toml"), &with_third("52:54:00:aa:bb:03"));
        sandbox.check(
            "node list",
            "NAME     MAC                IP             OS   STAGE    SINCE                 TRIES\n\
             worker1  52:54:00:aa:bb:01  192.168.10.10  el9  idle     -                     -\n\
             worker2  52:54:00:aa:bb:02  192.168.10.11  el9  idle     -                     -\n\
             worker3  52:54:00:aa:bb:03  192.168.10.12  el9  waiting  0000-00-00T00:00:00Z  0\n\
             exit 0\n",
        );
        sandbox.check("check", "[DIR]/cluster.toml is sound: 3 nodes\nexit 0\n");
    }
}

#[test]
fn what_the_owner_says_of_a_node_is_written_down() {
    let sandbox = Sandbox::new();
    sandbox.check(
        "node add gpu-1 --mac 02:00:00:00:00:09 --ip 192.168.10.99 --os el9 --role gpu --role login --no-arm",
        "gpu-1 (02:00:00:00:00:09, 192.168.10.99) is added: it boots its own disk\nexit 0\n",
    );
    let block = "\n[[node]]\nname = \"gpu-1\"\nmac = \"02:00:00:00:00:09\"\nip = \"192.168.10.99\"\nos = \"el9\"\nroles = [\"gpu\", \"login\"]\n";
    same("the file", &sandbox.read("cluster.toml"), &format!("{CLUSTER}{block}"));
    sandbox.check("log", "exit 0\n");
    sandbox.check(
        "node show gpu-1",
        "name       gpu-1\n\
         mac        02:00:00:00:00:09\n\
         ip         192.168.10.99\n\
         os         el9\n\
         roles      gpu login\n\
         disk       the smallest fixed one of 10 GiB or more\n\
         exit 0\n",
    );
}

#[test]
fn what_does_not_do_changes_nothing() {
    let sandbox = Sandbox::new();
    for (words, expected) in [
        (
            "--mac 52:54:00:aa:bb:02",
            "52:54:00:aa:bb:02 is node `worker2` already; `rekindle node reinstall worker2` installs it again",
        ),
        ("worker1 --mac 52:54:00:aa:bb:03", "there is a node `worker1` already; give another name"),
        (
            "master --mac 52:54:00:aa:bb:03",
            "not added: `master` is the master's name; rename the node",
        ),
        (
            "--mac 52:54:00:aa:bb:03 --ip 192.168.10.11",
            "192.168.10.11 is already taken by node `worker2`; give another address",
        ),
        (
            "--mac 52:54:00:aa:bb:03 --ip 10.0.0.1",
            "not added: 10.0.0.1 is no host address of 192.168.10.0/24; take one between 192.168.10.10 and 192.168.10.12",
        ),
        (
            "--mac 52:54:00:aa:bb:03 --os el7",
            "not added: there is no [os.el7]; add it or use one of: el9",
        ),
    ] {
        sandbox.check(&format!("node add {words}"), &format!("! rekindle: {expected}\nexit 1\n"));
    }
    sandbox.check(
        "node add Worker --mac 52:54:00:aa:bb:03",
        "! error: invalid value 'Worker' for '[NAME]': `Worker` cannot be a node name; use lower-case letters, digits and hyphens, begin with a letter, at most 63 characters\n\
         ! \n\
         ! For more information, try '--help'.\n\
         exit 2\n",
    );
    same("the file", &sandbox.read("cluster.toml"), CLUSTER);
    sandbox.check("log", "exit 0\n");
}

#[test]
fn addresses_run_out_with_advice() {
    let sandbox = Sandbox::new();
    sandbox.check("node add --mac 52:54:00:aa:bb:03", ADDED);
    let full = "! rekindle: all addresses of network.workers are taken; widen the range or give an address\nexit 1\n";
    sandbox.check("node add --mac 52:54:00:aa:bb:04", full);
    sandbox.check(
        "node add --mac 52:54:00:aa:bb:04 --ip 192.168.10.99",
        "worker4 (52:54:00:aa:bb:04, 192.168.10.99) is added: its next network boot installs it and erases its disk\nexit 0\n",
    );
    sandbox.run("node rm worker1");
    sandbox.check(
        "node add --mac 52:54:00:aa:bb:05",
        "worker5 (52:54:00:aa:bb:05, 192.168.10.10) is added: its next network boot installs it and erases its disk\nexit 0\n",
    );
}

#[test]
fn a_file_that_is_wrong_already_is_not_touched() {
    let sandbox = Sandbox::new();
    sandbox.change("\"eth1\"", "\"eth0\"");
    let before = sandbox.read("cluster.toml");
    for words in ["node add --mac 52:54:00:aa:bb:03", "node rm worker1"] {
        sandbox.check(words, "! rekindle: [DIR]/cluster.toml:4: `eth0` is the uplink too; the private switch needs an interface of its own, or rekindle would answer on the uplink\nexit 1\n");
    }
    assert_eq!(sandbox.read("cluster.toml"), before);
}

#[test]
fn a_last_line_without_an_end_gets_one() {
    let sandbox = Sandbox::new();
    sandbox.write("cluster.toml", CLUSTER.trim_end());
    sandbox.check("node add --mac 52:54:00:aa:bb:03", ADDED);
    same("the file", &sandbox.read("cluster.toml"), &with_third("52:54:00:aa:bb:03"));
}

#[test]
fn mode_and_owner_of_the_file_stay() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let path = sandbox.path("cluster.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("mode");
    let before = std::fs::metadata(&path).expect("file");
    sandbox.check("node add --mac 52:54:00:aa:bb:03", ADDED);
    let after = std::fs::metadata(&path).expect("file");
    assert_eq!(
        (after.mode(), after.uid(), after.gid()),
        (before.mode(), before.uid(), before.gid())
    );
    let secret = std::fs::metadata(sandbox.path("state")).expect("folder");
    assert_eq!(secret.mode() & 0o777, 0o700);
}

#[test]
fn eight_owners_at_once_all_get_their_node() {
    let sandbox = Sandbox::new();
    sandbox.change("192.168.10.12\"", "192.168.10.99\"");
    let children: Vec<_> = (11..=18)
        .map(|number| {
            let mut command = sandbox.command();
            command.args(["node", "add", "--mac", &format!("52:54:00:aa:bb:{number}")]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run")
        })
        .collect();
    for child in children {
        let told = sandbox.transcript(&child.wait_with_output().expect("end"));
        assert!(told.ends_with("erases its disk\nexit 0\n"), "{told}");
    }
    sandbox.check("check", "[DIR]/cluster.toml is sound: 10 nodes\nexit 0\n");
    let list = sandbox.run("node list");
    for number in 11..=18 {
        let mac = format!("52:54:00:aa:bb:{number}");
        assert!(list.lines().any(|line| line.contains(&mac) && line.contains("waiting")), "{list}");
    }
    let names: Vec<_> = list.lines().filter_map(|line| line.split(' ').next()).collect();
    let expected = [
        "NAME", "worker1", "worker10", "worker2", "worker3", "worker4", "worker5", "worker6",
        "worker7", "worker8", "worker9", "exit",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_link_to_the_file_stays_a_link() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("git")).expect("folder");
    std::fs::rename(sandbox.path("cluster.toml"), sandbox.path("git/mine.toml")).expect("move");
    sandbox.link("cluster.toml", "git/mine.toml");
    sandbox.check("node add --mac 52:54:00:aa:bb:03", ADDED);
    assert!(sandbox.path("cluster.toml").is_symlink());
    same("the file", &sandbox.read("git/mine.toml"), &with_third("52:54:00:aa:bb:03"));
    sandbox.run("node rm worker3");
    assert!(sandbox.path("cluster.toml").is_symlink());
    same("the file", &sandbox.read("git/mine.toml"), CLUSTER);
    assert_eq!(sandbox.names("git"), ["mine.toml", "mine.toml.lock"], "one lock for link and file");
}

#[test]
fn a_node_goes_with_its_own_comments_and_no_others() {
    let sandbox = Sandbox::new();
    sandbox.check("node rm worker2", "worker2 is removed; its disk was not touched\nexit 0\n");
    let (before, _) = CLUSTER.split_once("\n# Rack 2").expect("comment");
    same("the file", &sandbox.read("cluster.toml"), before);

    let sandbox = Sandbox::new();
    sandbox.check("node rm worker1", "worker1 is removed; its disk was not touched\nexit 0\n");
    let block =
        "\n[[node]]\nname = \"worker1\"\nmac = \"52:54:00:aa:bb:01\"\nip = \"192.168.10.10\"\n";
    same("the file", &sandbox.read("cluster.toml"), &CLUSTER.replace(block, ""));
    sandbox.check(
        "node rm worker1",
        "! rekindle: there is no node `worker1`; `rekindle node list` names them\nexit 1\n",
    );
    sandbox.check("node rm worker2", "worker2 is removed; its disk was not touched\nexit 0\n");
    sandbox.check("node list", "there is no node yet; rekindle node add --mac MAC\nexit 0\n");
}

#[test]
fn adding_and_removing_leaves_the_file_as_it_was() {
    let sandbox = Sandbox::new();
    let commented = format!("{CLUSTER}\n# [[node]]\n# name = \"example\"\n\n# The end.\n");
    for text in [CLUSTER, &commented, &CLUSTER.replace('\n', "\r\n"), &format!("\u{feff}{CLUSTER}")]
    {
        sandbox.write("cluster.toml", text);
        sandbox.check("node add --mac 52:54:00:aa:bb:03", ADDED);
        let end = if text.contains('\r') { "\r\n" } else { "\n" };
        let block =
            "\n[[node]]\nname = \"worker3\"\nmac = \"52:54:00:aa:bb:03\"\nip = \"192.168.10.12\"\n";
        let block = block.replace('\n', end);
        same("added", &sandbox.read("cluster.toml"), &format!("{text}{block}"));
        sandbox.run("node rm worker3");
        same("removed", &sandbox.read("cluster.toml"), text);
    }
}

#[test]
fn nodes_in_another_form_are_left_to_their_owner() {
    let sandbox = Sandbox::new();
    let (head, _) = CLUSTER.split_once("# The nodes.").expect("head");
    let inline =
        "node = [{ name = \"worker1\", mac = \"52:54:00:aa:bb:01\", ip = \"192.168.10.10\" }]\n";
    sandbox.write("cluster.toml", &format!("{inline}{head}"));
    sandbox.check("check", "[DIR]/cluster.toml is sound: 1 nodes\nexit 0\n");
    let hand = "! rekindle: `node` must be a list of [[node]] tables to be changed here; edit the file by hand\nexit 1\n";
    sandbox.check("node add --mac 52:54:00:aa:bb:03", hand);
    sandbox.check("node rm worker1", hand);
    sandbox.check("log", "exit 0\n");
}

#[test]
fn names_go_on_as_the_owner_began_them() {
    let sandbox = Sandbox::new();
    for (names, next) in [
        (["node01", "node02"], "node03"),
        (["n9", "n10"], "n11"),
        (["n009", "n010"], "n011"),
        (["login", "compute"], "worker1"),
        (["rack1-7", "rack1-8"], "rack1-9"),
        (["a99", "a98"], "a100"),
    ] {
        let [one, two] = names.map(|name| format!("\"{name}\""));
        sandbox.write(
            "cluster.toml",
            &CLUSTER.replace("\"worker1\"", &one).replace("\"worker2\"", &two),
        );
        sandbox.check(
            "node add --mac 52:54:00:aa:bb:03 --no-arm",
            &format!("{next} (52:54:00:aa:bb:03, 192.168.10.12) is added: it boots its own disk\nexit 0\n"),
        );
    }
}
