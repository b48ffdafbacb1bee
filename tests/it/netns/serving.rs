//! What happens to a server in the course of its life: changes, signals, and the service manager.

use std::io::{Read, Write};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rekindle::repo::key::Key;
use rekindle::repo::{Change, Repo};

use crate::lab::process::{DEADLINE, Process, run};
use crate::lab::wire::Sniffer;
use crate::lab::{
    ETH1, Lab, MASTER, NODE1, STRANGER, big_file, curl, lab, script, stop, undisturbed,
};

use super::http::ask;

const BIG: &str = "tree/el9/images/install.img";

/// A service manager's end of the line.
struct Manager(UnixDatagram);

impl Manager {
    /// Starts the server, by a program that becomes it.
    fn serve(lab: &Lab, program: &str, before: &[&str]) -> (Self, Process) {
        let path = lab.path("notify");
        drop(std::fs::remove_file(&path));
        let socket = UnixDatagram::bind(&path).expect("socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let mut command = lab.command_by(program, before, &["serve"]);
        (Self(socket), Process::start(command.env("NOTIFY_SOCKET", &path)))
    }

    fn told(&self) -> String {
        let mut buffer = [0; 4096];
        let len = undisturbed(|| self.0.recv(&mut buffer)).expect("a notification");
        String::from_utf8_lossy(&buffer[..len]).trim_end().to_owned()
    }
}

#[test]
fn what_is_edited_by_hand_is_picked_up_and_a_broken_file_changes_nothing() {
    let lab = lab!();
    let server = lab.serve();
    let good = lab.config();
    let client = lab.client(STRANGER);
    let udhcpc = lab.udhcpc(&client, &["-t", "80"]);
    let node =
        format!("\n[[node]]\nname = \"hand\"\nmac = \"{STRANGER}\"\nip = \"192.168.10.44\"\n");
    let with_node = format!("{good}{node}");

    lab.write_config(with_node.replace("\"192.168.10.44\"", "\"192.168.11.44\""));
    let lines = with_node.lines().count();
    server.wait_for(&format!("cluster.toml:{lines}: 192.168.11.44 is no host address"));
    server.wait_for("is broken; the previous one stays in force");
    assert!(!udhcpc.text().contains("GOT"), "{}", udhcpc.text());
    let known = lab.client(NODE1.0);
    assert_eq!(lab.udhcpc(&known, &["-q", "-t", "80"]).wait().code, Some(0));
    drop(known);

    lab.write_config(&with_node);
    udhcpc.wait_for("GOT ip=192.168.10.44");
    // Not text at all, then gone.
    lab.write_config(b"\xff\xfe\0");
    server.wait_for_times("is broken; the previous one stays in force", 2);
    std::fs::remove_file(lab.config_file()).expect("removed");
    server.wait_for_times("is broken; the previous one stays in force", 3);
    lab.write_config(&good);
    let said = server.wait_for("read anew nodes=2");
    assert_eq!(said.matches("is broken").count(), 3, "each is said once: {said}");
    // Written in place, as some editors do.
    std::fs::write(lab.config_file(), &with_node).expect("config");
    server.wait_for_times("nodes=3", 2);
    stop(&server);
}

#[test]
fn a_change_while_the_server_starts_is_not_missed() {
    let lab = lab!();
    let good = lab.config();
    // A file that it reads while it starts, and that keeps it waiting.
    let treeinfo = lab.path("tree/.treeinfo");
    let text = std::fs::read(&treeinfo).expect("treeinfo");
    std::fs::remove_file(&treeinfo).expect("removed");
    let made = Command::new("mkfifo").arg(&treeinfo).status().expect("mkfifo");
    assert!(made.success());
    let server = Process::start(&mut lab.command(&["serve"]));
    // Opens when the other end does: cluster.toml has been read by then.
    let mut pipe = std::fs::File::options().write(true).open(&treeinfo).expect("pipe");
    let extra =
        format!("\n[[node]]\nname = \"late\"\nmac = \"{STRANGER}\"\nip = \"192.168.10.45\"\n");
    lab.write_config(format!("{good}{extra}"));
    let fresh = lab.path("tree/.treeinfo.new");
    std::fs::write(&fresh, &text).expect("treeinfo");
    std::fs::rename(&fresh, &treeinfo).expect("treeinfo");
    pipe.write_all(&text).expect("treeinfo");
    drop(pipe);
    server.wait_for("serving DHCP");
    let client = lab.client(STRANGER);
    lab.udhcpc(&client, &["-t", "80"]).wait_for("GOT ip=192.168.10.45");
}

#[test]
fn a_tree_that_was_missing_is_taken_when_it_is_there() {
    let lab = lab!();
    let server = lab.serve();
    let other = lab.path("other");
    let more = format!("\n[os.el8]\ntree = \"{}\"\n", other.display());
    lab.write_config(lab.config() + &more);
    server.wait_for("os `el8`: no install tree in");
    std::os::unix::fs::symlink(lab.path("tree"), &other).expect("tree");
    server.wait_for("read anew");
    let node = lab.client_at(NODE1);
    let url = format!("http://{MASTER}/tree/el8/RPM-GPG-KEY-x");
    assert_eq!(curl(&node, &["--fail", &url]).ok(), b"a key\n");
}

#[test]
fn a_medium_that_is_imported_while_it_serves_is_in_force_at_once() {
    let lab = lab!();
    let server = lab.serve();
    let (old, new) = (lab.path("tree"), lab.path("new"));
    run(Command::new("cp").arg("-a").arg(&old).arg(&new)).ok();
    let text = std::fs::read_to_string(new.join(".treeinfo")).expect("treeinfo");
    std::fs::write(new.join(".treeinfo"), text.replace("vmlinuz", "vmlinuz-9.9"))
        .expect("treeinfo");
    std::fs::rename(new.join("images/pxeboot/vmlinuz"), new.join("images/pxeboot/vmlinuz-9.9"))
        .expect("kernel");
    std::fs::rename(&old, lab.path("old")).expect("old");
    std::fs::rename(&new, &old).expect("new");
    server.wait_for("read anew");
    lab.arm(&server);
    let node = lab.client_at(NODE1);
    let script = script(&node, NODE1.0);
    assert!(script.contains("vmlinuz-9.9"), "{script}");
}

#[test]
fn the_first_signature_of_the_cluster_s_own_packages_is_told_to_new_nodes_at_once() {
    let lab = lab!();
    let (dir, key) = (lab.path("repo"), Key::new(lab.path("gnupg")));
    // What stands for an index in these tests is none that createrepo_c could read.
    std::fs::remove_dir_all(&dir).expect("folder");
    std::fs::create_dir(&dir).expect("folder");
    run(Command::new("createrepo_c").arg("--quiet").arg(&dir)).ok();
    let server = lab.serve();
    let repo = Repo { dir: &dir };
    repo.publish(&Change::default(), &key).expect("published");
    server.wait_for("read anew");
    // Further ones are no news.
    repo.publish(&Change::default(), &key).expect("published");
    lab.arm(&server);
    let node = lab.client_at(NODE1);
    let script = script(&node, NODE1.0);
    let (_, rest) = script.split_once("inst.ks=").expect("a kickstart");
    let (url, _) = rest.split_once(' ').expect("its URL");
    let text = curl(&node, &["--fail", url]).ok();
    let text = String::from_utf8(text).expect("text");
    assert!(text.contains("repo_gpgcheck=1") && text.contains("makecache"), "{text}");
    let public = key.public().expect("key");
    let served = curl(&node, &["--fail", &format!("http://{MASTER}/keys/el9/key2.asc")]).ok();
    assert_eq!(String::from_utf8_lossy(&served), public);
    assert_eq!(server.text().matches("read anew").count(), 1, "{}", server.text());
}

#[test]
fn asked_to_stop_it_finishes_a_download_tells_its_manager_and_ends_well() {
    let lab = lab!();
    let (manager, server) = Manager::serve(&lab, "env", &[]);
    assert_eq!(manager.told(), "READY=1");
    assert!(server.wait_for("serving DHCP").contains("interface=eth1"));
    let node = lab.client_at(NODE1);
    let mut stream = ask(&node, BIG);
    let mut got = vec![0; 20_000];
    stream.read_exact(&mut got).expect("a beginning");
    server.signal("TERM");
    assert_eq!(manager.told(), "STOPPING=1");
    // It waits for this reader, and the rest comes.
    stream.read_to_end(&mut got).expect("the rest");
    assert!(got.ends_with(&big_file()), "whole");
    assert_eq!(server.wait().code, Some(0));
    let said = server.text();
    assert!(said.contains("stopped why=\"SIGTERM\"") && !said.contains("cut off"), "{said}");
}

#[test]
fn asked_to_stop_it_does_not_wait_for_ever() {
    let lab = lab!();
    let server = lab.serve();
    let node = lab.client_at(NODE1);
    let mut stream = ask(&node, BIG);
    stream.read_exact(&mut [0; 20_000]).expect("a beginning");
    // Reads no more, and is still there.
    stop(&server);
    assert!(server.text().contains("transfers cut off"), "{}", server.text());
    drop(stream);
    // The ports are free at once.
    stop(&lab.serve());
}

#[test]
fn whoever_stops_it_as_soon_as_it_serves_sees_it_end_well() {
    let lab = lab!();
    for _ in 0..8 {
        let (manager, server) = Manager::serve(&lab, "env", &[]);
        assert_eq!(manager.told(), "READY=1");
        stop(&server);
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let lab = lab!();
    // Every write to it fails: its disk is full.
    let (manager, server) = Manager::serve(&lab, "sh", &["-c", "exec \"$@\" 2>/dev/full", "sh"]);
    assert_eq!(manager.told(), "READY=1");
    let node = lab.client(NODE1.0);
    assert_eq!(lab.udhcpc(&node, &["-q", "-t", "80"]).wait().code, Some(0));
    let url = format!("http://{MASTER}/tree/el9/RPM-GPG-KEY-x");
    assert_eq!(curl(&node, &["--fail", &url]).ok(), b"a key\n");
    stop(&server);
}

#[test]
fn without_its_interface_it_ends_so_that_its_manager_can_start_it_again() {
    let lab = lab!();
    let server = lab.serve();
    lab.master.ip("link del dev eth1");
    let done = server.wait();
    assert_eq!(done.code, Some(2), "{}", done.err);
    assert!(done.err.ends_with("eth1 is gone; rekindle must be started again when it is back\n"));
}

#[test]
fn answers_come_from_the_address_of_the_cluster_whatever_else_the_interface_has() {
    let lab = lab!();
    lab.master.ip("addr del 192.168.10.1/24 dev eth1");
    for address in ["192.168.10.3/24", "192.168.10.1/24", "10.9.9.9/24"] {
        lab.master.ip(&format!("addr add {address} dev eth1"));
    }
    let _server = lab.serve();
    let node = lab.client(NODE1.0);
    let sniffer = Sniffer::on(&node);
    assert_eq!(lab.udhcpc(&node, &["-q", "-t", "80"]).wait().code, Some(0));
    curl(&node, &[&format!("tftp://{MASTER}/undionly.kpxe")]).ok();
    let told = sniffer.frames().into_iter().filter(|frame| frame.from == ETH1);
    let senders: std::collections::BTreeSet<_> =
        told.map(|frame| frame.src.ip().to_string()).collect();
    assert_eq!(senders.into_iter().collect::<Vec<_>>(), [MASTER]);
}
