//! `rekindle repo` with real packages, the real createrepo_c and the real dnf.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rekindle::import::survey;

use crate::lab::process::{Done, run};
use crate::sandbox::{CLUSTER, KEY, TREEINFO};

fn there(program: &str) -> bool {
    let found =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(found.is_ok() || std::env::var_os("CI").is_none(), "{program} is missing");
    found.is_ok()
}

/// A cluster with a tree, a folder of packages, and no repository yet.
struct Store {
    dir: tempfile::TempDir,
}

impl Store {
    /// `None` where the tools are missing, unless they must be there.
    fn new() -> Option<Self> {
        if !["rpmbuild", "createrepo_c", "dnf"].into_iter().all(there) {
            return None;
        }
        let dir = tempfile::tempdir().expect("folder");
        let store = Self { dir };
        let text = CLUSTER
            .replace("tree = \"[DIR]/tree\"", "tree = \"[DIR]/tree\"\nrepo = \"[DIR]/repo\"")
            .replace("[DIR]", &store.dir.path().display().to_string())
            .replace("[KEY]", KEY);
        std::fs::write(store.path("cluster.toml"), text).expect("config");
        for folder in ["tree/BaseOS", "tree/AppStream"] {
            std::fs::create_dir_all(store.path(folder)).expect("folder");
            index(&store.path(folder));
        }
        for (file, text) in [
            (".treeinfo", TREEINFO),
            ("images/pxeboot/vmlinuz", "a kernel"),
            ("images/pxeboot/initrd.img", "an initrd"),
            ("RPM-GPG-KEY-x", "a key"),
        ] {
            let path = store.path("tree").join(file);
            std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
            std::fs::write(path, text).expect("file");
        }
        Some(store)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Builds a package; returns its file.
    fn build(&self, name: &str, version: u32, requires: &str) -> PathBuf {
        let spec = self.path(&format!("{name}.spec"));
        let requires =
            if requires.is_empty() { String::new() } else { format!("Requires: {requires}\n") };
        let text = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: A test\nLicense: MIT\nBuildArch: noarch\n{requires}\
             %description\nA test.\n%files\n"
        );
        std::fs::write(&spec, text).expect("spec");
        let out = self.path("built");
        let mut rpmbuild = Command::new("rpmbuild");
        rpmbuild
            .args(["-bb", "--quiet", "--define"])
            .arg(format!("_topdir {}", self.path("rpmbuild").display()));
        rpmbuild.arg("--define").arg(format!("_rpmdir {}", out.display())).arg(&spec);
        run(&mut rpmbuild).ok();
        out.join(format!("noarch/{name}-{version}-1.noarch.rpm"))
    }

    fn run(&self, words: &[&str]) -> Done {
        run(&mut self.command(words))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.arg("--config").arg(self.path("cluster.toml"));
        command.arg("--state").arg(self.path("state")).arg("repo").args(words);
        command
    }

    /// Packages that the index names; each is there with its sum.
    fn indexed(&self) -> BTreeSet<String> {
        let dir = self.path("repo");
        let entries = survey::entries(&dir, "").expect("an index");
        for entry in &entries {
            let sum = rekindle::media::sha256(&dir.join(&entry.path)).expect(&entry.path);
            assert_eq!(Some(sum), entry.sha256, "{}", entry.path);
        }
        let names = entries.into_iter().map(|entry| entry.path);
        names.filter(|path| path.ends_with(".rpm")).collect()
    }
}

fn index(dir: &Path) {
    run(Command::new("createrepo_c").arg("--quiet").arg(dir)).ok();
}

