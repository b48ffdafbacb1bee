//! `rekindle repo` with real packages, the real createrepo_c and the real dnf.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rekindle::import::survey;
use rekindle::repo::key::Key;
use rekindle::repo::{Change, Repo};

use crate::lab::process::{Done, run};
use crate::media::mirror::Mirror;
use crate::media::vendor_key;
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
        if !["rpmbuild", "rpmsign", "gpg", "createrepo_c", "dnf"].into_iter().all(there) {
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
        self.build_labelled(name, version, requires, "")
    }

    /// The same with one more line of its head.
    fn build_labelled(&self, name: &str, version: u32, requires: &str, more: &str) -> PathBuf {
        let spec = self.path(&format!("{name}.spec"));
        let requires =
            if requires.is_empty() { String::new() } else { format!("Requires: {requires}\n") };
        let text = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: A test\nLicense: MIT\nBuildArch: noarch\n{requires}{more}\
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

    /// Installs packages as a node would that knows the cluster's key, and checks packages and index; "" when it went well.
    fn refused(&self, names: &[&str]) -> String {
        let node = tempfile::tempdir_in(self.dir.path()).expect("folder");
        let repo = self.path("repo");
        let mut dnf = Command::new("dnf");
        dnf.args(["-y", "--noplugins", "--forcearch=x86_64", "--releasever=9"]);
        dnf.arg("--setopt=module_platform_id=platform:el9");
        for (option, place) in [
            ("--installroot", "root"),
            ("--setopt=cachedir", "cache"),
            ("--setopt=reposdir", "repos"),
        ] {
            std::fs::create_dir_all(node.path().join(place)).expect("folder");
            dnf.arg(format!("{option}={}", node.path().join(place).display()));
        }
        let of_node = format!(
            "[cluster]\nname=cluster\nbaseurl=file://{}\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://{}\n",
            repo.display(),
            self.path("key").display()
        );
        std::fs::write(node.path().join("repos/cluster.repo"), of_node).expect("repo file");
        let done = run(dnf.arg("install").args(names));
        if done.code == Some(0) {
            return String::new();
        }
        format!("{}{}", done.text(), done.err)
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
    assert!(done.said().is_empty(), "{}", done.err);
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
    assert!(list[0]["signed"].as_str().is_some_and(|it| it.starts_with("RSA/SHA256")), "{list}");
    // The same build again keeps the signature it has: it is the same file.
    let sum = rekindle::media::sha256(&store.path("repo/one-1-1.noarch.rpm")).expect("sum");
    assert_eq!(store.run(&["add", &words(&one)]).text(), "nothing is new\n");
    assert_eq!(rekindle::media::sha256(&store.path("repo/one-1-1.noarch.rpm")).expect("sum"), sum);

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

#[test]
fn a_node_takes_what_the_cluster_signed_and_refuses_what_somebody_changed() {
    let Some(store) = Store::new() else { return };
    let (tool, library) = (store.build("tool", 1, "library"), store.build("library", 1, ""));
    store.run(&["add", &words(&tool), &words(&library)]).ok();
    std::fs::copy(store.path("repo/RPM-GPG-KEY-rekindle"), store.path("key")).expect("key");
    assert_eq!(store.refused(&["tool"]), "");
    // The secret half is nowhere but in root's folder.
    let mode = std::fs::metadata(store.path("state-master/gnupg")).expect("folder").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o700);

    let change = |path: &str, at: usize| {
        let path = store.path(path);
        let mut bytes = std::fs::read(&path).expect("file");
        bytes[at] ^= 1;
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, bytes).expect("written");
    };
    let restore = || {
        std::fs::remove_dir_all(store.path("repo")).expect("removed");
        store.run(&["add", &words(&tool), &words(&library)]).ok();
        assert_eq!(store.refused(&["tool"]), "");
    };
    // One bit of a package.
    let len = std::fs::metadata(store.path("repo/library-1-1.noarch.rpm")).expect("file").len();
    change("repo/library-1-1.noarch.rpm", usize::try_from(len).expect("length") - 1);
    let said = store.refused(&["tool"]);
    assert!(said.contains("incorrect checksum"), "{said}");
    restore();
    // One bit of the index.
    let text = std::fs::read_to_string(store.path("repo/repodata/repomd.xml")).expect("index");
    change("repo/repodata/repomd.xml", text.find("<revision>").expect("revision") + 10);
    let said = store.refused(&["tool"]);
    assert!(said.contains("GPG signature verification error"), "{said}");
    restore();
    // A whole other package, and an index of it, by somebody without the key.
    let other = store.build("tool", 2, "");
    std::fs::copy(&other, store.path("repo/tool-2-1.noarch.rpm")).expect("copied");
    run(Command::new("createrepo_c").args(["--quiet", "--update"]).arg(store.path("repo"))).ok();
    let said = store.refused(&["tool"]);
    assert!(said.contains("GPG signature verification error"), "{said}");
    // `apply` would sign the index, and the package still is nobody's.
    let repo = store.path("repo");
    let key = Key::new(store.path("state-master/gnupg"));
    Repo { dir: &repo }.publish(&Change::default(), &key).expect("published");
    let said = store.refused(&["tool"]);
    assert!(said.contains("is not signed"), "{said}");
}

