//! Changes to the text of `cluster.toml`: text and change in, text out, all else kept as it was.

use std::net::Ipv4Addr;

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

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

fn document(text: &str) -> Result<DocumentMut, EditError> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        EditError::Syntax(error.message().split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

/// Appends a `[[node]]`.
pub fn add_node(text: &str, node: &NewNode) -> Result<String, EditError> {
    let mut document = document(text)?;
    let nodes = document.entry("node").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let nodes = nodes.as_array_of_tables_mut().ok_or(EditError::Form)?;
    let mut table = Table::new();
    table.insert("name", value(node.name.as_str()));
    table.insert("mac", value(node.mac.to_string()));
    table.insert("ip", value(node.ip.to_string()));
    if let Some(os) = &node.os {
        table.insert("os", value(os.as_str()));
    }
    if !node.roles.is_empty() {
        table.insert("roles", value(node.roles.iter().map(Role::as_str).collect::<Array>()));
    }
    table.decor_mut().set_prefix("\n");
    nodes.push(table);
    Ok(document.to_string())
}

/// Removes the `[[node]]` of that name.
pub fn remove_node(text: &str, name: &NodeName) -> Result<String, EditError> {
    let mut document = document(text)?;
    let nodes = document.get_mut("node").and_then(Item::as_array_of_tables_mut);
    let nodes = nodes.ok_or_else(|| EditError::NoNode(name.clone()))?;
    let is_it = |table: &Table| table.get("name").and_then(Item::as_str) == Some(name.as_str());
    let index = nodes.iter().position(is_it).ok_or_else(|| EditError::NoNode(name.clone()))?;
    nodes.remove(index);
    Ok(document.to_string())
}

/// The next free name: `worker1`, `worker2`, …, or on from the highest of the names there are.
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
        let number = name.get(stem.len()..)?.parse::<u32>().ok()?;
        Some((stem.to_owned(), number))
    };
    let names = cluster.nodes().filter_map(|node| split(node.name.as_str()));
    let (stem, number) =
        names.max_by_key(|(_, number)| *number).unwrap_or_else(|| ("worker".to_owned(), 0));
    (1..).map_while(move |step| format!("{stem}{}", number.checked_add(step)?).parse().ok())
}
