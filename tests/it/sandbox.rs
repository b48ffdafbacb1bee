//! A folder of its own for the real binary: `cluster.toml`, journal, secrets and an install tree
//! that has what `rekindle check` looks for. No root, no network.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A public key as an owner has it.
pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz admin@lab";

/// Two nodes, three addresses for workers.
pub(crate) const CLUSTER: &str = r#"# The lab.
[network]
uplink = "eth0"
interface = "eth1"
address = "192.168.10.1/24"
workers = "192.168.10.10-192.168.10.12"
discovery = "192.168.10.200-192.168.10.240"

[os.el9]
tree = "[DIR]/tree"

[defaults]
os = "el9"
admin_keys = ["[KEY]"]

# The nodes.

[[node]]
name = "worker1"
mac = "52:54:00:aa:bb:01"
ip = "192.168.10.10"

# Rack 2, slow disk.
[[node]]
name = "worker2" # borrowed
mac = "52:54:00:aa:bb:02"
ip = "192.168.10.11"
"#;

/// As lorax writes it on the DVD of an Enterprise Linux 9.
pub(crate) const TREEINFO: &str = "\
[release]
name = AlmaLinux
version = 9.8

[general]
arch = x86_64

[images-x86_64]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img

[variant-AppStream]
repository = AppStream

[variant-BaseOS]
repository = BaseOS
";

/// What a complete copy of the DVD has besides.
const TREE_FILES: [&str; 5] = [
    "images/pxeboot/vmlinuz",
    "images/pxeboot/initrd.img",
    "BaseOS/repodata/repomd.xml",
    "AppStream/repodata/repomd.xml",
    "RPM-GPG-KEY-AlmaLinux-9",
];

pub(crate) struct Sandbox {
    dir: TempDir,
}

impl Sandbox {
    /// With [`CLUSTER`] and its tree.
    pub(crate) fn new() -> Self {
        let sandbox = Self::empty();
        sandbox.write("cluster.toml", CLUSTER);
        sandbox.write("tree/.treeinfo", TREEINFO);
        for file in TREE_FILES {
            sandbox.write(&format!("tree/{file}"), "x");
        }
        sandbox
    }

    /// With nothing in it.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().expect("folder") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; `[DIR]` is this folder, `[KEY]` a public key.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        let dir = self.dir.path().display().to_string();
        std::fs::write(path, text.replace("[DIR]", &dir).replace("[KEY]", KEY)).expect("write");
    }

    /// [`CLUSTER`] with one thing different.
    pub(crate) fn change(&self, from: &str, to: &str) {
        assert!(CLUSTER.contains(from), "{from}");
        self.write("cluster.toml", &CLUSTER.replacen(from, to, 1));
    }

    /// The cluster as it is, with one thing more that is different.
    pub(crate) fn also(&self, from: &str, to: &str) {
        let text = self.read("cluster.toml");
        assert!(text.contains(from), "{from}");
        self.write("cluster.toml", &text.replacen(from, to, 1));
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).expect("remove");
    }

    pub(crate) fn link(&self, name: &str, to: &str) {
        symlink(to, self.path(name)).expect("link");
    }

    /// A file with this folder's name masked.
    pub(crate) fn read(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(name)).expect("read");
        self.masked(&text).replace(KEY, "[KEY]")
    }

    /// Names of what lies in a folder, in order.
    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(dir)).expect("folder");
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<_> = entries.map(|entry| name(entry.expect("entry"))).collect();
        names.sort();
        names
    }

    /// The binary on this folder, with nothing of the tester's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.env_clear().env("HOME", self.dir.path()).current_dir(self.dir.path());
        command.arg("--config").arg(self.path("cluster.toml"));
        command.arg("--state").arg(self.path("state"));
        command
    }

    /// What a person sees who types these words: stdout, then stderr behind `! `, then the exit
    /// code. This folder is `[DIR]`, every moment is [`TIME`].
    pub(crate) fn run(&self, words: &str) -> String {
        let output = self.command().args(words.split_whitespace()).output().expect("run");
        self.transcript(&output)
    }

    pub(crate) fn transcript(&self, output: &Output) -> String {
        let text = |bytes: &[u8]| self.masked(&String::from_utf8_lossy(bytes));
        let mut told = text(&output.stdout);
        assert!(told.is_empty() || told.ends_with('\n'), "half a line: {told}");
        for line in text(&output.stderr).lines() {
            told.push_str(&format!("! {line}\n"));
        }
        let code = output.status.code().expect("it ended by itself");
        format!("{told}exit {code}\n")
    }

    /// Checks what [`Self::run`] shows.
    #[track_caller]
    pub(crate) fn check(&self, words: &str, expected: &str) {
        same(&format!("rekindle {words}"), &self.run(words), expected);
    }

    fn masked(&self, text: &str) -> String {
        let dir = self.dir.path().display().to_string();
        mask_times(&text.replace(&dir, "[DIR]"))
    }
}

/// Compares texts and shows them whole when they differ.
#[track_caller]
pub(crate) fn same(what: &str, found: &str, expected: &str) {
    assert!(found == expected, "{what}\n--- found\n{found}--- expected\n{expected}---");
}

/// What stands for every moment; as wide as one, so that columns stay.
pub(crate) const TIME: &str = "0000-00-00T00:00:00Z";

fn mask_times(text: &str) -> String {
    let digits = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "0");
    let mut masked = text.to_owned();
    for (at, _) in text.match_indices("20") {
        let moment = at..at + TIME.len();
        if text.get(moment.clone()).is_some_and(|moment| digits(moment) == TIME) {
            masked.replace_range(moment, TIME);
        }
    }
    masked
}

/// Whether these tests run as root, which can read every file.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
