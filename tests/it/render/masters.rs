//! The master's own files, one text for each kind of system.

use std::collections::BTreeMap;

use rekindle::cluster::Cluster;
use rekindle::setup::batch::{Batch, Server};
use rekindle::setup::{Action, Area, Facts, Filter, Found, Link, Paths, Wiring, Wish, plan};
use rekindle::stage::{Entry, Event, Plan, Report, State};

/// Which systems a cluster's master is rendered for.
fn systems(cluster: &str) -> &'static [(&'static str, Wiring, Filter)] {
    match cluster {
        "minimal" => &[
            ("ifupdown", Wiring::Ifupdown, Filter::Nft),
            ("networkd", Wiring::Networkd, Filter::Nft),
        ],
        "lab" => &[
            ("ifcfg", Wiring::Ifcfg, Filter::Iptables),
            ("networkmanager", Wiring::NetworkManager, Filter::Nft),
        ],
        _ => &[("networkmanager", Wiring::NetworkManager, Filter::Nft)],
    }
}

/// A machine with nothing but an administrator's own files.
fn facts(cluster: &Cluster, wiring: Wiring, filter: Filter) -> Facts {
    let network = cluster.network();
    let link = |name: &rekindle::name::IfName, is_out| Link {
        name: name.clone(),
        addresses: vec![],
        is_up: is_out,
        has_default_route: is_out,
    };
    let file = |text: &str| Found { mode: 0o644, text: text.to_owned() };
    Facts {
        host_name: "frontend".to_owned(),
        wiring,
        filter,
        links: vec![link(&network.uplink, true), link(&network.interface, false)],
        files: BTreeMap::from([
            ("/etc/hosts".to_owned(), file("127.0.0.1 localhost\n")),
            ("/etc/chrony.conf".to_owned(), file("pool 2.pool.ntp.org iburst\n")),
        ]),
        sysctls: BTreeMap::new(),
        rules_loaded: false,
        has_munge_key: false,
        batch: Batch { has_database: true, server: Some(Server::default()) },
        other_filters: vec![],
        other_tables: vec![],
        tools_missing: vec![],
        ssh_ports: Default::default(),
        unindexed: Default::default(),
        missing: BTreeMap::new(),
    }
}

/// The first node is up, with four cores.
fn state(cluster: &Cluster) -> State {
    let mac = cluster.nodes().next().expect("a node").mac;
    let report = |report| Event::Reported { arm: 1, report };
    let events = [
        Event::Armed,
        Event::ScriptSent { plan: Plan::Install, os: None, why: String::new() },
        Event::Released { arm: 1 },
        report(Report::Installed),
        report(Report::FirstBoot { detail: String::new(), cores: Some(4) }),
    ];
    let entry = |(seq, event)| Entry { seq, at_ms: seq, mac, event };
    State::from_entries(&(1..).zip(events).map(entry).collect::<Vec<_>>())
}

/// File name -> the files that the master gets, one after the other, and what `qmgr` is told.
pub(super) fn texts(name: &str, cluster: &Cluster) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let state = state(cluster);
    let paths = &Paths {
        program: "/usr/local/bin/rekindle".to_owned(),
        config: "/etc/rekindle/cluster.toml".to_owned(),
        state: "/var/lib/rekindle".to_owned(),
    };
    for &(system, wiring, filter) in systems(name) {
        let host_ca = &super::keys().host_ca;
        let wish = Wish { cluster, state: &state, host_ca, paths };
        let plan = plan(&wish, &facts(cluster, wiring, filter), &Area::ALL).expect("a plan");
        let mut text = String::new();
        for step in plan.steps {
            if let Action::Write { path, after, .. } = step.action {
                text.push_str(&format!("=== {path} {:o}\n{}\n", after.mode, after.text));
            } else if let Action::Qmgr(_, told) = step.action {
                text.push_str(&format!("=== qmgr\n{}\n", told.lines.join("\n")));
            }
        }
        texts.insert(format!("master.{system}.txt"), text);
    }
    texts
}
