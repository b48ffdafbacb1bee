//! Hostile values in every free field of `cluster.toml`: each is refused with a finding, or what
//! is rendered has the same lines and commands as ever, as Rust, pykickstart and bash see them.

mod parsers;

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use rekindle::cluster::{Cluster, edit, import};
use rekindle::media::Release;

use crate::render::{CLUSTERS, install, kickstart, script, text_of};
use crate::sandbox::KEY;

/// A file that says everything; `<field>` is a value of [`FIELDS`] in quotes.
const FILE: &str = r#"
[network]
uplink = <uplink>
interface = <interface>
address = "192.168.10.1/24"
workers = <workers>
discovery = "192.168.10.200-192.168.10.249"
domain = <domain>
master = <master>
dns = [<dns>, "192.168.10.1"]

[os.<os>]
tree = <tree>
repo = <repo>
gpg_keys = [<gpg_key>]

[defaults]
os = <os>
admin_keys = [<key>, <key_before>]

[scheduler]
kind = "torque"

[[users]]
name = <user>
uid = 1500

[[node]]
name = <node>
mac = <mac>
ip = <ip>
roles = ["compute", <role>]
timezone = <timezone>
keyboard = <keyboard>
language = <language>
kernel_args = <kernel_args>
packages = ["htop", <package>]
disk = { serial = <serial>, wwn = <wwn>, model = <model>, path = <path> }
"#;

/// Field, what it usually holds, and something else that is fine too: the lines in which the two
/// differ are those in which the field may show.
const FIELDS: [(&str, &str, &str); 26] = [
    ("uplink", "eth0", "eno1"),
    ("interface", "eth1", "eno2"),
    ("workers", "192.168.10.10-192.168.10.19", "192.168.10.50-192.168.10.59"),
    ("domain", "cluster.lan", "example.org"),
    ("master", "master", "head"),
    ("dns", "192.168.10.2", "9.9.9.9"),
    ("os", "el9", "alma9"),
    ("tree", "/srv/tree", "/mnt/dvd"),
    ("repo", "/srv/repo", "/mnt/repo"),
    ("gpg_key", "/srv/key", "/mnt/key"),
    ("key", " admin@lab", " other"),
    ("key_before", "", ""),
    ("user", "mpi", "ada"),
    ("node", "worker1", "g7"),
    ("mac", "52:54:00:aa:bb:01", "52:54:00:aa:bb:99"),
    ("ip", "192.168.10.90", "192.168.10.91"),
    ("role", "gpu", "login"),
    ("timezone", "UTC", "Europe/Berlin"),
    ("keyboard", "us", "de"),
    ("language", "en_US.UTF-8", "de_DE.UTF-8"),
    ("kernel_args", "quiet", "console=ttyS0 nosmt"),
    ("package", "mc", "strace"),
    ("serial", "WD-1", "S3Y9NB0K"),
    ("wwn", "0x5000c500a1b2c3d4", "naa.5000c500a1b2c3d5"),
    ("model", "ST500", "WDC WD5000 (blue)"),
    ("path", "/dev/sda", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"),
];

/// [`FILE`] with a value in one field.
fn file(field: &str, value: &str) -> String {
    let mut text = FILE.to_owned();
    for (name, usual, _) in FIELDS {
        let value = if name == field { value } else { usual };
        let value = match name {
            "key" => format!("{KEY}{value}"),
            "key_before" => format!("{value}{KEY}"),
            _ => value.to_owned(),
        };
        text = text.replace(&format!("<{name}>"), &quoted(&value));
    }
    text
}

/// A TOML string that holds the text.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted += &format!("\\u{:04x}", u32::from(letter)),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

fn parse(text: &str) -> Result<Cluster, rekindle::cluster::Findings> {
    Cluster::parse(text, Path::new("cluster.toml"))
}

/// Kickstart and iPXE script of the one node.
struct Rendered {
    kickstart: String,
    script: String,
}

/// `None` when the file is refused, and then with words that fit on a terminal.
fn rendered(field: &str, value: &str) -> Result<Option<Rendered>, String> {
    rendered_for(Release::El9, field, value)
}

fn rendered_for(release: Release, field: &str, value: &str) -> Result<Option<Rendered>, String> {
    let text = match release {
        Release::El7 | Release::El9 => file(field, value),
        // There is no Torque.
        Release::El8 | Release::El10 => {
            file(field, value).replacen("kind = \"torque\"", "kind = \"slurm\"", 1)
        }
    };
    let cluster = match parse(&text) {
        Ok(cluster) => cluster,
        Err(found) => {
            let is_plain = |message: &str| !message.chars().any(char::is_control);
            if found.list.is_empty() || !found.list.iter().all(|one| is_plain(&one.message)) {
                return Err(format!("{field}: {:?}", found.list));
            }
            return Ok(None);
        }
    };
    let node = cluster.nodes().next().ok_or("no node")?;
    let kickstart = kickstart(&cluster, node, release).map_err(|error| error.to_string())?;
    let kickstart = kickstart.ok_or("no such batch system")?;
    let script = script(&cluster, node.mac, &install(node)).map_err(|error| error.to_string())?;
    Ok(Some(Rendered { kickstart, script }))
}

/// Lines as Python splits them, which is how pykickstart reads a file.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive(|letter| {
        matches!(
            letter,
            '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    })
    .collect()
}

/// What a parser makes of a line before it looks at values.
#[derive(Debug, PartialEq, Eq)]
struct Shape<'a> {
    first: &'a str,
    /// What iPXE and shells give a meaning.
    marks: [usize; 6],
}

