//! The house rules that no lint knows: layers, purity, sizes.

use std::path::{Path, PathBuf};

/// Modules in layer order: each uses only those before it.
const LAYERS: [&[&str]; 8] = [
    &["mac", "machine", "name"],
    &[
        "answers", "cluster", "hardware", "media", "mirrors", "repodata", "site", "snippets",
        "stage",
    ],
    &["boot", "trust"],
    &["artifacts", "escape", "firewall", "foreign", "grub", "ipxe", "kickstart", "pxelinux"],
    &["arp", "dhcp", "http", "push", "setup", "tftp"],
    &["doctor", "master"],
    &["apply", "change", "host", "import", "journal", "repo", "sys"],
    &["serve"],
];

/// Files of pure layers that look at the file system on purpose, and what for.
const SHELLS_INSIDE: [&str; 3] = ["src/media.rs", "src/trust/store.rs", "src/http/files.rs"];

/// Uses upwards that are meant, with the reason.
const UPWARD: [(&str, &str); 2] = [
    // `rekindle init` fills its text from the machine's interfaces.
    ("src/cluster/template.rs", "host"),
    // The folder of secrets is made like the journal's.
    ("src/trust/store.rs", "change"),
];

/// Every file below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    let mut found = files(Path::new("src"));
    found.retain(|path| path.extension().is_some_and(|ext| ext == "rs"));
    assert!(found.len() > 40, "the sources were found");
    found
}

fn module(path: &Path) -> String {
    let rest = path.strip_prefix("src").expect("below src");
    let first = rest.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn is_test(path: &Path) -> bool {
    path.ends_with("tests.rs") || path.ends_with("sample.rs")
}

/// The part of a file before its tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("source");
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].to_owned()
}

#[test]
fn no_module_uses_a_layer_above_it() {
    let mut wrong = vec![];
    for path in sources().iter().filter(|path| !is_test(path)) {
        let Some(own) = layer(&module(path)) else { continue };
        for (index, line) in code(path).lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|letter| letter.is_ascii_lowercase()).collect();
                let meant =
                    UPWARD.iter().any(|(file, to)| path.ends_with(file) && *to == used.as_str());
                if layer(&used).is_some_and(|used| used > own) && !meant {
                    wrong.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_core_touches_no_file_socket_or_clock() {
    let shells = layer("apply").expect("first shell layer");
    let mut wrong = vec![];
    for path in sources().iter().filter(|path| !is_test(path)) {
        let own = layer(&module(path));
        let pure = own.is_some_and(|own| own < shells);
        if !pure || SHELLS_INSIDE.iter().any(|file| path.ends_with(file)) {
            continue;
        }
        for (index, line) in code(path).lines().enumerate() {
            let words = ["std::fs", "tokio::", "std::env", "UdpSocket", "TcpStream", "SystemTime"];
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn files_say_what_they_are_for_and_stay_readable() {
    let mut wrong = vec![];
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("source");
        if !is_test(&path) && !text.starts_with("//!") {
            wrong.push(format!("{}: begins without a sentence on what it is", path.display()));
        }
        if text.lines().count() > 800 {
            wrong.push(format!("{}: {} lines", path.display(), text.lines().count()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_template_holds_what_a_terminal_would_obey() {
    for dir in ["kickstart", "ipxe"] {
        for path in files(Path::new(dir)) {
            let text = std::fs::read_to_string(&path).expect("text");
            let odd = text.chars().find(|letter| letter.is_control() && *letter != '\n');
            assert_eq!(odd, None, "{}", path.display());
        }
    }
}
