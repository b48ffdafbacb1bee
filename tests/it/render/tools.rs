//! The golden texts through the programs that will read them: pykickstart, bash, shellcheck, nft.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rekindle::media::Release;

use super::{CLUSTERS, folder, version};
use crate::disk::partitions;
use crate::sandbox::is_root;

#[expect(clippy::disallowed_methods, reason = "a test's own switches")]
fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The program when it is there. In CI it must be.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
pub(crate) fn tool(program: impl Into<PathBuf>, how_to_get_it: &str) -> Option<PathBuf> {
    let program = program.into();
    let probe = Command::new(&program).arg("--version").output();
    if probe.is_ok() {
        return Some(program);
    }
    let message = format!("{} is not there: {how_to_get_it}", program.display());
    assert!(env("CI").is_none(), "{message}");
    println!("skipped, {message}");
    None
}

/// `ksvalidator` of pykickstart, in the virtual environment that `./tests/run` makes.
pub(crate) fn ksvalidator() -> Option<PathBuf> {
    let named = env("REKINDLE_KSVALIDATOR").map(PathBuf::from);
    let program = named.unwrap_or_else(|| "vm-lab/.work/venv/bin/ksvalidator".into());
    tool(program, "./tests/run makes it (or pip install pykickstart==3.78)")
}

/// Runs to the end.
pub(crate) fn output_of(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run");
    let mut stdin = child.stdin.take().expect("stdin");
    let input = input.to_owned();
    // Beside the reading, or both sides could wait for each other.
    let written = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("end");
    written.join().expect("thread").expect("all of it is read");
    output
}

/// What a program printed that failed.
fn complaint(command: &mut Command, input: &str) -> Option<String> {
    let output = output_of(command, input);
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("{told}{}", output.status))
}

/// Golden files whose name ends so, with their text.
fn golden(end: &str) -> Vec<(PathBuf, String)> {
    let mut found = vec![];
    for cluster in CLUSTERS {
        for entry in std::fs::read_dir(folder(cluster)).expect("folder") {
            let path = entry.expect("entry").path();
            if path.to_string_lossy().ends_with(end) {
                let text = std::fs::read_to_string(&path).expect("text");
                found.push((path, text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no golden file ends in {end}");
    found
}

/// A script of a kickstart or one that such a script writes: where it begins, and its text.
fn scripts(path: &Path, kickstart: &str) -> Vec<(String, String)> {
    let mut scripts = vec![];
    let mut lines = kickstart.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let is_script = ["%pre", "%post", "%onerror"].iter().any(|word| line.starts_with(word));
        let is_file = line.ends_with("<<'REKINDLE'") && line.contains("/usr/libexec/");
        if is_script {
            let body = lines.clone().map(|(_, line)| line).take_while(|line| *line != "%end");
            scripts.push((index, body.collect::<Vec<_>>()));
        } else if is_file {
            let body = lines.clone().map(|(_, line)| line).take_while(|line| *line != "REKINDLE");
            scripts.push((index, body.collect::<Vec<_>>()));
        }
    }
    let name = |index| format!("{}:{}", path.display(), index + 1);
    scripts.into_iter().map(|(index, body)| (name(index), body.join("\n") + "\n")).collect()
}

#[test]
fn pykickstart_accepts_every_kickstart() {
    let Some(ksvalidator) = ksvalidator() else { return };
    for release in Release::ALL {
        let dir = tempfile::tempdir().expect("dir");
        let mut command = Command::new(&ksvalidator);
        command.args(["-v", version(release)]);
        for (index, (path, _)) in golden(&format!(".{release}.ks")).into_iter().enumerate() {
            // What `%pre` writes for `%include`, on a fresh disk and on one with something to keep.
            for (disk, kept) in [("fresh", ""), ("kept", "/data=sda4")] {
                let part = dir.path().join(format!("{index}-{disk}.ks"));
                std::fs::write(&part, partitions(&path, kept)).expect("write");
                command.arg(part);
            }
            command.arg(path);
        }
        assert_eq!(complaint(&mut command, ""), None);
    }
}

#[test]
fn bash_accepts_every_script() {
    for (path, text) in golden(".ks") {
        let scripts = scripts(&path, &text);
        assert!(scripts.len() >= 6, "{}: {} scripts", path.display(), scripts.len());
        for (name, script) in scripts {
            let wrong = complaint(Command::new("bash").args(["-n", "/dev/stdin"]), &script);
            assert_eq!(wrong, None, "{name}");
        }
    }
}

#[test]
fn shellcheck_finds_nothing() {
    let Some(shellcheck) = tool("shellcheck", "apt-get install shellcheck") else { return };
    let dir = tempfile::tempdir().expect("dir");
    // Most scripts are the same for all nodes; each is looked at once.
    let mut seen = BTreeMap::new();
    for (path, text) in golden(".ks") {
        for (name, script) in scripts(&path, &text) {
            seen.entry(script).or_insert(name.replace('/', "_"));
        }
    }
    let mut command = Command::new(shellcheck);
    // 2015: `A && B || :` is meant as it stands. 2043: some releases want one CPU flag only.
    command.args(["--shell=bash", "--norc", "--exclude=2015,2043", "--format=gcc"]);
    command.current_dir(dir.path()).args(seen.values());
    for (script, name) in &seen {
        std::fs::write(dir.path().join(name), script).expect("write");
    }
    assert_eq!(complaint(&mut command, ""), None);
}

/// Runs a program of root's in a network of its own, where there is nothing to break.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn apart(program: &Path) -> Option<Command> {
    if !is_root() {
        println!("skipped: only root may check rules");
        return None;
    }
    let mut command = Command::new("unshare");
    command.arg("-n").arg(program);
    Some(command)
}

#[test]
fn nft_accepts_every_ruleset() {
    let Some(nft) = tool("nft", "apt-get install nftables") else { return };
    for (path, _) in golden("nftables.conf") {
        let Some(mut command) = apart(&nft) else { return };
        command.args(["-c", "-f"]).arg(&path);
        assert_eq!(complaint(&mut command, ""), None, "{}", path.display());
    }
}

#[test]
fn iptables_accepts_every_ruleset() {
    for (program, end) in [("iptables-restore", ".iptables"), ("ip6tables-restore", ".ip6tables")] {
        let Some(program) = tool(program, "apt-get install iptables") else { return };
        for (path, text) in golden(end) {
            let Some(mut command) = apart(&program) else { return };
            let wrong = complaint(command.arg("--test"), &text);
            assert_eq!(wrong, None, "{}", path.display());
        }
    }
}
