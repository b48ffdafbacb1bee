use proptest::prelude::*;

use super::*;

/// As lorax and productmd write it on an EL9 DVD.
pub(crate) const DVD: &str = "\
[header]
type = productmd.treeinfo
version = 1.2

[release]
name = AlmaLinux
short = AlmaLinux
version = 9.8

[general]
family = AlmaLinux
version = 9.8
arch = x86_64
variant = BaseOS

[checksums]
images/install.img = sha256:20bc76c516d7faaa1331080721ae13a8982e0bd8d20e3b3d4a0fef69f7b163d1

[images-x86_64]
initrd = images/pxeboot/initrd.img
kernel = images/pxeboot/vmlinuz

[stage2]
mainimage = images/install.img

[tree]
arch = x86_64
variants = AppStream,BaseOS

[variant-AppStream]
id = AppStream
packages = AppStream/Packages
repository = AppStream

[variant-BaseOS]
id = BaseOS
packages = BaseOS/Packages
repository = BaseOS
";

/// As EL7 wrote it.
const OLD: &str = "\
[general]
name = CentOS-7
family = CentOS
version = 7
arch = x86_64
variant =

[images-x86_64]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img
";

pub(crate) fn tree() -> Tree {
    Tree { gpg_keys: vec!["key1.asc".to_owned()], ..Tree::parse(DVD).expect("tree") }
}

#[test]
fn a_dvd_says_what_it_is_and_where_its_packages_are() {
    let tree = Tree::parse(DVD).expect("tree");
    assert_eq!((tree.title.as_str(), tree.release), ("AlmaLinux 9.8", Release::El9));
    assert_eq!(tree.kernel, "images/pxeboot/vmlinuz");
    let repos: Vec<_> = tree.repos.iter().map(|(name, path)| format!("{name}={path}")).collect();
    assert_eq!(repos, ["BaseOS=BaseOS", "AppStream=AppStream"]);
}

#[test]
fn the_old_form_has_its_packages_in_the_root() {
    let tree = Tree::parse(OLD).expect("tree");
    assert_eq!((tree.title.as_str(), tree.release), ("CentOS 7", Release::El7));
    assert_eq!(tree.repos, [("BaseOS".to_owned(), String::new())]);
}

#[test]
fn paths_are_plain_for_whoever_asks_for_them() {
    let kernel = |path: &str| {
        let text = DVD.replace("images/pxeboot/vmlinuz", path);
        Tree::parse(&text).map(|tree| tree.kernel).ok()
    };
    assert_eq!(kernel("./images/./vmlinuz").as_deref(), Some("images/vmlinuz"));
    for path in [".", "./..", "a//b", "a/../b"] {
        assert_eq!(kernel(path), None, "{path}");
    }
}

#[test]
fn what_cannot_be_installed_from_is_refused_with_its_reason() {
    for (from, to, expected) in [
        ("arch = x86_64", "arch = aarch64", "the tree is for aarch64"),
        ("version = 9.8", "version = 42", "release `42` is not 7, 8, 9 or 10"),
        ("kernel = images/pxeboot/vmlinuz", "kernel = ../../etc/shadow", "leads out of the tree"),
        ("kernel = images/pxeboot/vmlinuz", "kernel = /etc/shadow", "leads out of the tree"),
        ("kernel = images/pxeboot/vmlinuz", "kernel = a b", "leads out of the tree"),
        ("initrd = images/pxeboot/initrd.img", "", "`initrd` is missing in [images-x86_64]"),
        (
            "repository = AppStream",
            "repository = ../../../AppStream/x86_64/os",
            "copy the whole DVD",
        ),
        ("[images-x86_64]", "<html>", "`kernel` is missing in [images-x86_64]"),
    ] {
        let message = Tree::parse(&DVD.replace(from, to)).expect_err(to).to_string();
        assert!(message.contains(expected), "{to}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn an_incomplete_copy_is_named() {
    let dir = tempfile::tempdir().expect("dir");
    let tree = dir.path().to_owned();
    let (fallback, memory_min_mib) = (None, None);
    let os = Os { tree, repo: None, gpg_keys: vec![], fallback, memory_min_mib };
    let name = "el9".parse().expect("name");
    let message = |os: &Os| load(&name, os).expect_err("incomplete").to_string();
    assert!(message(&os).contains("no install tree in"), "{}", message(&os));
    std::fs::write(dir.path().join(".treeinfo"), DVD).expect("write");
    assert!(message(&os).contains("images/pxeboot/vmlinuz is missing"), "{}", message(&os));
    for file in [
        "images/pxeboot/vmlinuz",
        "images/pxeboot/initrd.img",
        "BaseOS/repodata/repomd.xml",
        "AppStream/repodata/repomd.xml",
    ] {
        let file = dir.path().join(file);
        std::fs::create_dir_all(file.parent().expect("parent")).expect("folder");
        std::fs::write(file, "x").expect("write");
    }
    assert!(message(&os).contains("no package-signing key"), "{}", message(&os));
    std::fs::write(dir.path().join("RPM-GPG-KEY-AlmaLinux-9"), "x").expect("write");
    assert_eq!(load(&name, &os).expect("tree").gpg_keys, ["key1.asc"]);
}

proptest! {
    #[test]
    fn no_text_panics_and_no_path_escapes(text in "[\\[\\]a-z0-9_./= \n-]{0,300}", path in ".{0,40}") {
        drop(Tree::parse(&text));
        if let Ok(tree) = Tree::parse(&DVD.replace("images/pxeboot/vmlinuz", &path.replace('\n', " "))) {
            prop_assert!(!tree.kernel.contains("..") && !tree.kernel.starts_with('/'));
        }
    }
}
