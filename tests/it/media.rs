//! `rekindle media`: trees out of folders, real ISO images, and a mirror with every fault that mirrors have.

pub(crate) mod mirror;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rekindle::repo::key::Key;
use sha2::{Digest, Sha256};

use crate::lab::process::{DEADLINE, Done, run};
use crate::lab::wire::noise;
use crate::sandbox::{CLUSTER, KEY};
use mirror::{Fault, Mirror};

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn put(dir: &Path, path: &str, bytes: &[u8]) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
    std::fs::write(path, bytes).expect("file");
}

/// A repository as createrepo_c lays it out.
fn write_repo(dir: &Path, packages: &BTreeMap<String, Vec<u8>>) {
    let mut primary = String::from("<metadata xmlns=\"http://linux.duke.edu/metadata/common\">\n");
    for (path, bytes) in packages {
        put(dir, path, bytes);
        primary.push_str(&format!(
            "<package type=\"rpm\"><checksum type=\"sha256\" pkgid=\"YES\">{}</checksum>\
             <size package=\"{}\"/><location href=\"{path}\"/></package>\n",
            sum(bytes),
            bytes.len()
        ));
    }
    primary.push_str("</metadata>\n");
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(primary.as_bytes()).expect("packed");
    let packed = packed.finish().expect("packed");
    let name = format!("repodata/{}-primary.xml.gz", sum(&packed));
    put(dir, &name, &packed);
    let repomd = format!(
        "<repomd xmlns=\"http://linux.duke.edu/metadata/repo\"><data type=\"primary\">\
         <checksum type=\"sha256\">{}</checksum><location href=\"{name}\"/><size>{}</size></data></repomd>\n",
        sum(&packed),
        packed.len()
    );
    put(dir, "repodata/repomd.xml", repomd.as_bytes());
}

/// The content of a DVD; `minor` makes some of it differ.
fn write_dvd(dir: &Path, minor: u32) {
    let seed = u64::from(minor);
    let images = [
        ("images/pxeboot/vmlinuz", noise(seed + 100, 300_000)),
        ("images/pxeboot/initrd.img", noise(seed + 200, 500_000)),
        ("images/install.img", noise(seed + 300, 700_000)),
    ];
    let mut text = format!(
        "[general]\nfamily = AlmaLinux\nversion = 9.{minor}\narch = x86_64\n\n[images-x86_64]\n\
         kernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n\n\
         [variant-BaseOS]\nid = BaseOS\nrepository = BaseOS\n\n[variant-AppStream]\nid = AppStream\nrepository = AppStream\n\n\
         [checksums]\n"
    );
    for (path, bytes) in &images {
        put(dir, path, bytes);
        text.push_str(&format!("{path} = sha256:{}\n", sum(bytes)));
    }
    put(dir, ".treeinfo", text.as_bytes());
    put(dir, "RPM-GPG-KEY-AlmaLinux-9", b"a key\n");
    let package = |name: &str, version: u32, size: usize| {
        let seed = u64::from(version) + name.len() as u64;
        (format!("Packages/{name}-{version}-1.el9.x86_64.rpm"), noise(seed, size))
    };
    let mut base: BTreeMap<_, _> =
        (0..30).map(|number| package(&format!("same{number}"), 1, 20_000 + number * 977)).collect();
    base.extend([package("chrony", minor, 150_000)]);
    write_repo(&dir.join("BaseOS"), &base);
    let app = [package("openmpi", minor, 2_000_000), package("big", 1, 3_000_000)].into();
    write_repo(&dir.join("AppStream"), &app);
}

/// Paths and content.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = rekindle::import::list(dir).expect("files");
    let read = |path: String| {
        let bytes = std::fs::read(dir.join(&path)).expect("file");
        (path, bytes)
    };
    files.into_iter().map(read).collect()
}

