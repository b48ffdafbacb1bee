//! The real binary as its owner types it: whole output, exit code, and what is in the folder
//! afterwards.

mod add;
mod check;
mod explain;
mod foreign;
mod import;
mod journal;
mod render;

use std::process::Stdio;

use crate::sandbox::{Sandbox, is_root, same};

#[test]
fn words_that_are_no_command_are_a_failure_not_a_finding() {
    let sandbox = Sandbox::new();
    for words in
        ["", "frobnicate", "node", "node add", "node add --mac zz", "render all", "check --yaml"]
    {
        let told = sandbox.run(words);
        assert!(told.starts_with("! ") && told.ends_with("exit 2\n"), "{words}: {told}");
    }
    sandbox.check("--version", &format!("rekindle {}\nexit 0\n", env!("CARGO_PKG_VERSION")));
    assert!(
        sandbox.run("--help").contains("\n  node      Add, list, remove and reinstall nodes\n")
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = Sandbox::new();
    sandbox.run("node reinstall worker1 worker2");
    for words in
        ["render all worker1", "node list", "node list --json", "log", "log --json", "check"]
    {
        let mut child = sandbox
            .command()
            .args(words.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run");
        // The pipe is closed before anything can have been written into it.
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("end");
        same(words, &sandbox.transcript(&output), "exit 0\n");
    }
}

#[test]
fn init_writes_a_file_that_only_wants_its_tree() {
    let sandbox = Sandbox::empty();
    sandbox.write(".ssh/id_ed25519.pub", "[KEY]\n");
    sandbox.check(
        "init",
        "[DIR]/cluster.toml is written; read it, then run `rekindle check`\nexit 0\n",
    );
    let written = sandbox.read("cluster.toml");
    assert!(written.contains("admin_keys = [\n  \"[KEY]\",\n]\n"), "{written}");
    sandbox.check(
        "init",
        "! rekindle: [DIR]/cluster.toml exists already and stays as it is\nexit 1\n",
    );
    assert_eq!(sandbox.read("cluster.toml"), written);
    sandbox.check("check", "! rekindle: os `el9`: no install tree in /srv/rekindle/tree/el9: No such file or directory (os error 2); copy the whole DVD there (with its hidden .treeinfo)\nexit 1\n");
    let tree = Sandbox::new();
    tree.write("cluster.toml", &written.replace("/srv/rekindle/tree/el9", "[DIR]/tree"));
    tree.check("check", "[DIR]/cluster.toml is sound: 0 nodes\nexit 0\n");
    tree.check(
        "node add --mac 52:54:00:aa:bb:01",
        "worker1 (52:54:00:aa:bb:01, 192.168.10.10) is added: its next network boot installs it and erases its disk\nexit 0\n",
    );
}

#[test]
fn init_without_a_key_says_that_one_is_needed() {
    let sandbox = Sandbox::empty();
    sandbox.check(
        "init",
        "[DIR]/cluster.toml is written; read it, then run `rekindle check`\n\
         ! no public key was found in ~/.ssh: put yours into admin_keys, or nobody can log in to the nodes\n\
         exit 0\n",
    );
    sandbox.check("check", "! rekindle: [DIR]/cluster.toml:52: `admin_keys` is empty; add your public key (~/.ssh/id_ed25519.pub), or nobody could log in\nexit 1\n");
}

#[test]
fn without_a_file_every_command_says_how_to_get_one_and_leaves_nothing_behind() {
    let sandbox = Sandbox::empty();
    for words in [
        "check",
        "node list",
        "node add --mac 52:54:00:aa:bb:01",
        "node rm worker1",
        "node reinstall worker1",
        "machines",
        "log",
        "render all worker1",
    ] {
        sandbox.check(
            words,
            "! rekindle: cannot read [DIR]/cluster.toml (`rekindle init` writes one): No such file or directory (os error 2)\n\
             exit 2\n",
        );
    }
    assert_eq!(sandbox.names("."), Vec::<String>::new());
}

#[test]
fn a_file_that_cannot_be_read_is_said_so() {
    let sandbox = Sandbox::empty();
    std::fs::create_dir(sandbox.path("cluster.toml")).expect("folder");
    for words in ["check", "node add --mac 52:54:00:aa:bb:01"] {
        sandbox.check(
            words,
            "! rekindle: cannot read [DIR]/cluster.toml: Is a directory (os error 21)\nexit 2\n",
        );
    }
    if is_root() {
        println!("skipped: a file without permissions, root reads every file");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let sandbox = Sandbox::new();
    let nobody = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(sandbox.path("cluster.toml"), nobody).expect("mode");
    sandbox.check(
        "check",
        "! rekindle: cannot read [DIR]/cluster.toml: Permission denied (os error 13)\nexit 2\n",
    );
}

#[test]
fn init_takes_keys_from_a_file_and_only_public_ones() {
    let sandbox = Sandbox::empty();
    sandbox.write("team", "# the team\n[KEY]\n\n[KEY] two\n");
    sandbox.check(
        "init --admin-keys team",
        "[DIR]/cluster.toml is written; read it, then run `rekindle check`\nexit 0\n",
    );
    assert!(
        sandbox
            .read("cluster.toml")
            .contains("admin_keys = [\n  \"[KEY]\",\n  \"[KEY] two\",\n]\n")
    );
    let sandbox = Sandbox::empty();
    sandbox.check(
        "init --admin-keys nothing",
        "! rekindle: cannot read nothing: No such file or directory (os error 2)\nexit 2\n",
    );
    sandbox.write("id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n");
    sandbox.check("init --admin-keys id_ed25519", "! rekindle: id_ed25519:1: this is no OpenSSH public key (or its comment holds quotes); name a file like ~/.ssh/id_ed25519.pub\nexit 1\n");
    assert_eq!(sandbox.names("."), ["id_ed25519"], "nothing was written");
}

#[test]
fn files_can_be_named_by_the_environment_and_by_words() {
    let sandbox = Sandbox::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rekindle"));
    command.env_clear().current_dir(sandbox.path("tree"));
    command.env("REKINDLE_CONFIG", "../cluster.toml").env("REKINDLE_STATE", "../state");
    let output = command.args(["node", "add", "--mac", "52:54:00:aa:bb:03"]).output().expect("run");
    assert!(sandbox.transcript(&output).ends_with("erases its disk\nexit 0\n"));
    sandbox.check("check", "[DIR]/cluster.toml is sound: 3 nodes\nexit 0\n");
    let output = command.args(["--config", "elsewhere"]).output().expect("run");
    assert!(sandbox.transcript(&output).contains("cannot read elsewhere"), "words win");
}