fn words(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn files_come_and_go_and_who_reads_the_last_index_finds_what_it_names() {
    let Some(store) = Store::new() else { return };
    let (one, two) = (store.build("one", 1, ""), store.build("two", 1, ""));
    let done = store.run(&["add", &words(&one)]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.text(), "el9: one-1-1.noarch.rpm\n");
    assert!(
        done.err.contains("one-1-1.noarch.rpm is not signed, and the nodes refuse it"),
        "{}",
        done.err
    );
    // A folder, whatever its files are called.
    let folder = store.path("folder/deep");
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::copy(&two, folder.join("x.rpm")).expect("copied");
    store.run(&["add", &words(&store.path("folder"))]).ok();
    assert_eq!(
        store.indexed(),
        ["one-1-1.noarch.rpm", "two-1-1.noarch.rpm"].map(str::to_owned).into()
    );
    let list: serde_json::Value =
        serde_json::from_slice(&store.run(&["list", "--json"]).ok()).expect("JSON");
    assert_eq!((&list[0]["name"], &list[1]["version"]), (&"one".into(), &"1-1".into()));

    let before = survey::entries(&store.path("repo"), "").expect("index");
    store.run(&["rm", "one"]).ok();
    assert_eq!(store.indexed(), ["two-1-1.noarch.rpm"].map(str::to_owned).into());
    for entry in &before {
        assert!(store.path("repo").join(&entry.path).is_file(), "{} is still there", entry.path);
    }
    // One change later nobody reads that any more.
    store.run(&["add", &words(&store.build("two", 2, ""))]).ok();
    assert!(!store.path("repo/one-1-1.noarch.rpm").exists());
    assert_eq!(
        store.indexed(),
        ["two-1-1.noarch.rpm", "two-2-1.noarch.rpm"].map(str::to_owned).into()
    );

    let refused = store.run(&["rm", "nothing"]);
    assert!(refused.err.contains("there is no package `nothing`"), "{}", refused.err);
    std::fs::write(store.path("no.rpm"), "nonsense").expect("file");
    let refused = store.run(&["add", &words(&store.path("no.rpm"))]);
    assert!(refused.err.contains("no.rpm is no RPM package"), "{}", refused.err);
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    let refused = store.run(&["list", "--os", "el8"]);
    assert!(refused.err.contains("into [os.el8]"), "{}", refused.err);
}

#[test]
fn a_name_brings_all_that_it_needs_and_is_asked_for_again() {
    let Some(store) = Store::new() else { return };
    let mirror = store.path("mirror");
    std::fs::create_dir_all(&mirror).expect("folder");
    let publish = |file: PathBuf| {
        std::fs::copy(&file, mirror.join(file.file_name().expect("name"))).expect("copied");
        index(&mirror);
    };
    publish(store.build("tool", 1, "library base"));
    publish(store.build("library", 1, ""));
    publish(store.build("other", 1, ""));
    // What the tree has is not needed twice.
    std::fs::copy(store.build("base", 1, ""), store.path("tree/BaseOS/base-1-1.noarch.rpm"))
        .expect("copied");
    index(&store.path("tree/BaseOS"));
    let done = store.run(&["add", "tool", "--from", &words(&mirror)]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(
        store.indexed(),
        ["library-1-1.noarch.rpm", "tool-1-1.noarch.rpm"].map(str::to_owned).into()
    );
    assert_eq!(store.run(&["sync"]).text(), "nothing is new\n");
    publish(store.build("library", 2, ""));
    let done = store.run(&["sync"]);
    assert_eq!(done.text(), "el9: library-2-1.noarch.rpm\n", "{}", done.err);
    let refused = store.run(&["add", "nowhere"]);
    assert_eq!(refused.code, Some(2), "{}", refused.text());
    assert!(refused.err.contains("nowhere"), "{}", refused.err);
    assert_eq!(store.indexed().len(), 3);
}

#[test]
fn a_publication_that_is_killed_leaves_the_old_index_or_the_new_one() {
    let Some(store) = Store::new() else { return };
    let all: Vec<_> = (0..8).map(|number| store.build(&format!("p{number}"), 1, "")).collect();
    store.run(&["add", &words(&all[0])]).ok();
    let mut killed = 0;
    for turn in 0..24_usize {
        let package = &all[1 + turn % 7];
        let before = store.indexed();
        let mut command = store.command(&["add"]);
        let mut publish = command
            .arg(package)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        // So many files are in the making, or it is through.
        let staging = store.path(&format!(".repo.new-{}", publish.id()));
        while publish.try_wait().expect("waited").is_none() {
            if rekindle::import::list(&staging).is_ok_and(|found| found.len() >= turn) {
                publish.kill().expect("killed");
                publish.wait().expect("waited");
                killed += 1;
            }
        }
        let name = package.file_name().expect("name").to_string_lossy().into_owned();
        let mut after = before.clone();
        after.insert(name);
        let now = store.indexed();
        assert!(now == before || now == after, "neither the old nor the new one: {now:?}");
        store.run(&["add", &words(package)]).ok();
        assert_eq!(store.indexed(), after);
        if turn % 7 == 6 {
            store.run(&["rm", "p1", "p2", "p3"]).ok();
        }
    }
    assert!(killed >= 10, "{killed} of 24 were caught in time");
}
