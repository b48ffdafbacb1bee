//! The node plane by curl: files, ranges, refusals, scripts.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::lab::process::{DEADLINE, run};
use crate::lab::{
    MASTER, NODE1, NODE2, STRANGER, at_once, big_file, curl, lab, net::Namespace, script, status,
};

const BIG: &str = "tree/el9/images/install.img";

fn url(path: &str) -> String {
    format!("http://{MASTER}/{path}")
}

fn get(from: &Namespace, words: &[&str], path: &str) -> Vec<u8> {
    curl(from, &[words, &["--fail", &url(path)]].concat()).ok()
}

/// The head of an answer, header names in lower case.
fn head(from: &Namespace, words: &[&str], path: &str) -> String {
    head_to_the_letter(from, words, path).to_lowercase()
}

fn head_to_the_letter(from: &Namespace, words: &[&str], path: &str) -> String {
    let url = url(path);
    let words = [&["-o", "/dev/null", "-D", "-"], words, &[&url]].concat();
    String::from_utf8(curl(from, &words).ok()).expect("text")
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))?;
    Some(line.trim().to_owned())
}

/// Opens a connection and asks for a file; the answer is not read yet.
pub(super) fn ask(from: &Namespace, path: &str) -> TcpStream {
    let mut stream = from.enter(|| TcpStream::connect((MASTER, 80)).expect("connection"));
    stream.set_read_timeout(Some(DEADLINE)).expect("timeout");
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("request");
    stream
}

// yum of release 7 cannot do without ranges (eblot/pybootd#19); edk2's HTTP boot asks by HEAD first (HttpBootImpl.c).
#[test]
fn whole_files_parts_of_files_and_their_heads_are_served() {
    let lab = lab!();
    let _server = lab.serve();
    let client = lab.client_at(NODE1);
    let (big, size) = (big_file(), big_file().len());
    assert!(get(&client, &[], BIG) == big);
    assert_eq!(get(&client, &[], "tree/el9/empty"), b"");
    assert_eq!(get(&client, &[], "keys/el9/key1.asc"), b"a key\n");
    assert!(get(&client, &[], "boot/snponly.efi").starts_with(b"MZ"));
    let other = run(client.command("busybox").args(["wget", "-q", "-O", "-", &url(BIG)])).ok();
    assert!(other == big, "another client");

    // edk2 looks at the type or the end of the name (HttpBootSupport.c, HttpBootCheckImageType).
    let loader = head(&client, &["-I"], "boot/snponly.efi");
    assert_eq!(header(&loader, "content-type").as_deref(), Some("application/efi"));

    let told = head(&client, &["-I"], BIG);
    assert!(told.starts_with("http/1.1 200"), "{told}");
    assert_eq!(header(&told, "content-length"), Some(size.to_string()));
    assert_eq!(header(&told, "accept-ranges").as_deref(), Some("bytes"));
    let tag = header(&told, "etag").expect("a tag");
    let told = head_to_the_letter(&client, &["-I"], BIG);
    let date = header(&told, "last-modified").expect("a date");

    let last = size - 1;
    for (range, part, told) in [
        ("0-0", 0..1, format!("bytes 0-0/{size}")),
        ("0-99999", 0..100_000, format!("bytes 0-99999/{size}")),
        ("4000001-5000000", 4_000_001..5_000_001, format!("bytes 4000001-5000000/{size}")),
        ("-5000", size - 5000..size, format!("bytes {}-{last}/{size}", size - 5000)),
        ("6000000-", 6_000_000..size, format!("bytes 6000000-{last}/{size}")),
    ] {
        assert!(get(&client, &["-r", range], BIG) == big[part], "{range}");
        let told_at = head(&client, &["-r", range], BIG);
        assert_eq!(header(&told_at, "content-range"), Some(told));
    }
    let beyond = head(&client, &["-r", "99999999-"], BIG);
    assert!(beyond.starts_with("http/1.1 416"), "{beyond}");
    assert_eq!(header(&beyond, "content-range"), Some(format!("bytes */{size}")));
    // A part of another version would make a broken whole.
    let changed = head(&client, &["-r", "0-9", "-H", "If-Range: \"other\""], BIG);
    assert!(changed.starts_with("http/1.1 200"), "{changed}");
    let same = head(&client, &["-r", "0-9", "-H", &format!("If-Range: {date}")], BIG);
    assert!(same.starts_with("http/1.1 206"), "{same}");
    let as_old = head(&client, &["-H", &format!("If-Modified-Since: {date}")], BIG);
    assert!(as_old.starts_with("http/1.1 304"), "{as_old}");
    let changed = head(
        &client,
        &["-H", "If-None-Match: \"x\"", "-H", &format!("If-Modified-Since: {date}")],
        BIG,
    );
    assert!(changed.starts_with("http/1.1 200"), "tags come first: {changed}");
    let known = head(&client, &["-H", &format!("If-None-Match: {tag}")], BIG);
    assert!(known.starts_with("http/1.1 304"), "{known}");
}