/// A cluster whose tree is imported, and a medium.
struct Shelf {
    dir: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("folder");
        let text = CLUSTER
            .replace("[DIR]/tree", &words(&dir.path().join("tree/el9")))
            .replace("[KEY]", KEY);
        std::fs::write(dir.path().join("cluster.toml"), text).expect("config");
        let shelf = Self { dir };
        write_dvd(&shelf.path("dvd"), 6);
        shelf
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tree(&self) -> PathBuf {
        self.path("tree/el9")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rekindle"));
        command.arg("--config").arg(self.path("cluster.toml"));
        command.arg("--state").arg(self.path("state")).arg("media").args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Done {
        run(&mut self.command(words))
    }

    fn import(&self, source: &str) -> Done {
        self.run(&["import", source])
    }

    /// What is beside the tree: nothing of an import stays but its lock.
    fn beside(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("tree")).expect("folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn words(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_folder_becomes_a_tree_and_the_next_minor_release_takes_its_place() {
    let shelf = Shelf::new();
    let done = shelf.import(&words(&shelf.path("dvd")));
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.text().starts_with("el9: AlmaLinux 9.6, 33 packages, "), "{}", done.text());
    assert!(content(&shelf.tree()) == content(&shelf.path("dvd")));
    assert_eq!(shelf.beside(), [".el9.lock", "el9"]);
    let mode = |path: PathBuf| std::fs::metadata(path).expect("file").mode() & 0o777;
    assert_eq!((mode(shelf.tree()), mode(shelf.tree().join(".treeinfo"))), (0o755, 0o644));

    let big = "AppStream/Packages/big-1-1.el9.x86_64.rpm";
    let inode = |dir: PathBuf| std::fs::metadata(dir.join(big)).expect("package").ino();
    let before = inode(shelf.tree());
    write_dvd(&shelf.path("next"), 7);
    let done = shelf.import(&words(&shelf.path("next")));
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(content(&shelf.tree()) == content(&shelf.path("next")));
    assert_eq!(inode(shelf.tree()), before, "what is the same is there once");
    assert_eq!(shelf.beside(), [".el9.lock", "el9"]);

    let list = shelf.run(&["list"]).text();
    assert!(list.contains("AlmaLinux 9.7"), "{list}");
    let shown = shelf.run(&["show", "el9"]).text();
    assert!(shown.contains("repositories  BaseOS in BaseOS, AppStream in AppStream"), "{shown}");
    let verified = shelf.run(&["verify"]);
    assert_eq!(verified.text(), "el9: 38 files are as they should be\n", "{}", verified.err);
    let json: serde_json::Value =
        serde_json::from_slice(&shelf.run(&["list", "--json"]).ok()).expect("JSON");
    assert_eq!(json[0]["title"], "AlmaLinux 9.7");
    std::fs::write(shelf.tree().join(big), b"rotten").expect("written");
    let verified = shelf.run(&["verify", "--json"]);
    assert_eq!(verified.code, Some(1));
    let json: serde_json::Value = serde_json::from_slice(&verified.out).expect("JSON");
    assert_eq!(
        (&json[0]["bad"][0]["path"], &json[0]["bad"][0]["why"]),
        (&big.into(), &"it has another length".into())
    );
}

#[test]
fn an_image_becomes_a_tree_without_being_mounted() {
    let shelf = Shelf::new();
    let iso = shelf.path("dvd.iso");
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-R", "-J", "-V", "AlmaLinux-9-6-x86_64-dvd", "-o"]);
    let Ok(made) = xorriso.arg(&iso).arg(shelf.path("dvd")).stderr(Stdio::null()).status() else {
        assert!(std::env::var_os("CI").is_none(), "xorriso is missing");
        return;
    };
    assert!(made.success());
    let done = shelf.import(&words(&iso));
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(content(&shelf.tree()) == content(&shelf.path("dvd")));
    // One whose download broke off.
    let whole = std::fs::read(&iso).expect("image");
    std::fs::write(&iso, &whole[..whole.len() / 2]).expect("image");
    write_dvd(&shelf.path("dvd"), 7);
    let done = shelf.import(&words(&iso));
    assert_eq!(done.code, Some(2), "{}", done.text());
    assert_eq!(done.said().len(), 1, "{}", done.err);
    assert!(
        std::fs::read_to_string(shelf.tree().join(".treeinfo")).expect("tree").contains("9.6"),
        "the old one stays"
    );
    let done = shelf.import(&words(&shelf.path("cluster.toml")));
    assert!(done.err.contains("is neither a folder, nor an ISO image, nor a URL"), "{}", done.err);
}

#[test]
fn what_cannot_be_installed_from_is_said_before_anything_is_copied() {
    let shelf = Shelf::new();
    let dvd = shelf.path("dvd");
    std::fs::remove_dir_all(dvd.join("AppStream")).expect("folder");
    std::fs::remove_dir_all(dvd.join("BaseOS")).expect("folder");
    let done = shelf.import(&words(&dvd));
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains("AlmaLinux 9.6 without packages (boot.iso)"), "{}", done.err);
    assert!(!shelf.path("tree").exists());
    // A package that is not what its index says.
    write_dvd(&dvd, 6);
    put(&dvd, "AppStream/Packages/big-1-1.el9.x86_64.rpm", &noise(9, 3_000_000));
    let done = shelf.import(&words(&dvd));
    assert!(
        done.err
            .contains("1 files are missing or damaged, AppStream/Packages/big-1-1.el9.x86_64.rpm"),
        "{}",
        done.err
    );
    assert!(!shelf.tree().exists());
    // Signed by somebody else than before.
    write_dvd(&dvd, 6);
    assert_eq!(shelf.import(&words(&dvd)).code, Some(0));
    put(&dvd, "RPM-GPG-KEY-AlmaLinux-9", b"another key\n");
    let done = shelf.import(&words(&dvd));
    assert!(done.err.contains("its RPM-GPG-KEY-AlmaLinux-9 is another key"), "{}", done.err);
    assert_eq!(shelf.run(&["import", "--new-keys", &words(&dvd)]).code, Some(0));
}