fn shape(line: &str) -> Shape<'_> {
    let first = line.split_whitespace().next().unwrap_or_default();
    let first = first.split(['=', '\'']).next().unwrap_or_default();
    let marks = ["||", "&&", "${", "$(", "<<", "`"].map(|mark| line.matches(mark).count());
    Shape { first, marks }
}

/// Lines that a field may change, and how all lines look.
struct Baseline {
    lines: Vec<String>,
    free: Vec<bool>,
}

impl Baseline {
    fn new(usual: &str, other: &str) -> Self {
        let (usual, other) = (lines(usual), lines(other));
        assert_eq!(usual.len(), other.len());
        let free = usual.iter().zip(&other).map(|(one, two)| one != two).collect();
        Self { lines: usual.into_iter().map(str::to_owned).collect(), free }
    }

    /// The first line that is not as it should be.
    fn broken_by(&self, text: &str) -> Option<String> {
        let found = lines(text);
        if found.len() != self.lines.len() {
            return Some(format!("{} lines, not {}", found.len(), self.lines.len()));
        }
        let (mut section, mut is_data) = ("", false);
        for ((line, usual), free) in found.iter().zip(&self.lines).zip(&self.free) {
            if usual.starts_with('%') {
                section = usual.split_whitespace().next().unwrap_or_default();
            }
            let (found, expected) = (shape(line), shape(usual));
            let word = if usual == "REKINDLE\n" { "REKINDLE" } else { "" };
            let is_same = match (is_data, section) {
                _ if usual.starts_with('%') => found == expected,
                // A line of a file that is written as it stands: only its end ends it.
                (true, _) => !line.starts_with('%') && *line != "REKINDLE\n",
                (_, "%packages") => !line.starts_with('%'),
                _ => found == expected,
            };
            if line != usual && !(*free && is_same) {
                return Some(format!("{line:?} instead of {usual:?}"));
            }
            is_data = (is_data && word.is_empty()) || usual.ends_with("<<'REKINDLE'\n");
        }
        None
    }
}

/// Per field: kickstart and script.
fn baselines() -> BTreeMap<&'static str, (Baseline, Baseline)> {
    let texts = |field, value| rendered(field, value).expect("renders").expect("accepted");
    FIELDS
        .into_iter()
        .map(|(field, usual, other)| {
            let (one, two) = (texts(field, usual), texts(field, other));
            let kickstart = Baseline::new(&one.kickstart, &two.kickstart);
            (field, (kickstart, Baseline::new(&one.script, &two.script)))
        })
        .collect()
}

/// What means something to somebody on the way: TOML, kickstart, shell, iPXE, the templates.
const PIECES: [&str; 51] = [
    "a",
    "B",
    "7",
    "worker",
    "-",
    "_",
    ".",
    "/",
    "=",
    " ",
    "\t",
    "\n",
    "\r",
    "\0",
    "\u{1b}[2J",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}",
    "é",
    "漢",
    "%end",
    "%post",
    "%include /etc/shadow",
    "#",
    "\"",
    "'",
    "\\",
    "`id`",
    "$(reboot)",
    "${net0/mac}",
    "||",
    "&&",
    ";",
    ">",
    "<<KS",
    "KS",
    "REKINDLE",
    "{{",
    "<%",
    "<<=",
    "=>>",
    "--append=",
    "rootpw --plaintext x",
    "free",
    "..",
    "*",
    "~",
    ",",
    ":",
    "@",
];

