//! Bringing an installed node up to date: the files it should have and what it has -> a diff, and the
//! script that changes it. Pure; the shell in `cmd` talks to the node.
//!
//! Two scripts go to the node's bash over ssh: one that only reads, one that writes what differs.

use std::fmt::Write;

use base64ct::{Base64, Encoding};
use similar::TextDiff;

use crate::artifacts::NodeFile;
use crate::http::report::printable;

/// What a node has of one of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Permission bits.
    pub mode: u16,
    /// Content.
    pub text: Vec<u8>,
}

/// A file that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<'a> {
    /// How it should be.
    pub file: &'a NodeFile,
    /// How it is; `None` when it is not there.
    pub found: Option<Found>,
}

/// Why what a node answered cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// It ended before the last file.
    #[error("the node's answer ends early")]
    Short,
    /// Something else is in it.
    #[error("the node's answer is not as expected: `{0}`")]
    Form(String),
}

/// The script that reads: for each file a line `FILE MODE` or `FILE -`, its base64, and `END`.
pub fn reading(files: &[NodeFile]) -> String {
    let mut script = String::from(
        "read_one() {\n  if [ -f \"$1\" ]; then echo \"FILE $(stat -L -c %a \"$1\")\"; base64 \"$1\"; \
         else echo \"FILE -\"; fi\n  echo END\n}\n",
    );
    for file in files {
        push_line(&mut script, &format!("read_one '{}'", file.path));
    }
    script
}

/// Reads the answer to [`reading`].
pub fn parse(answer: &str, files: &[NodeFile]) -> Result<Vec<Option<Found>>, BadAnswer> {
    let mut lines = answer.lines();
    let mut found = vec![];
    for _ in files {
        let head = lines.next().ok_or(BadAnswer::Short)?;
        let bad = || BadAnswer::Form(head.chars().take(60).collect());
        let mode = head.strip_prefix("FILE ").ok_or_else(bad)?;
        let mut coded = String::new();
        loop {
            match lines.next() {
                None => return Err(BadAnswer::Short),
                Some("END") => break,
                Some(line) => coded.push_str(line),
            }
        }
        found.push(match mode {
            "-" => None,
            mode => {
                let mode = u16::from_str_radix(mode, 8).ok().ok_or_else(bad)?;
                Some(Found { mode, text: Base64::decode_vec(&coded).ok().ok_or_else(bad)? })
            }
        });
    }
    Ok(found)
}

/// What differs.
pub fn changes(files: &[NodeFile], found: Vec<Option<Found>>) -> Vec<Change<'_>> {
    let as_wanted = |file: &NodeFile, found: &Option<Found>| {
        found.as_ref().is_some_and(|found| {
            found.mode == file.mode && found.text.as_slice() == file.text.as_bytes()
        })
    };
    let pairs = files.iter().zip(found);
    pairs
        .filter(|(file, found)| !as_wanted(file, found))
        .map(|(file, found)| Change { file, found })
        .collect()
}

impl Change<'_> {
    /// A unified diff for a person; terminal escapes of the node's old file do not reach them.
    pub fn diff(&self, node: &str) -> String {
        let text = |found: &Found| printable(&String::from_utf8_lossy(&found.text));
        let old = self.found.as_ref().map(|found| (u32::from(found.mode), text(found)));
        let old = old.as_ref().map(|(mode, text)| (*mode, text.as_str()));
        let new = (u32::from(self.file.mode), self.file.text.as_str());
        diff(&format!("{node}:{}", self.file.path), old, new)
    }
}

/// How a file changes, for a person: its text, and its permission bits when they do too.
pub fn diff(name: &str, old: Option<(u32, &str)>, (mode, text): (u32, &str)) -> String {
    let (old_mode, old_text) = old.unwrap_or((mode, ""));
    let mut told = TextDiff::from_lines(old_text, text)
        .unified_diff()
        .context_radius(2)
        .header(name, &format!("{name} (new)"))
        .to_string();
    if old_mode != mode {
        push_line(&mut told, &format!("{name}: mode {old_mode:o} -> {mode:o}"));
    }
    told
}

/// The script that writes: each file whole or not at all, then whatever must notice.
pub fn writing(changes: &[Change<'_>]) -> String {
    let mut script = String::from(
        "set -e\numask 077\nput() {\n  mkdir -p \"${1%/*}\"\n  base64 -d >\"$1.rekindle\"\n  \
         chmod \"$2\" \"$1.rekindle\"\n  mv -f \"$1.rekindle\" \"$1\"\n  \
         if command -v restorecon >/dev/null; then restorecon \"$1\"; fi\n}\n",
    );
    for Change { file, .. } in changes {
        let coded = Base64::encode_string(file.text.as_bytes());
        push_line(
            &mut script,
            &format!("put '{}' {} <<'END'\n{coded}\nEND", file.path, file.mode()),
        );
    }
    let mut done: Vec<&str> = vec![];
    for reload in changes.iter().filter_map(|change| change.file.reload) {
        if !done.contains(&reload) {
            done.push(reload);
            push_line(&mut script, reload);
        }
    }
    script
}

fn push_line(text: &mut String, line: &str) {
    // Writing into a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

#[cfg(test)]
mod tests;
