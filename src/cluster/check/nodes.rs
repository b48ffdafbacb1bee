//! The nodes of `cluster.toml`, each by itself and against all others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::file::{At, Reader, Table};
use super::super::{Network, Node};
use super::settings::{Defaults, os, settings};
use super::{address, value};
use crate::mac::Mac;
use crate::name::{NodeName, OsName};

/// What nodes are checked against.
pub(super) struct Frame<'a> {
    pub(super) network: Option<&'a Network>,
    pub(super) systems: &'a [OsName],
    pub(super) defaults: &'a Defaults,
}

/// Who has which name, MAC and address already.
#[derive(Default)]
struct Taken {
    names: BTreeMap<NodeName, usize>,
    macs: BTreeMap<Mac, String>,
    ips: BTreeMap<Ipv4Addr, String>,
}

pub(super) fn nodes<'d>(
    reader: &mut Reader<'d>,
    root: &mut Table<'d>,
    frame: &Frame<'_>,
) -> Vec<Node> {
    let mut taken = Taken::default();
    let tables = reader.array(root, "node");
    tables.into_iter().filter_map(|table| node(reader, table, frame, &mut taken)).collect()
}

fn node<'d>(
    reader: &mut Reader<'d>,
    mut table: Table<'d>,
    frame: &Frame<'_>,
    taken: &mut Taken,
) -> Option<Node> {
    let name = reader
        .needed(&mut table, "name", "worker1")
        .and_then(|text| value::<NodeName>(reader, text));
    if let Some(name) = &name {
        table.place = format!("node `{}`", name.value);
    }
    let mac = reader
        .needed(&mut table, "mac", "52:54:00:aa:bb:01")
        .and_then(|text| value::<Mac>(reader, text));
    let ip =
        reader.needed(&mut table, "ip", "192.168.10.10").and_then(|text| address(reader, text));
    let os = os(reader, &mut table, frame.systems).or_else(|| frame.defaults.os.clone());
    let settings = settings(reader, &mut table, &frame.defaults.settings);
    let roles = reader.list(&mut table, "roles").map_or_else(Vec::new, |list| list.value);
    let roles =
        roles.into_iter().filter_map(|text| value(reader, text)).map(|at| at.value).collect();
    if os.is_none() {
        reader.wrong(
            table.line,
            format!("{} has no os; add os = \"el9\" here or in [defaults]", table.place),
        );
    }
    unique(reader, taken, &table.place, name.as_ref(), mac, ip);
    reader.finish(table);
    if let Some(network) = frame.network {
        fits(reader, network, name.as_ref(), ip);
    }
    let (name, mac, ip, os) = (name?.value, mac?.value, ip?.value, os?);
    Some(Node { name, mac, ip, os, roles, settings })
}

fn unique(
    reader: &mut Reader<'_>,
    taken: &mut Taken,
    place: &str,
    name: Option<&At<NodeName>>,
    mac: Option<At<Mac>>,
    ip: Option<At<Ipv4Addr>>,
) {
    if let Some(At { line, value: name }) = name
        && let Some(first) = taken.names.insert(name.clone(), *line)
    {
        reader.wrong(
            *line,
            format!("node `{name}` is there twice (first on line {first}); rename one"),
        );
    }
    if let Some(At { line, value: mac }) = mac
        && let Some(other) = taken.macs.insert(mac, place.to_owned())
    {
        reader.wrong(line, format!("{mac} already belongs to {other}; every card has its own"));
    }
    if let Some(At { line, value: ip }) = ip
        && let Some(other) = taken.ips.insert(ip, place.to_owned())
    {
        reader.wrong(
            line,
            format!("{ip} is already taken by {other}; give this node another address"),
        );
    }
}

fn fits(
    reader: &mut Reader<'_>,
    network: &Network,
    name: Option<&At<NodeName>>,
    ip: Option<At<Ipv4Addr>>,
) {
    if let Some(At { line, value: name }) = name
        && *name == network.master
    {
        reader.wrong(*line, format!("`{name}` is the master's name; rename the node"));
    }
    let Some(At { line, value: ip }) = ip else { return };
    if !network.subnet.contains(&ip)
        || ip == network.subnet.network()
        || ip == network.subnet.broadcast()
    {
        reader.wrong(
            line,
            format!(
                "{ip} is no host address of {}; take one between {} and {}",
                network.subnet, network.workers.first, network.workers.last
            ),
        );
    } else if ip == network.address {
        reader.wrong(
            line,
            format!("{ip} is the master's own address; give this node another address"),
        );
    } else if network.discovery.contains(ip) {
        reader.wrong(line, format!("{ip} lies in `discovery`, which is lent to unknown machines; take one between {} and {}", network.workers.first, network.workers.last));
    }
}
