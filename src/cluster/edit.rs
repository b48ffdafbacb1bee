//! Changes to the text of `cluster.toml`: text and change in, text out, all else kept as it was.

use std::net::Ipv4Addr;

use toml_edit::{Document, Item, RawString, Table};

use super::Cluster;
use crate::mac::Mac;
use crate::name::{NodeName, OsName, Role};

/// A node as it is to be written down: only what its owner said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// Host name.
    pub name: NodeName,
    /// Hardware address.
    pub mac: Mac,
    /// Fixed address.
    pub ip: Ipv4Addr,
    /// Its os, when it is not the default one.
    pub os: Option<OsName>,
    /// What it is for.
    pub roles: Vec<Role>,
}

/// Why the text cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no TOML.
    #[error("the file is not TOML: {0}")]
    Syntax(String),
    /// `node` is something else than a list of tables.
    #[error("`node` must be a list of [[node]] tables to be changed here; edit the file by hand")]
    Form,
    /// No such node.
    #[error("there is no node `{0}`; `rekindle node list` names them")]
    NoNode(NodeName),
}

fn document(text: &str) -> Result<Document<&str>, EditError> {
    Document::parse(text).map_err(|error| {
        EditError::Syntax(error.message().split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

/// Appends a `[[node]]`. All else stays byte for byte: the text is only ever added to.
pub fn add_node(text: &str, node: &NewNode) -> Result<String, EditError> {
    match document(text)?.as_table().get("node") {
        None | Some(Item::None | Item::ArrayOfTables(_)) => {}
        Some(Item::Value(_) | Item::Table(_)) => return Err(EditError::Form),
    }
    let mut lines = vec![
        String::new(),
        "[[node]]".to_owned(),
        format!("name = \"{}\"", node.name),
        format!("mac = \"{}\"", node.mac),
        format!("ip = \"{}\"", node.ip),
    ];
    lines.extend(node.os.iter().map(|os| format!("os = \"{os}\"")));
    if !node.roles.is_empty() {
        let roles: Vec<_> = node.roles.iter().map(|role| format!("\"{role}\"")).collect();
        lines.push(format!("roles = [{}]", roles.join(", ")));
    }
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { end };
    Ok(lines.iter().fold(format!("{text}{gap}"), |text, line| text + line + end))
}

/// Removes the `[[node]]` of that name with its comments: those that stand right above it, and
/// those right below it that do not stand right above something else.
pub fn remove_node(text: &str, name: &NodeName) -> Result<String, EditError> {
    let document = document(text)?;
    let missing = || EditError::NoNode(name.clone());
    let nodes = document.as_table().get("node").ok_or_else(missing)?;
    let nodes = nodes.as_array_of_tables().ok_or(EditError::Form)?;
    let is_it = |table: &&Table| table.get("name").and_then(Item::as_str) == Some(name.as_str());
    let node = nodes.iter().find(is_it).ok_or_else(missing)?;
    let mut parts = vec![];
    headed(node, &mut parts);
    parts.sort_by_key(|part| std::cmp::Reverse(part.head));
    Ok(parts.into_iter().fold(text.to_owned(), |text, part| without(&text, part)))
}

/// Where a table lies in the text.
struct Part {
    /// Where the comments and blank lines above its head begin.
    above: usize,
    /// Where its head begins.
    head: usize,
    /// Where its last value ends.
    end: usize,
}

/// Gathers a table and those below it that have a head of their own.
fn headed(table: &Table, parts: &mut Vec<Part>) {
    let values = table.get_values();
    let ends = values.iter().filter_map(|(_, value)| value.span()).map(|span| span.end);
    if let Some(head) = table.span().filter(|_| !table.is_dotted() && !table.is_implicit()) {
        let above = table.decor().prefix().and_then(RawString::span);
        let above = above.map_or(head.start, |above| above.start);
        parts.push(Part { above, head: head.start, end: ends.fold(head.end, usize::max) });
    }
    for (_, item) in table.iter() {
        match item {
            Item::Table(inner) => headed(inner, parts),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|inner| headed(inner, parts)),
            Item::None | Item::Value(_) => {}
        }
    }
}

/// The text without the lines of a table, the comments that belong to them, and the blank lines
/// that set them off from what is above.
fn without(text: &str, part: Part) -> String {
    let (kept, rest) = text.split_at(part.above);
    let (above, rest) = rest.split_at(part.head - part.above);
    let (_, below) = rest.split_at(part.end - part.head);
    let is_comment = |line: &&str| line.trim_start().starts_with('#');
    let is_blank = |line: &&str| line.trim().is_empty();
    let mut above: Vec<&str> = above.split_inclusive('\n').collect();
    // What is left of the head's own line is the blanks before it.
    if above.last().is_some_and(|line| !line.ends_with('\n')) {
        above.pop();
    }
    while above.last().is_some_and(is_comment) {
        above.pop();
    }
    while above.last().is_some_and(is_blank) {
        above.pop();
    }
    let mut below = below.split_inclusive('\n').skip(1);
    let own = below.clone().take_while(is_comment).count();
    if below.clone().nth(own).as_ref().is_none_or(is_blank) {
        below.by_ref().take(own).for_each(drop);
    }
    std::iter::once(kept).chain(above).chain(below).collect()
}

/// The next free name: `worker1`, `worker2`, …, or on from the highest of the names there are,
/// with as many digits (`node08`, `node09`, `node10`).
pub fn next_name(cluster: &Cluster) -> Option<NodeName> {
    next_names(cluster).next()
}

/// The lowest free address of `workers`.
pub fn next_ip(cluster: &Cluster) -> Option<Ipv4Addr> {
    next_ips(cluster).next()
}

/// The names and addresses that nodes will get that are added without either, in that order.
pub fn next_nodes(cluster: &Cluster) -> impl Iterator<Item = (NodeName, Ipv4Addr)> {
    next_names(cluster).zip(next_ips(cluster))
}

fn next_ips(cluster: &Cluster) -> impl Iterator<Item = Ipv4Addr> {
    cluster.network().workers.iter().filter(|ip| cluster.node_by_ip(*ip).is_none())
}

fn next_names(cluster: &Cluster) -> impl Iterator<Item = NodeName> + use<> {
    let split = |name: &str| {
        let stem = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
        let digits = name.get(stem.len()..)?;
        Some((digits.parse::<u32>().ok()?, digits.len(), stem.to_owned()))
    };
    let names = cluster.nodes().filter_map(|node| split(node.name.as_str()));
    let first = || (0, 1, "worker".to_owned());
    let (number, width, stem) = names.max_by_key(|(number, ..)| *number).unwrap_or_else(first);
    (1..).map_while(move |step| format!("{stem}{:0width$}", number.checked_add(step)?).parse().ok())
}

#[cfg(test)]
mod tests;
