//! Rendered texts as files under `tests/golden/`, so that people, `ksvalidator`, `shellcheck` and
//! `nft` read the same bytes. `SNAPSHOTS=overwrite cargo test` writes them anew.

mod masters;
pub(crate) mod tools;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rekindle::artifacts;
use rekindle::boot::{Decision, Hold};
use rekindle::cluster::{Cluster, Node};
use rekindle::hardware::Unfit;
use rekindle::ipxe::{self, Installer, Source};
use rekindle::kickstart::{self, Order, RenderError};
use rekindle::mac::Mac;
use rekindle::machine::BiosDrive;
use rekindle::media::{Release, Tree};
use rekindle::snippets::Snippets;
use rekindle::stage::Arm;
use rekindle::trust::{PublicKeys, Token};

use crate::sandbox::TREEINFO;

/// Clusters that everything is rendered for: `tests/golden/NAME/cluster.toml`.
pub(crate) const CLUSTERS: [&str; 3] = ["minimal", "lab", "odd"];

/// pykickstart's name of a release.
pub(crate) fn version(release: Release) -> &'static str {
    match release {
        Release::El7 => "RHEL7",
        Release::El8 => "RHEL8",
        Release::El9 => "RHEL9",
        Release::El10 => "RHEL10",
    }
}

pub(crate) fn folder(cluster: &str) -> PathBuf {
    Path::new("tests/golden").join(cluster)
}

pub(crate) fn text_of(cluster: &str) -> String {
    std::fs::read_to_string(folder(cluster).join("cluster.toml")).expect("cluster.toml")
}

fn parsed(name: &str) -> Cluster {
    Cluster::parse(&text_of(name), Path::new("cluster.toml")).expect(name)
}

/// As [`rekindle::media::load`] finds it, with two keys; where there is a repository its index is signed.
pub(crate) fn tree(release: Release) -> Tree {
    let gpg_keys = vec!["key1.asc".to_owned(), "key2.asc".to_owned()];
    let cpu = release.cpu_floor();
    Tree { release, cpu, gpg_keys, repo_signed: true, ..Tree::parse(TREEINFO).expect("tree") }
}

pub(crate) fn keys() -> PublicKeys {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDEFk0fpnR4yiYTP1d9Y5aLrkZyhxRb2hJlmG4YrXPcN";
    PublicKeys {
        host_ca: format!("{key} rekindle host CA"),
        master_root: format!("{key} root@master (rekindle)"),
    }
}

/// The kickstart of a node, token masked; `None` where there is no such batch system.
pub(crate) fn kickstart(
    cluster: &Cluster,
    node: &Node,
    release: Release,
) -> Result<Option<String>, RenderError> {
    let (tree, token, keys) = (&tree(release), &Token::masked(), &keys());
    let (os, snippets, known_disk) = (&node.os, &Snippets::default(), None);
    let order = Order { cluster, node, os, tree, token, keys, snippets, known_disk };
    match kickstart::render(&order) {
        Err(RenderError::Scheduler { .. }) => Ok(None),
        rendered => rendered.map(Some),
    }
}

/// The script that carries a decision out, token masked.
pub(crate) fn script(
    cluster: &Cluster,
    mac: Mac,
    decision: &Decision<'_>,
) -> Result<String, ipxe::ScriptError> {
    let (tree, token) = (&tree(Release::El9), &Token::masked());
    ipxe::render(
        cluster,
        mac,
        decision,
        Some(Installer { source: Source::Tree(tree), token, delay_s: 20 }),
    )
}

pub(crate) fn install(node: &Node) -> Decision<'_> {
    let arm = Arm::new(1);
    Decision::Install { node, os: &node.os, arm }
}

/// Files of a node that are worth a look by themselves, or that a tool can check.
const FILES: [&str; 5] = [
    "/etc/hosts",
    "/etc/yum.repos.d/rekindle.repo",
    "/etc/sysconfig/nftables.conf",
    "/etc/sysconfig/iptables",
    "/etc/sysconfig/ip6tables",
];

/// File name -> text of what is rendered for a cluster and its first node.
fn texts(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let node = cluster.nodes().next().expect("a node");
    for release in Release::ALL {
        let Some(text) = kickstart(cluster, node, release).expect("kickstart") else { continue };
        texts.insert(format!("{}.{release}.ks", node.name), text);
        let files = artifacts::files(cluster, &node.os, &tree(release), &keys()).expect("files");
        for file in files.into_iter().filter(|file| FILES.contains(&file.path)) {
            let (_, name) = file.path.rsplit_once('/').expect("a path");
            texts.insert(format!("{release}.{name}"), file.text);
        }
    }
    let stranger: Mac = "00:16:3e:00:00:63".parse().expect("mac");
    let advice = ", or install el7";
    let unfit = Unfit::Nic { driver: "sky2", release: Release::El9, advice };
    for (name, mac, decision) in [
        ("install", node.mac, install(node)),
        ("probe", node.mac, Decision::Probe(node)),
        (
            "local",
            node.mac,
            Decision::LocalBoot { node: Some(node), drive: BiosDrive::FIRST, unfit: None },
        ),
        (
            "local-unfit",
            node.mac,
            Decision::LocalBoot {
                node: Some(node),
                drive: "0x81".parse().expect("drive"),
                unfit: Some(unfit),
            },
        ),
        ("hold-unknown", stranger, Decision::Hold(Hold::Unknown)),
        ("hold-address", node.mac, Decision::Hold(Hold::OldAddress(node))),
        ("hold-tries", node.mac, Decision::Hold(Hold::TriesUsedUp(node))),
        ("hold-unfit", node.mac, Decision::Hold(Hold::Unfit(node, unfit))),
    ] {
        texts.insert(format!("{name}.ipxe"), script(cluster, mac, &decision).expect("script"));
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
        let mut texts = texts(&parsed(name));
        texts.extend(masters::texts(name, &parsed(name)));
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