/// A module with one package.
const MODULES: &str = "---
document: modulemd
version: 2
data:
  name: tools
  stream: new
  version: 1
  context: deadbeef
  arch: x86_64
  summary: Tools
  description: Tools.
  license:
    module:
    - MIT
  profiles:
    default:
      rpms:
      - modular
  artifacts:
    rpms:
    - modular-0:1-1.noarch
...
---
document: modulemd-defaults
version: 1
data:
  module: tools
  stream: new
  profiles:
    new: [default]
...
";

#[test]
fn modules_and_groups_come_with_a_folder_s_packages() {
    let Some(store) = Store::new() else { return };
    let folder = store.path("folder");
    std::fs::create_dir_all(&folder).expect("folder");
    let modular = store.build_labelled("modular", 1, "", "ModularityLabel: tools:new:1:deadbeef\n");
    std::fs::copy(modular, folder.join("modular-1-1.noarch.rpm")).expect("copied");
    // Without its module nobody may install it.
    store.run(&["add", &words(&folder)]).ok();
    std::fs::copy(store.path("repo/RPM-GPG-KEY-rekindle"), store.path("key")).expect("key");
    let said = store.refused(&["modular"]);
    assert!(said.contains("No available modular metadata for modular package"), "{said}");
    std::fs::write(folder.join("modules.yaml"), MODULES).expect("modules");
    std::fs::write(
        folder.join("comps.xml"),
        "<comps><group><id>lab</id><name>Lab</name><packagelist><packagereq type=\"mandatory\">modular</packagereq>\
         </packagelist></group></comps>\n",
    )
    .expect("groups");
    store.run(&["add", &words(&folder)]).ok();
    assert_eq!(store.refused(&["modular"]), "");
    assert_eq!(store.refused(&["@lab"]), "");
    // From another repository's index too, packed; and nothing is told twice.
    std::fs::remove_dir_all(store.path("repo")).expect("removed");
    run(Command::new("createrepo_c").args(["--quiet", "-g", "comps.xml"]).arg(&folder)).ok();
    for file in ["modules.yaml", "comps.xml"] {
        std::fs::remove_file(folder.join(file)).expect("removed");
    }
    store.run(&["add", &words(&folder)]).ok();
    store.run(&["add", &words(&folder)]).ok();
    assert_eq!(store.refused(&["modular"]), "");
    assert_eq!(store.refused(&["@lab"]), "");
    let modules = std::fs::read_to_string(store.path("repo/modules.yaml")).expect("modules");
    assert_eq!(modules.matches("document: modulemd\n").count(), 1, "{modules}");
}

#[test]
fn a_repository_has_a_name_and_its_key_comes_with_its_packages() {
    let Some(store) = Store::new() else { return };
    let mirror = Mirror::start(store.dir.path().to_owned());
    let (_, fingerprint) = vendor_key(store.dir.path(), "Extra");
    let folder = store.path("extra");
    std::fs::create_dir_all(&folder).expect("folder");
    let file = store.build("extra", 1, "");
    std::fs::copy(&file, folder.join("extra-1-1.noarch.rpm")).expect("copied");
    Key::new(store.path("gnupg-Extra"))
        .sign_packages(&[folder.join("extra-1-1.noarch.rpm")])
        .expect("signed");
    let nobody = store.build("nobody", 1, "");
    std::fs::copy(&nobody, folder.join("nobody-1-1.noarch.rpm")).expect("copied");
    index(&folder);
    let name = |pinned: &str| {
        let url = mirror.url();
        let text = format!(
            "[mine9]\nrepo = \"{url}/extra\"\nkeys = [\"{url}/RPM-GPG-KEY-Extra\"]\nfingerprints = [\"{pinned}\"]\n"
        );
        std::fs::write(store.path("mirrors.toml"), text).expect("mirrors");
    };
    name(&"0".repeat(40));
    let refused = store.run(&["add", "extra", "--from", "mine"]);
    assert!(
        refused.err.contains(&format!("this is {fingerprint} and should be 0000")),
        "{}",
        refused.err
    );
    assert!(!store.path("repo").exists());

    name(&fingerprint);
    let done = store.run(&["add", "extra", "--from", "mine", "--json"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let told: serde_json::Value = serde_json::from_slice(&done.out).expect("JSON");
    assert_eq!(
        (&told["added"][0]["file"], &told["packages"]),
        (&"extra-1-1.noarch.rpm".into(), &1.into())
    );
    // Its signature is the vendor's, and the vendor's key is one that nodes get.
    let keys = rekindle::media::keys_in(&store.path("repo"));
    let keys: Vec<_> = keys.iter().filter_map(|key| key.file_name()?.to_str()).collect();
    assert_eq!(keys, ["RPM-GPG-KEY-Extra", "RPM-GPG-KEY-rekindle"]);
    let text = |name: &&str| std::fs::read_to_string(store.path("repo").join(name)).expect("key");
    let both: String = keys.iter().map(text).collect();
    std::fs::write(store.path("key"), both).expect("keys");
    assert_eq!(store.refused(&["extra"]), "");
    // Who fetched a package that nobody signed has not vouched for it.
    let done = store.run(&["add", "nobody"]);
    assert!(
        done.err.contains("nobody-1-1.noarch.rpm is not signed, and the nodes refuse it"),
        "{}",
        done.err
    );
    assert!(store.refused(&["nobody"]).contains("is not signed"));
    let refused = store.run(&["add", "extra", "--from", "nowhere"]);
    assert!(refused.err.contains("nowhere is no folder, no URL, and no name"), "{}", refused.err);
}
