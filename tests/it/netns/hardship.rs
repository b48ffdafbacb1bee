//! Full disks, garbage and endless streams: the server says what is wrong and serves on.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::http::ask;
use crate::lab::net::Namespace;
use crate::lab::process::{DEADLINE, Process, run};
use crate::lab::wire::{discover, noise, rrq};
use crate::lab::{Lab, MASTER, NODE1, NODE2, STRANGER, curl, lab, octets, script, status};

/// A small file system at a folder, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn at(folder: PathBuf) -> Self {
        std::fs::create_dir_all(&folder).expect("folder");
        let words = ["-t", "tmpfs", "-o", "size=1m,mode=700", "rekindle-test"];
        run(Command::new("mount").args(words).arg(&folder)).ok();
        Self(folder)
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).expect("file");
        for size in [65_536, 4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("filler");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: the server may still be ending.
        run(Command::new("umount").arg("-l").arg(&self.0));
    }
}

fn kickstart(script: &str) -> String {
    let at = script.split_whitespace().find_map(|word| word.strip_prefix("inst.ks="));
    at.expect("a kickstart").to_owned()
}

/// The server is well: a node gets its address and a file.
fn serves(lab: &Lab, server: &Process) {
    let node = lab.client(NODE1.0);
    assert_eq!(lab.udhcpc(&node, &["-q", "-t", "80"]).wait().code, Some(0));
    assert_eq!(status(&node, &[&format!("http://{MASTER}/tree/el9/.treeinfo")]), "200");
    let loader = curl(&node, &[&format!("tftp://{MASTER}/undionly.kpxe")]).ok();
    assert!(loader == std::fs::read("/usr/lib/ipxe/undionly.kpxe").expect("loader"));
    assert!(server.is_running());
}

// rhinstaller/anaconda#5576: a kickstart that is refused is asked for again at once, so it is told when.
#[test]
fn with_a_full_disk_nothing_is_released_and_the_rest_is_served() {
    let lab = lab!();
    let disk = Small::at(lab.state());
    let server = lab.serve();
    let node = lab.client_at(NODE1);
    lab.arm(&server);
    let ks = kickstart(&script(&node, NODE1.0));
    disk.fill();
    for _ in 0..3 {
        let answer = curl(&node, &["-i", &ks]);
        let answer = answer.text();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(!answer.contains("rootpw"), "{answer}");
        assert!(answer.to_lowercase().contains("retry-after"), "{answer}");
    }
    let said = server.text();
    assert!(said.contains("the disk is full: the journal"), "{said}");
    // An owner's command says it too.
    let refused = run(&mut lab.command(&["node", "reinstall", "worker2"]));
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("the disk is full"), "{}", refused.err);
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    let url = format!("http://{MASTER}/ipxe/{}", NODE2.0.replace(':', "-"));
    let other = lab.client_at(NODE2);
    let disk_boot = curl(&other, &["--fail", &url]).text();
    assert!(disk_boot.contains("sanboot"), "installed nodes boot: {disk_boot}");
    drop((node, other));
    serves(&lab, &server);

    disk.free();
    let node = lab.client_at(NODE1);
    assert_eq!(status(&node, &[&ks]), "200");
    let told = lab.rekindle(&["node", "list", "--json"]);
    assert!(told.contains("\"tries\": 1"), "only what left counts: {told}");
}

#[test]
fn with_a_full_disk_it_does_not_start_and_says_so_in_one_line() {
    let lab = lab!();
    let disk = Small::at(lab.state());
    disk.fill();
    let (line, code) = lab.refused(&[]);
    assert_eq!(code, Some(2));
    assert!(line.contains("No space left on device") || line.contains("disk is full"), "{line}");
    // The secrets are there, the journal is not; or the journal is there, too.
    disk.free();
    let server = lab.serve();
    crate::lab::stop(&server);
    for file in ["journal.db-wal", "journal.db-shm", "journal.db"] {
        drop(std::fs::remove_file(disk.0.join(file)));
    }
    disk.fill();
    let (line, code) = lab.refused(&[]);
    assert_eq!(code, Some(2));
    assert!(line.contains("the disk is full: the journal"), "{line}");
}

