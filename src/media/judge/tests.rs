use super::*;

/// A description as lorax and productmd write it.
fn treeinfo(name: &str, version: &str, variants: &[(&str, &str)]) -> String {
    let mut text = format!(
        "[header]\ntype = productmd.treeinfo\nversion = 1.2\n\n[release]\nname = {name}\nversion = {version}\n\n\
         [general]\nfamily = {name}\nversion = {version}\narch = x86_64\n\n[images-x86_64]\n\
         initrd = images/pxeboot/initrd.img\nkernel = images/pxeboot/vmlinuz\n\n[stage2]\nmainimage = images/install.img\n"
    );
    for (id, repository) in variants {
        text.push_str(&format!("\n[variant-{id}]\nid = {id}\nrepository = {repository}\n"));
    }
    text
}

/// As EL7 wrote it.
fn old_treeinfo(name: &str, version: &str) -> String {
    format!(
        "[general]\nname = {name}-{version}\nfamily = {name}\nversion = {version}\narch = x86_64\nvariant =\n\n\
         [images-x86_64]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n"
    )
}

const BOOT: [&str; 4] =
    ["images/pxeboot/vmlinuz", "images/pxeboot/initrd.img", "images/install.img", ".discinfo"];

fn files(of: &[&[&str]]) -> BTreeSet<String> {
    of.iter().copied().flatten().map(|path| (*path).to_owned()).collect()
}

const TWO: [(&str, &str); 2] = [("BaseOS", "BaseOS"), ("AppStream", "AppStream")];
const TWO_REPOS: [&str; 4] = [
    "BaseOS/repodata/repomd.xml",
    "BaseOS/Packages/chrony-4.5-3.el9.x86_64.rpm",
    "AppStream/repodata/repomd.xml",
    "AppStream/Packages/openmpi-4.1.1-7.el9.x86_64.rpm",
];

/// Layouts of media as their vendors make them, what they are, and what is said of them.
#[test]
fn whole_media_are_told_by_their_content() {
    let two = |name, version| treeinfo(name, version, &TWO);
    let one_repo = [
        "repodata/repomd.xml",
        "Packages/chrony-3.4-1.el7.x86_64.rpm",
        "Packages/openmpi-1.10.7-5.el7.x86_64.rpm",
        "RPM-GPG-KEY-CentOS-7",
        "RPM-GPG-KEY-CentOS-Testing-7",
    ];
    let seven = files(&[&BOOT, &one_repo]);
    let with_key =
        |key: &str| files(&[&BOOT, &TWO_REPOS, &[key, "extra_files.json", "media.repo"]]);
    for (text, files, title, release) in [
        (old_treeinfo("CentOS", "7"), seven.clone(), "CentOS 7", "el7"),
        (two("CentOS Linux", "8"), with_key("RPM-GPG-KEY-centosofficial"), "CentOS Linux 8", "el8"),
        (
            two("CentOS Stream", "9"),
            with_key("RPM-GPG-KEY-centosofficial"),
            "CentOS Stream 9",
            "el9",
        ),
        (
            two("CentOS Stream", "10"),
            with_key("RPM-GPG-KEY-centosofficial-SHA256"),
            "CentOS Stream 10",
            "el10",
        ),
        (two("AlmaLinux", "8.10"), with_key("RPM-GPG-KEY-AlmaLinux"), "AlmaLinux 8.10", "el8"),
        (two("AlmaLinux", "9.8"), with_key("RPM-GPG-KEY-AlmaLinux-9"), "AlmaLinux 9.8", "el9"),
        (two("AlmaLinux", "10.2"), with_key("RPM-GPG-KEY-AlmaLinux-10"), "AlmaLinux 10.2", "el10"),
        (
            two("Rocky Linux", "8.10"),
            with_key("RPM-GPG-KEY-rockyofficial"),
            "Rocky Linux 8.10",
            "el8",
        ),
        (two("Rocky Linux", "9.6"), with_key("RPM-GPG-KEY-Rocky-9"), "Rocky Linux 9.6", "el9"),
        (two("Rocky Linux", "10.1"), with_key("RPM-GPG-KEY-Rocky-10"), "Rocky Linux 10.1", "el10"),
        (
            two("Red Hat Enterprise Linux", "9.9"),
            with_key("RPM-GPG-KEY-redhat-release"),
            "Red Hat Enterprise Linux 9.9",
            "el9",
        ),
    ] {
        let medium = judge(Listing { treeinfo: Some(&text), files: &files }).expect(title);
        assert_eq!(
            (medium.tree.title.as_str(), medium.tree.release.to_string().as_str()),
            (title, release)
        );
        assert_eq!((medium.packages, medium.advice), (2, vec![]), "{title}");
    }
}

#[test]
fn other_media_are_refused_or_have_something_said_of_them() {
    let text = treeinfo("AlmaLinux", "9.8", &TWO);
    let told = |treeinfo: Option<&str>, files: &BTreeSet<String>| {
        judge(Listing { treeinfo, files }).map_err(|error| error.to_string())
    };
    let boot = files(&[&BOOT]);
    let said = told(Some(&text), &boot).expect_err("boot.iso");
    assert!(said.starts_with("AlmaLinux 9.8 without packages (boot.iso)"), "{said}");
    // The minimal medium: one repository, of its own name.
    let minimal_text = treeinfo("AlmaLinux", "9.8", &[("Minimal", "Minimal")]);
    let minimal = [
        "Minimal/repodata/repomd.xml",
        "Minimal/Packages/chrony-4.5-3.el9.x86_64.rpm",
        "RPM-GPG-KEY-AlmaLinux-9",
    ];
    let medium = told(Some(&minimal_text), &files(&[&BOOT, &minimal])).expect("minimal");
    assert_eq!(medium.advice, [Advice::Lacks("openmpi")]);
    // A DVD whose second half did not fit.
    let half = files(&[&BOOT, &TWO_REPOS[..2]]);
    let said = told(Some(&text), &half).expect_err("half");
    assert_eq!(
        said,
        "AlmaLinux 9.8: AppStream/repodata/repomd.xml is missing; the copy is not complete"
    );
    let headless = files(&[&BOOT[1..], &TWO_REPOS]);
    assert!(
        told(Some(&text), &headless)
            .expect_err("no kernel")
            .contains("images/pxeboot/vmlinuz is missing")
    );
    let keyless = told(Some(&text), &files(&[&BOOT, &TWO_REPOS])).expect("no key");
    assert_eq!(keyless.advice, [Advice::NoKeys]);
    // One folder of a mirror: the other repository is beside it.
    let mirror = treeinfo(
        "Rocky Linux",
        "9.6",
        &[("BaseOS", "."), ("AppStream", "../../../AppStream/x86_64/os")],
    );
    assert!(told(Some(&mirror), &boot).expect_err("mirror").contains("leads out of the tree"));
    for (some, word) in [
        (&["repodata/repomd.xml"][..], "a package repository"),
        (&["LiveOS/squashfs.img"][..], "a live image"),
        (&["BaseOS/x86_64/os/.treeinfo"][..], "go down to"),
        (&["install/vmlinuz", "dists/bookworm/Release"][..], "no install medium"),
    ] {
        let said = told(None, &files(&[some])).expect_err(word);
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn packages_are_called_by_their_file_names() {
    assert_eq!(package("A/Packages/o/openmpi-devel-4.1.1-7.el9.x86_64.rpm"), Some("openmpi-devel"));
    assert_eq!(package("bash.rpm"), None);
    assert_eq!(package("x/README"), None);
}