#[test]
fn connections_are_kept_and_shared_by_what_follows() {
    let lab = lab!();
    let _server = lab.serve();
    let client = lab.client_at(NODE1);
    let kept = curl(&client, &["-v", &url("tree/el9/RPM-GPG-KEY-x"), &url("keys/el9/key1.asc")]);
    assert!(kept.err.contains("Re-using existing connection"), "{}", kept.err);
    assert_eq!(kept.ok(), b"a key\na key\n");
    // Also behind a refusal, a 304 and an empty file.
    let urls = ["tree/el9/none", "tree/el9/empty", "ipxe/nonsense", "keys/el9/key1.asc"].map(url);
    let words: Vec<_> = ["-v"].into_iter().chain(urls.iter().map(String::as_str)).collect();
    let kept = curl(&client, &words);
    assert_eq!(kept.err.matches("Re-using existing connection").count(), 3, "{}", kept.err);
    assert!(kept.ok().ends_with(b"a key\n"));
}

// Anaconda asks for images that need not be there (dracut/anaconda-lib.sh, anaconda_net_root): a 404 lets it go on.
#[test]
fn what_is_not_for_nodes_is_refused() {
    let lab = lab!();
    std::os::unix::fs::symlink("/etc/passwd", lab.path("tree/link")).expect("link");
    std::os::unix::fs::symlink("../state/secrets/munge.key", lab.path("tree/up")).expect("link");
    let _server = lab.serve();
    let client = lab.client_at(NODE1);
    let asked = |words: &[&str], path: &str| status(&client, &[words, &[&url(path)]].concat());
    for path in [
        "",
        "tree/el9",
        "tree/el9/",
        "tree/el9/images",
        "tree/el9/missing",
        "tree/el9/../../cluster.toml",
        "tree/el9/images/../../../etc/passwd",
        "tree/el9/%2e%2e/%2e%2e/etc/passwd",
        "tree/el9/..%2f..%2fetc/passwd",
        "tree/el9/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "../../etc/passwd",
        "tree/el9/link",
        "tree/el9/up",
        "tree/el9/images%00.img",
        "tree/el9//etc/passwd",
        "repo/el9/x",
        "keys/el9/RPM-GPG-KEY-x",
        "tree/other/.treeinfo",
        "state/secrets/munge.key",
        "cluster.toml",
    ] {
        assert_eq!(asked(&["--path-as-is"], path), "404", "{path}");
    }
    for path in ["tree/el9/.treeinfo", "ipxe/52-54-00-aa-bb-01", "node/x/ks", "boot/undionly.kpxe"]
    {
        assert_eq!(asked(&["-d", "x"], path), "405", "POST {path}");
        assert_eq!(asked(&["-X", "DELETE"], path), "405", "DELETE {path}");
    }
    assert_eq!(asked(&[], "node/x/event/pre"), "405");
    for path in ["ks", "secret/munge.key"] {
        let path = format!("node/{}/{path}", "0".repeat(32));
        assert_eq!(asked(&[], &path), "410", "{path}");
    }
    let long = lab.path("long");
    std::fs::write(&long, vec![b'x'; 100_000]).expect("file");
    let body = format!("@{}", long.display());
    let too_long = asked(&["--data-binary", &body], "node/x/event/failed");
    assert_eq!(too_long, "400");
    assert_eq!(asked(&[], &"x".repeat(20_000)), "431");
}

#[test]
fn sixteen_downloads_at_once_are_whole() {
    let lab = lab!();
    let _server = lab.serve();
    let client = lab.client_at(NODE1);
    let big = big_file();
    at_once(&[(); 16], |()| assert!(get(&client, &[], BIG) == big));
}

#[test]
fn a_download_that_breaks_off_breaks_nothing_else() {
    let lab = lab!();
    let server = lab.serve();
    let client = lab.client_at(NODE1);
    for _ in 0..20 {
        let mut stream = ask(&client, BIG);
        stream.read_exact(&mut [0; 20_000]).expect("a beginning");
        // What was not read makes the kernel answer with a reset.
        drop(stream);
    }
    assert!(get(&client, &[], BIG) == big_file());

    // The file becomes shorter under a download: that one cannot be completed.
    let short = lab.path("tree/images/short.img");
    std::fs::write(&short, big_file()).expect("file");
    let mut stream = ask(&client, "tree/el9/images/short.img");
    stream.read_exact(&mut [0; 20_000]).expect("a beginning");
    std::fs::File::options().write(true).open(&short).expect("file").set_len(0).expect("cut");
    let mut rest = vec![];
    drop(stream.read_to_end(&mut rest));
    assert!(rest.len() < big_file().len() - 20_000, "the rest was not there any more");
    assert!(get(&client, &[], BIG) == big_file());
    assert!(server.is_running());
}

#[test]
fn each_machine_gets_the_script_that_is_for_it() {
    let lab = lab!();
    let server = lab.serve();
    let (node, other) = (lab.client_at(NODE1), lab.client_at((STRANGER, "192.168.10.201")));
    assert!(script(&node, NODE1.0).contains("sanboot"), "not armed: its own disk");
    assert!(script(&node, STRANGER).contains("rekindle node add"), "unknown: waits");
    let of_another = script(&other, NODE1.0);
    assert!(!of_another.contains("worker1"), "nothing of the node elsewhere: {of_another}");
    lab.arm(&server);
    assert!(script(&node, NODE1.0).contains("inst.ks="), "armed: the installer");
    assert!(!script(&other, NODE1.0).contains("inst.ks="), "but not at another address");
    assert!(!script(&node, NODE2.0).contains("inst.ks="), "nor another node");
    lab.rekindle(&["node", "disarm", "worker1"]);
    server.wait_for("to=\"idle\"");
    assert!(script(&node, NODE1.0).contains("sanboot"), "no longer armed");
}