/// Half of them nonsense from the first byte, half a proper request with wounds.
fn garbage(port: u16) -> Vec<Vec<u8>> {
    let proper = if port == 69 { rrq("undionly.kpxe") } else { discover(octets(NODE1.0)) };
    let datagram = |number: u64| {
        let noise = noise(number * 7 + u64::from(port), 1472);
        let size = usize::from(u16::from_be_bytes([noise[0], noise[1]])) % 1472;
        if number.is_multiple_of(2) {
            return noise[..size].to_vec();
        }
        let mut request = proper.clone();
        for wound in noise[2..14].chunks(2) {
            let place = usize::from(wound[0]) % request.len();
            request[place] = wound[1];
        }
        request.extend(&noise[..size % 60]);
        request
    };
    (0..2000).map(datagram).collect()
}

#[test]
fn garbage_at_every_port_changes_nothing() {
    let lab = lab!();
    let server = lab.serve_with(&[]);
    let node = lab.client_at(NODE1);
    for port in [67, 69, 4011] {
        let socket = node.enter(|| UdpSocket::bind((NODE1.1, 0)).expect("socket"));
        for datagram in garbage(port) {
            socket.send_to(&datagram, (MASTER, port)).expect("sent");
        }
    }
    for port in [80, 5140] {
        for seed in 0..20 {
            let connect = || TcpStream::connect((MASTER, port)).expect("connection");
            let mut stream = node.enter(connect);
            stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
            // Either end may be the first to have enough.
            drop(stream.write_all(&noise(seed, 30_000)));
            drop(stream.shutdown(Shutdown::Write));
            drop(stream.read_to_end(&mut vec![]));
        }
    }
    drop(node);
    serves(&lab, &server);
    let said = server.text();
    assert!(!said.contains("panicked") && !said.contains("ERROR"), "{said}");
}

fn log_stream(from: &Namespace) -> TcpStream {
    from.enter(|| TcpStream::connect((MASTER, 5140)).expect("connection"))
}

/// Waits until the server has taken everything: it closes when we do.
fn finish(mut stream: TcpStream) {
    stream.shutdown(Shutdown::Write).expect("end");
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    assert_eq!(stream.read_to_end(&mut vec![]).expect("closed"), 0);
}

fn kept(lab: &Lab) -> Vec<u8> {
    std::fs::read(log_file(lab)).expect("log")
}

fn log_file(lab: &Lab) -> PathBuf {
    lab.state().join(Path::new("logs/worker1.log"))
}

#[test]
fn log_streams_are_kept_cleaned_and_cut() {
    let lab = lab!();
    let server = lab.serve();
    let node = lab.client_at(NODE1);
    let mut stream = log_stream(&node);
    stream.write_all(b"first\r\n\x1b[2J\x1b]0;evil\x07 second\0\xff\n").expect("sent");
    stream.write_all(&[b'x'; 8192]).expect("sent");
    stream.write_all(b"\nafter a long one\n").expect("sent");
    stream.write_all(&[b'y'; 300_000]).expect("sent");
    stream.write_all(b"\nafter a longer one\nthe end has no newline").expect("sent");
    finish(stream);
    let text = String::from_utf8(kept(&lab)).expect("clean text");
    assert!(text.chars().all(|letter| !letter.is_control() || letter == '\n'), "no control");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 7, "{lines:.40?}");
    assert_eq!(lines[0], "first");
    assert!(lines[1].contains("second") && !lines[1].contains('\u{1b}'), "{}", lines[1]);
    assert_eq!((lines[2].len(), lines[4].len()), (8192, 8192));
    assert_eq!((lines[3], lines[5]), ("after a long one", "after a longer one"));
    assert_eq!(lines[6], "the end has no newline");
    assert!(server.is_running());
}

