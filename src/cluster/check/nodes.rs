//! The nodes of `cluster.toml`, each by itself and against all others.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::super::file::{At, Reader, Table};
use super::super::{Network, Node, Os};
use super::settings::{Defaults, settings};
use super::{address, value};
use crate::mac::Mac;
use crate::name::{NodeName, OsName};

/// What nodes are checked against.
pub(super) struct Frame<'a> {
    pub(super) network: Option<&'a Network>,
    pub(super) systems: &'a BTreeMap<OsName, Os>,
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
    let found = settings(reader, &mut table, frame.defaults, frame.systems);
    let Defaults { os, timezone, keyboard, language, kernel_args, packages, .. } = found;
    let Defaults { disk, unfit, boot_order, .. } = found;
    let roles = reader.list(&mut table, "roles").map_or_else(Vec::new, |list| list.value);
    let roles =
        roles.into_iter().filter_map(|text| value(reader, text)).map(|at| at.value).collect();
    if os.is_none() {
        reader.wrong(
            table.line,
            format!("{} has no os; add os = \"el9\" here or in [defaults]", table.place),
        );
    }
    reader.finish(table);
    let (name, mac, ip) = (name?, mac?, ip?);
    unique(reader, taken, &name, mac, ip);
    fits(reader, frame.network, &name.value, ip);
    let (name, mac, ip, os) = (name.value, mac.value, ip.value, os?);
    Some(Node {
        name,
        mac,
        ip,
        os,
        roles,
        timezone,
        keyboard,
        language,
        kernel_args,
        packages,
        disk,
        unfit,
        boot_order,
    })
}

fn unique(
    reader: &mut Reader<'_>,
    taken: &mut Taken,
    name: &At<NodeName>,
    mac: At<Mac>,
    ip: At<Ipv4Addr>,
) {
    if let Some(line) = taken.names.insert(name.value.clone(), name.line) {
        reader.wrong(
            name.line,
            format!("node `{}` is there twice (first on line {line}); rename one", name.value),
        );
    }
    if let Some(other) = taken.macs.insert(mac.value, name.value.to_string()) {
        reader.wrong(
            mac.line,
            format!("{} already belongs to node `{other}`; every card has its own", mac.value),
        );
    }
    if let Some(other) = taken.ips.insert(ip.value, name.value.to_string()) {
        reader.wrong(
            ip.line,
            format!(
                "{} is already taken by node `{other}`; give this node another address",
                ip.value
            ),
        );
    }
}

fn fits(reader: &mut Reader<'_>, network: Option<&Network>, name: &NodeName, ip: At<Ipv4Addr>) {
    let Some(network) = network else { return };
    let At { line, value: ip } = ip;
    if *name == network.master {
        reader.wrong(line, format!("`{name}` is the master's name; rename the node"));
    }
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
