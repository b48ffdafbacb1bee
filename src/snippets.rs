//! The owner's own pieces of kickstarts: file names and texts of `kickstart.d/` -> what each node gets.
//!
//! `all.packages`, `role-compute.post`, `node-worker1.pre`: a scope and a part. A node gets those of
//! all nodes first, then those of its roles, then its own.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::{Cluster, Node};
use crate::name::{NodeName, Role, is_one_line};

/// Longest snippet. A kickstart is 15 kB.
const BYTES_MAX: usize = 64 * 1024;

/// Whom a snippet is for. In the order they are run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Every node.
    All,
    /// Nodes with this role.
    Role(Role),
    /// One node.
    Node(NodeName),
}

/// What part of a kickstart a snippet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Lines of `%packages`.
    Packages,
    /// A script before anything is written, with the installer's programs.
    Pre,
    /// A script in the installed system.
    Post,
}

/// All snippets, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snippets(BTreeMap<(Part, Scope), Snippet>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// Its file's name.
    pub name: String,
    /// Its text, ending with a line break.
    pub text: String,
}

/// What is wrong with one of the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kickstart.d/{file}{}: {fault}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct BadSnippet {
    /// The file.
    pub file: String,
    /// Where in it.
    pub line: Option<usize>,
    /// What.
    pub fault: Fault,
}

/// Everything that is wrong with the folder. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct BadSnippets(pub Vec<BadSnippet>);

/// What can be wrong with a snippet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its name says neither whom nor what for.
    #[error(
        "the name says neither whom nor what for; call it all.post, role-ROLE.packages or node-NAME.pre"
    )]
    Name,
    /// It is for nobody.
    #[error("there is no node `{0}` in cluster.toml")]
    NoNode(NodeName),
    /// The same.
    #[error("no node in cluster.toml has the role `{0}`")]
    NoRole(Role),
    /// Not readable as text.
    #[error("{0}")]
    Unreadable(String),
    /// It is larger than any sane snippet.
    #[error("{0} bytes are too many")]
    Size(usize),
    /// A control character: bash would take a carriage return as part of a word.
    #[error("it holds the control character {0:?}; save it with Unix line ends")]
    Control(char),
    /// It would end its section of the kickstart, or begin another.
    #[error("`{0}` cannot stand here: rekindle writes the sections itself")]
    Section(String),
    /// A line that is no package.
    #[error(
        "`{0}` is no package; write a name like htop, a group like @development, or -name to leave one out"
    )]
    Package(String),
}

impl Snippets {
    /// Checks the files of the folder. Names that end in `~`, `.md` or begin with a dot are not
    /// snippets.
    pub fn parse<'t>(
        files: impl IntoIterator<Item = (&'t str, &'t str)>,
        cluster: &Cluster,
    ) -> Result<Self, BadSnippets> {
        let (mut good, mut bad) = (BTreeMap::new(), vec![]);
        for (file, text) in files.into_iter().filter(|(file, _)| is_snippet(file)) {
            let wrong = |line, fault| BadSnippet { file: file.to_owned(), line, fault };
            match place(file, cluster) {
                Err(fault) => bad.push(wrong(None, fault)),
                Ok((scope, part)) => match check(text, part) {
                    Err((line, fault)) => bad.push(wrong(line, fault)),
                    Ok(text) => {
                        good.insert((part, scope), Snippet { name: file.to_owned(), text });
                    }
                },
            }
        }
        if bad.is_empty() { Ok(Self(good)) } else { Err(BadSnippets(bad)) }
    }

    /// Those of a node, in the order they are run.
    pub fn of(&self, node: &Node, part: Part) -> Vec<&Snippet> {
        let is_for = |scope: &Scope| match scope {
            Scope::All => true,
            Scope::Role(role) => node.roles.contains(role),
            Scope::Node(name) => *name == node.name,
        };
        let mine = self.0.iter().filter(|((of, scope), _)| *of == part && is_for(scope));
        mine.map(|(_, snippet)| snippet).collect()
    }

    /// Every script among them.
    pub fn scripts(&self) -> impl Iterator<Item = &Snippet> {
        let scripts = self.0.iter().filter(|((part, _), _)| *part != Part::Packages);
        scripts.map(|(_, snippet)| snippet)
    }
}

/// Editors and people leave other files in the folder.
pub fn is_snippet(file: &str) -> bool {
    !file.starts_with('.') && !file.ends_with('~') && !file.ends_with(".md")
}

fn place(file: &str, cluster: &Cluster) -> Result<(Scope, Part), Fault> {
    let (scope, part) = file.rsplit_once('.').ok_or(Fault::Name)?;
    let part = match part {
        "packages" => Part::Packages,
        "pre" => Part::Pre,
        "post" => Part::Post,
        _ => return Err(Fault::Name),
    };
    let scope = match scope.split_once('-') {
        None if scope == "all" => Scope::All,
        Some(("role", name)) => {
            let role: Role = name.parse().ok().ok_or(Fault::Name)?;
            if !cluster.nodes().any(|node| node.roles.contains(&role)) {
                return Err(Fault::NoRole(role));
            }
            Scope::Role(role)
        }
        Some(("node", name)) => {
            let name: NodeName = name.parse().ok().ok_or(Fault::Name)?;
            if cluster.node(&name).is_none() {
                return Err(Fault::NoNode(name));
            }
            Scope::Node(name)
        }
        Some(_) | None => return Err(Fault::Name),
    };
    Ok((scope, part))
}

fn check(text: &str, part: Part) -> Result<String, (Option<usize>, Fault)> {
    if text.len() > BYTES_MAX {
        return Err((None, Fault::Size(text.len())));
    }
    for (index, line) in text.split('\n').enumerate() {
        let wrong = |fault| Err((Some(index + 1), fault));
        let is_odd =
            |letter: &char| *letter != '\t' && !is_one_line(letter.encode_utf8(&mut [0; 4]));
        if let Some(odd) = line.chars().find(is_odd) {
            return wrong(Fault::Control(odd));
        }
        // Anaconda's parser looks at the first word of each line, whatever the shell would say.
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.starts_with('%') {
            return wrong(Fault::Section(first.chars().take(20).collect()));
        }
        if part == Part::Packages && !is_package_line(line.trim()) {
            return wrong(Fault::Package(line.trim().chars().take(40).collect()));
        }
    }
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    Ok(format!("{text}{end}"))
}

fn is_package_line(line: &str) -> bool {
    let good = |letter: char| letter.is_ascii_alphanumeric() || "._-+*@^".contains(letter);
    line.is_empty() || line.starts_with('#') || line.chars().all(good)
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# kickstart.d/{}\n{}", self.name, self.text)
    }
}

#[cfg(test)]
mod tests;