fn value() -> impl Strategy<Value = String> {
    let pieces = proptest::collection::vec(select(&PIECES[..]), 0..6).prop_map(|all| all.concat());
    let plain = "[a-z0-9._@:,+=/%~*^#()!?\\[\\]-]{1,12}";
    prop_oneof![
        pieces.clone(),
        any::<String>(),
        "[ -~]{0,40}",
        plain,
        (plain, pieces).prop_map(|(a, b)| a + &b)
    ]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn a_hostile_value_is_refused_or_stays_in_its_place() {
    let baselines = baselines();
    let fields = select(FIELDS.map(|(field, ..)| field).to_vec());
    proptest!(config(1500), |(field in fields, value in value())| {
        let rendered = rendered(field, &value).map_err(TestCaseError::fail)?;
        let Some(Rendered { kickstart, script }) = rendered else { return Ok(()) };
        let (of_kickstart, of_script) = &baselines[field];
        prop_assert_eq!(of_kickstart.broken_by(&kickstart), None, "{} = {:?}", field, value);
        prop_assert_eq!(of_script.broken_by(&script), None, "{} = {:?}", field, value);
    });
}

#[test]
fn no_text_makes_the_parsers_panic() {
    let example = std::fs::read_to_string("docs/cluster.example.toml").expect("example");
    let mut texts: Vec<String> = CLUSTERS.map(text_of).to_vec();
    texts.extend([example, FILE.to_owned()]);
    let change = (any::<prop::sample::Index>(), 0..40_usize, value());
    let changes = proptest::collection::vec(change, 1..4);
    proptest!(config(600), |(text in select(texts), changes in changes, any in ".{0,200}")| {
        let mut letters: Vec<char> = text.chars().collect();
        for (at, len, piece) in changes {
            let at = at.index(letters.len() + 1);
            let end = (at + len).min(letters.len());
            letters.splice(at..end, piece.chars());
        }
        for text in [letters.into_iter().collect(), any] {
            if let Err(found) = parse(&text) {
                prop_assert!(!found.list.is_empty());
                prop_assert!(found.list.iter().all(|one| one.line <= text.lines().count() + 1));
            }
            drop(import::parse_csv(&text));
        }
    });
}

/// Nodes as owners write them: comments, blank lines, tables, line ends of any kind.
fn handwritten() -> impl Strategy<Value = String> {
    let trivia = select(vec![
        "",
        "\n",
        "# a note\n",
        "\n# a note\n\n",
        "# one\n# two\n",
        "  # in\n\n\n",
        "# [[node]]\n",
    ]);
    let more = select(vec![
        "",
        "roles = [ \"a\", # first\n  \"b\",\n]\n",
        "kernel_args = \"\"\"\nquiet\"\"\"\n",
        "disk.min_gib = 20\n",
        "[node.disk]\nserial = \"x\"\n",
    ]);
    let block = (trivia.clone(), more, trivia, any::<bool>());
    (proptest::collection::vec(block, 1..6), any::<bool>(), any::<bool>()).prop_map(
        |(blocks, windows, ends)| {
            let example = text_of("minimal");
            let (head, _) = example.split_once("[[node]]").expect("node");
            let mut text = head.to_owned();
            for (index, (before, more, after, indented)) in blocks.into_iter().enumerate() {
                let blank = if indented { "  " } else { "" };
                text += &format!(
                    "{before}{blank}[[node]]{blank}\n{blank}name = \"n{index}\" # {index}\nmac = \"02:00:00:00:00:{index:02x}\"\nip = \"192.168.10.{}\"\n{more}{after}",
                    100 + index
                );
            }
            let text = if ends { text } else { text.trim_end().to_owned() };
            if windows { text.replace('\n', "\r\n") } else { text }
        },
    )
}

#[test]
fn a_change_keeps_all_other_nodes_and_is_undone_by_its_opposite() {
    let new = edit::NewNode {
        name: "new".parse().expect("name"),
        mac: "02:00:00:00:01:00".parse().expect("mac"),
        ip: "192.168.10.50".parse().expect("ip"),
        os: None,
        roles: vec![],
    };
    proptest!(config(200), |(text in handwritten(), which in any::<prop::sample::Index>())| {
        let before = parse(&text).map_err(|found| TestCaseError::fail(found.to_string()))?;
        let added = edit::add_node(&text, &new).expect("added");
        prop_assert!(added.starts_with(&text), "nothing but the end changed");
        let with_it = parse(&added).map_err(|found| TestCaseError::fail(found.to_string()))?;
        let others: Vec<_> = with_it.nodes().filter(|node| node.name != new.name).collect();
        prop_assert_eq!(others, before.nodes().collect::<Vec<_>>());
        let removed = edit::remove_node(&added, &new.name).expect("removed");
        prop_assert_eq!(removed.trim_end(), text.trim_end());

        let all: Vec<_> = before.nodes().collect();
        let gone = which.get(&all);
        let without = edit::remove_node(&text, &gone.name).expect("removed");
        let after = parse(&without).map_err(|found| TestCaseError::fail(found.to_string()))?;
        let rest: Vec<_> = all.iter().copied().filter(|node| node.name != gone.name).collect();
        prop_assert_eq!(after.nodes().collect::<Vec<_>>(), rest);
    });
}