#[test]
fn a_tree_that_a_node_uses_is_not_removed() {
    let shelf = Shelf::new();
    shelf.import(&words(&shelf.path("dvd"))).ok();
    let done = shelf.run(&["rm", "el9"]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("would have nothing to install: worker1"), "{}", done.err);
    let config = std::fs::read_to_string(shelf.path("cluster.toml")).expect("config");
    let (without, _) = config.split_once("[[node]]").expect("a node");
    std::fs::write(shelf.path("cluster.toml"), without).expect("config");
    let done = shelf.run(&["rm", "el9"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(!shelf.tree().exists());
    let done = shelf.run(&["rm", "el9"]);
    assert!(done.err.contains("holds no install tree"), "{}", done.err);
}

#[test]
fn a_mirror_with_every_fault_is_fetched_from_all_the_same() {
    let shelf = Shelf::new();
    let mirror = Mirror::start(shelf.path("dvd"));
    mirror.fault("AppStream/Packages/openmpi-6-1.el9.x86_64.rpm", 2, Fault::BreaksOff);
    mirror.fault("AppStream/Packages/big-1-1.el9.x86_64.rpm", 1, Fault::Stalls);
    mirror.fault("BaseOS/Packages/chrony-6-1.el9.x86_64.rpm", 1, Fault::Corrupt);
    mirror.fault("BaseOS/Packages/same3-1-1.el9.x86_64.rpm", 1, Fault::TooLong);
    mirror.fault("BaseOS/Packages/same4-1-1.el9.x86_64.rpm", 1, Fault::TooShort);
    mirror.fault("BaseOS/repodata/repomd.xml", 1, Fault::BreaksOff);
    mirror.fault("images/install.img", 1, Fault::Corrupt);
    let done = shelf.run(&["import", "--patience", "2", &mirror.url()]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    // Keys are in no list of a mirror here: that is said, and the rest is whole.
    assert!(done.err.contains("no RPM-GPG-KEY file on it"), "{}", done.err);
    let mut wanted = content(&shelf.path("dvd"));
    wanted.remove("RPM-GPG-KEY-AlmaLinux-9");
    assert!(content(&shelf.tree()) == wanted);
    // Again: what is there is not fetched again.
    mirror.forget();
    assert_eq!(shelf.run(&["import", "--rate", "100", &mirror.url()]).code, Some(0));
    let asked = mirror.asked();
    assert!(!asked.iter().any(|path| path.ends_with(".rpm")), "{asked:?}");

    // One that is always damaged is named, and nothing is taken.
    write_dvd(&shelf.path("dvd"), 7);
    mirror.fault("BaseOS/Packages/chrony-7-1.el9.x86_64.rpm", 99, Fault::Corrupt);
    let done = shelf.run(&["import", "--patience", "2", &mirror.url()]);
    assert_eq!(done.code, Some(2), "{}", done.text());
    assert!(
        done.err.contains("chrony-7-1.el9.x86_64.rpm: it comes damaged each time"),
        "{}",
        done.err
    );
    assert!(std::fs::read_to_string(shelf.tree().join(".treeinfo")).expect("tree").contains("9.6"));
    let done = shelf.import(&format!("{}/images", mirror.url()));
    assert!(done.err.contains("there is no .treeinfo: give the URL of a tree"), "{}", done.err);
}

/// A key of gpg's in a file, and its fingerprint.
pub(crate) fn vendor_key(dir: &Path, name: &str) -> (PathBuf, String) {
    let home = dir.join(format!("gnupg-{name}"));
    let text = Key::new(home).public().expect("a key");
    let file = dir.join(format!("RPM-GPG-KEY-{name}"));
    std::fs::write(&file, text).expect("key");
    let mut gpg = Command::new("gpg");
    let shown = run(gpg.args(["--with-colons", "--show-keys"]).arg(&file)).ok();
    let shown = String::from_utf8(shown).expect("text");
    let line = shown.lines().find(|line| line.starts_with("fpr:")).expect("a fingerprint");
    (file, line.trim_end_matches(':').trim_start_matches("fpr:").trim_start_matches(':').to_owned())
}

#[test]
fn a_mirror_has_a_name_and_its_vendor_s_keys_are_pinned() {
    let shelf = Shelf::new();
    let mirror = Mirror::start(shelf.dir.path().to_owned());
    let (_, fingerprint) = vendor_key(shelf.dir.path(), "Vendor");
    let (_, other) = vendor_key(shelf.dir.path(), "Other");
    // AppStream is at another place than the tree says.
    std::fs::rename(shelf.path("dvd/AppStream"), shelf.path("elsewhere")).expect("moved");
    let name = |pinned: &str| {
        let url = mirror.url();
        let text = format!(
            "[mine]\ntree = \"{url}/dvd/\"\nrepos = {{ AppStream = \"{url}/elsewhere\" }}\nkeys = [\"{url}/RPM-GPG-KEY-Vendor\"]\n\
             fingerprints = [\"{pinned}\"]\n[packages]\nrepo = \"{url}\"\n"
        );
        std::fs::write(shelf.path("mirrors.toml"), text).expect("mirrors");
    };
    name(&other);
    let done = shelf.run(&["import", "mine"]);
    assert_eq!(done.code, Some(2), "{}", done.text());
    let wanted = format!("RPM-GPG-KEY-Vendor: this is {fingerprint} and should be {other}");
    assert!(done.err.contains(&wanted), "{}", done.err);
    assert!(!shelf.tree().exists());

    name(&fingerprint);
    let done = shelf.run(&["import", "mine"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let tree = content(&shelf.tree());
    assert!(
        tree.contains_key("RPM-GPG-KEY-Vendor")
            && tree.contains_key("AppStream/repodata/repomd.xml")
    );
    let listed = shelf.run(&["mirrors"]).text();
    for word in ["mine", "almalinux9", "epel9", "packages"] {
        assert!(listed.contains(word), "{listed}");
    }
    let listed: serde_json::Value =
        serde_json::from_slice(&shelf.run(&["mirrors", "--json"]).ok()).expect("JSON");
    assert_eq!(listed["mine"]["fingerprints"][0], fingerprint.as_str());
    let refused = shelf.run(&["import", "packages"]);
    assert!(refused.err.contains("packages has packages and no install tree"), "{}", refused.err);
    std::fs::write(shelf.path("mirrors.toml"), "[mine]\n").expect("mirrors");
    let refused = shelf.run(&["import", "mine"]);
    assert!(
        refused.err.contains("mirrors.toml: [mine] has neither a tree nor a repo"),
        "{}",
        refused.err
    );
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
}

#[test]
fn an_import_that_is_killed_takes_its_downloads_with_it() {
    let shelf = Shelf::new();
    let mirror = Mirror::start(shelf.path("dvd"));
    mirror.fault("images/install.img", 1, Fault::Stalls);
    let url = mirror.url();
    let mut command = shelf.command(&["import", "--patience", "3600", &url]);
    let mut import = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let mut line = mirror.stalled();
    import.kill().expect("killed");
    import.wait().expect("waited");
    // Whoever fetched hangs up.
    line.set_read_timeout(Some(DEADLINE)).expect("set");
    let heard = line.read(&mut [0; 1]);
    assert!(!heard.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{heard:?}");
}

/// Starts an import and kills it once so many files are in the making.
fn kill_at(shelf: &Shelf, source: &Path, files: usize) -> bool {
    let mut command = shelf.command(&["import"]);
    let mut import: Child =
        command.arg(source).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("started");
    let staging = shelf.path("tree/.el9.importing");
    loop {
        if import.try_wait().expect("waited").is_some() {
            return false;
        }
        // It may be renamed while it is looked at.
        if rekindle::import::list(&staging).is_ok_and(|found| found.len() >= files) {
            import.kill().expect("killed");
            import.wait().expect("waited");
            return true;
        }
    }
}

#[test]
fn an_import_that_is_killed_leaves_the_old_tree_or_the_new_one() {
    let shelf = Shelf::new();
    write_dvd(&shelf.path("next"), 7);
    shelf.import(&words(&shelf.path("dvd"))).ok();
    let (old, new) = (content(&shelf.path("dvd")), content(&shelf.path("next")));
    let mut killed = 0;
    for turn in 0..24_usize {
        let (from, to, source) =
            if turn % 2 == 0 { (&old, &new, "next") } else { (&new, &old, "dvd") };
        killed += usize::from(kill_at(&shelf, &shelf.path(source), turn * 39 / 24));
        let now = content(&shelf.tree());
        assert!(now == *from || now == *to, "neither the old nor the new tree");
        shelf.import(&words(&shelf.path(source))).ok();
        assert!(content(&shelf.tree()) == *to, "the next import completes it");
        assert_eq!(shelf.beside(), [".el9.lock", "el9"]);
    }
    assert!(killed >= 10, "{killed} of 24 were caught in time");
}