#[test]
fn a_log_without_end_does_not_fill_the_disk() {
    let lab = lab!();
    let server = lab.serve();
    let node = lab.client_at(NODE1);
    // One line that never ends, and then far too many.
    let mut stream = log_stream(&node);
    for _ in 0..64 {
        stream.write_all(&[b'z'; 65_536]).expect("sent");
    }
    finish(stream);
    assert!(kept(&lab).len() < 10_000, "{} bytes of one line", kept(&lab).len());
    let line = [&[b'a'; 4000][..], b"\n"].concat();
    for _ in 0..2 {
        let mut stream = log_stream(&node);
        for _ in 0..2500 {
            stream.write_all(&line).expect("sent");
        }
        finish(stream);
    }
    let old =
        std::fs::metadata(log_file(&lab).with_extension("log.1")).expect("the one before").len();
    assert!((7 << 20..=8 << 20).contains(&old), "{old} bytes are kept of the old");
    assert!(kept(&lab).len() <= 8 << 20, "{} bytes are kept of the new", kept(&lab).len());
    serves(&lab, &server);
}

#[test]
fn only_nodes_are_listened_to() {
    let lab = lab!();
    let server = lab.serve();
    let other = lab.client_at((STRANGER, "192.168.10.201"));
    let mut stream = log_stream(&other);
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    drop(stream.write_all(b"line\n"));
    drop(stream.read_to_end(&mut vec![]));
    server.wait_for("a log stream from no node");
    assert!(!lab.state().join("logs").exists());
}

#[test]
fn without_file_descriptors_it_waits_until_there_are_some() {
    let lab = lab!();
    let server = lab.serve_alone();
    // What it has open now, and a few more: fewer than there will be connections.
    let pid = server.pid().to_string();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").count();
    let limit = format!("--nofile={0}:{0}", open + 6);
    run(Command::new("prlimit").args(["--pid", &pid, &limit])).ok();
    let (node, other) = (lab.client_at(NODE1), lab.client_at(NODE2));
    // The kernel takes them all; the server cannot. Of one machine it would not take so many.
    let streams = |from| (0..8).map(move |_| log_stream(from));
    let waiting: Vec<_> = streams(&node).chain(streams(&other)).collect();
    server.wait_for("cannot take a log stream");
    let asked = ask(&node, "tree/el9/RPM-GPG-KEY-x");
    server.wait_for("cannot take a connection");
    drop(waiting);
    drop(asked);
    drop((node, other));
    serves(&lab, &server);
}

#[test]
fn the_kernel_looks_after_connections_to_machines_that_were_switched_off() {
    let lab = lab!();
    let _server = lab.serve();
    let node = lab.client_at(NODE1);
    let (log, mut asked) = (log_stream(&node), ask(&node, "tree/el9/RPM-GPG-KEY-x"));
    asked.read_exact(&mut [0; 12]).expect("an answer");
    let listed = run(lab.master.command("ss").args(["-tnoH", "state", "established"])).ok();
    let listed = String::from_utf8(listed).expect("text");
    for port in [":80 ", ":5140 "] {
        let line = listed.lines().find(|line| line.contains(port)).expect("a connection");
        assert!(line.contains("timer:(keepalive,"), "{line}");
    }
    drop((log, asked));
}

#[test]
fn what_a_node_says_reaches_no_terminal_as_it_is() {
    let lab = lab!();
    let server = lab.serve();
    let node = lab.client_at(NODE1);
    lab.arm(&server);
    let ks = kickstart(&script(&node, NODE1.0));
    assert_eq!(status(&node, &[&ks]), "200");
    let evil = "a\u{1b}[2J\u{7}\u{9b}31m\r\nINFO stage forged\n";
    for event in ["pre", "disk", "failed"] {
        let url = ks.replace("/ks", &format!("/event/{event}"));
        assert_eq!(status(&node, &["--data-binary", evil, &url]), "200", "{event}");
    }
    server.wait_for("to=\"failed\"");
    let shown = lab.rekindle(&["log"]) + &lab.rekindle(&["node", "show", "worker1"]);
    for text in [shown, server.text()] {
        assert!(text.chars().all(|letter| !letter.is_control() || letter == '\n'), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("INFO stage forged")), "{text:?}");
    }
}
