//! Rendered texts as files under `tests/golden/`, so that people, `ksvalidator`, `shellcheck` and
//! `nft` read the same bytes. `SNAPSHOTS=overwrite cargo test` writes them anew.

pub(crate) mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rekindle::boot::{Decision, Hold};
use rekindle::cluster::{Cluster, Node};
use rekindle::hardware::Unfit;
use rekindle::ipxe::Installer;
use rekindle::kickstart::{self, Order, RenderError};
use rekindle::mac::Mac;
use rekindle::media::{Release, Tree};
use rekindle::snippets::Snippets;
use rekindle::stage::Arm;
use rekindle::trust::{PublicKeys, Token};
use rekindle::{artifacts, ipxe};

use crate::sandbox::TREEINFO;

/// Clusters that everything is rendered for: `tests/golden/NAME/cluster.toml`.
pub(crate) const CLUSTERS: [&str; 3] = ["minimal", "lab", "odd"];

/// Releases that kickstarts are made for, with pykickstart's name of each.
const RELEASES: [(Release, &str); 4] = [
    (Release::El7, "RHEL7"),
    (Release::El8, "RHEL8"),
    (Release::El9, "RHEL9"),
    (Release::El10, "RHEL10"),
];

/// Files of a node that other programs than ours check.
const CHECKED: [&str; 3] =
    ["/etc/sysconfig/nftables.conf", "/etc/sysconfig/iptables", "/etc/sysconfig/ip6tables"];

pub(crate) fn folder(cluster: &str) -> PathBuf {
    Path::new("tests/golden").join(cluster)
}

pub(crate) fn text_of(cluster: &str) -> String {
    std::fs::read_to_string(folder(cluster).join("cluster.toml")).expect("cluster.toml")
}

fn parsed(name: &str) -> Cluster {
    Cluster::parse(&text_of(name), Path::new("cluster.toml")).expect(name)
}

/// As [`rekindle::media::load`] finds it, with two keys.
pub(crate) fn tree(release: Release) -> Tree {
    let gpg_keys = vec!["key1.asc".to_owned(), "key2.asc".to_owned()];
    Tree { release, cpu: release.cpu_floor(), gpg_keys, ..Tree::parse(TREEINFO).expect("tree") }
}

pub(crate) fn keys() -> PublicKeys {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDEFk0fpnR4yiYTP1d9Y5aLrkZyhxRb2hJlmG4YrXPcN";
    PublicKeys {
        host_ca: format!("{key} rekindle host CA"),
        master_root: format!("{key} root@master (rekindle)"),
    }
}

/// The kickstart of a node, token masked.
pub(crate) fn kickstart(
    cluster: &Cluster,
    node: &Node,
    release: Release,
) -> Result<String, RenderError> {
    let (tree, token, keys) = (tree(release), Token::masked(), keys());
    kickstart::render(&Order {
        cluster,
        node,
        os: &node.os,
        tree: &tree,
        token: &token,
        keys: &keys,
        snippets: &Snippets::default(),
        known_disk: None,
    })
}

/// The script that carries a decision out, token masked.
pub(crate) fn script(
    cluster: &Cluster,
    mac: Mac,
    decision: &Decision<'_>,
) -> Result<String, ipxe::ScriptError> {
    let (tree, token) = (tree(Release::El9), Token::masked());
    let installer = Installer { tree: &tree, token: &token, delay_s: 0 };
    ipxe::render(cluster, mac, decision, Some(installer))
}

pub(crate) fn install(node: &Node) -> Decision<'_> {
    let arm = Arm { seq: 1, boots: 0, tries: 0, window_ms: None };
    Decision::Install { node, os: &node.os, arm }
}

/// File name -> text of everything that is rendered for a cluster.
fn texts(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut add = |name: String, text: String| texts.insert(name, text);
    let stranger: Mac = "00:16:3e:00:00:63".parse().expect("mac");
    let hold = |mac, hold| script(cluster, mac, &Decision::Hold(hold)).expect("script");
    add("hold-unknown.ipxe".to_owned(), hold(stranger, Hold::Unknown));
    add("hosts".to_owned(), artifacts::hosts(cluster));
    for (release, _) in RELEASES {
        let os = cluster.systems().keys().next().expect("an os");
        let files = artifacts::files(cluster, os, &tree(release), &keys()).expect("files");
        for file in files.into_iter().filter(|file| CHECKED.contains(&file.path)) {
            let (_, name) = file.path.rsplit_once('/').expect("a path");
            add(format!("{release}.{name}"), file.text);
        }
    }
    for node in cluster.nodes() {
        let name = &node.name;
        for (release, _) in RELEASES {
            match kickstart(cluster, node, release) {
                Ok(text) => drop(add(format!("{name}.{release}.ks"), text)),
                // Not every release has packages of every batch system.
                Err(RenderError::Scheduler { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let script = |decision| script(cluster, node.mac, &decision).expect("script");
        add(format!("{name}.install.ipxe"), script(install(node)));
        add(format!("{name}.probe.ipxe"), script(Decision::Probe(node)));
        add(format!("{name}.local.ipxe"), script(Decision::LocalBoot(node)));
        let driver = Unfit::Nic { driver: "e100", release: Release::El9, advice: "" };
        add(format!("{name}.unfit.ipxe"), script(Decision::Unfit(node, driver)));
        add(format!("{name}.hold-address.ipxe"), script(Decision::Hold(Hold::OldAddress(node))));
        add(format!("{name}.hold-tries.ipxe"), script(Decision::Hold(Hold::TriesUsedUp(node))));
    }
    texts
}

/// Shows the first line that differs; the rest is what `git diff` is for.
fn difference(found: &str, golden: &str) -> String {
    let (mut one, mut two) = (found.lines(), golden.lines());
    for line in 1.. {
        match (one.next(), two.next()) {
            (None, None) => return "the last line end".to_owned(),
            (found, golden) if found == golden => {}
            (found, golden) => {
                return format!(
                    "line {line}\n  rendered {}\n  golden   {}",
                    found.unwrap_or("(nothing)"),
                    golden.unwrap_or("(nothing)")
                );
            }
        }
    }
    String::new()
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn is_overwriting() -> bool {
    std::env::var("SNAPSHOTS").is_ok_and(|word| word == "overwrite")
}

#[test]
fn rendered_texts_are_the_golden_ones() {
    let mut wrong = vec![];
    for name in CLUSTERS {
        let texts = texts(&parsed(name));
        for (file, text) in &texts {
            let path = folder(name).join(file);
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            if golden == *text {
                continue;
            }
            if is_overwriting() {
                std::fs::write(&path, text).expect("write");
            } else {
                wrong.push(format!("{}: {}", path.display(), difference(text, &golden)));
            }
        }
        for entry in std::fs::read_dir(folder(name)).expect("folder") {
            let file = entry.expect("entry").file_name().to_string_lossy().into_owned();
            if file != "cluster.toml" && !texts.contains_key(&file) {
                wrong.push(format!("{name}/{file}: nothing renders this any more; remove it"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nif that is meant: SNAPSHOTS=overwrite cargo test --test it render, then git diff",
        wrong.join("\n")
    );
}
