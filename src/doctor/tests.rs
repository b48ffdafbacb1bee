use super::*;
use crate::cluster::sample;
use crate::setup::{Area, Filter, Link, Wiring};
use crate::stage::{Entry, Event, Plan as Script, Report};

fn cluster() -> Cluster {
    let mut parts = sample::parts();
    parts.network.internet = true;
    Cluster::assemble(parts)
}

fn name(text: &str) -> IfName {
    text.parse().expect("name")
}

fn link(interface: &str, address: &str, has_default_route: bool) -> Link {
    let addresses = vec![(address.parse().expect("ip"), 24)];
    Link { name: name(interface), addresses, is_up: true, has_default_route }
}

/// A master with nothing wrong.
fn well() -> Signs {
    let wire = Wire { carrier: Some(true), mtu: 1500 };
    let ours = |port| Listener { port, program: "rekindle".to_owned() };
    Signs {
        facts: Facts {
            host_name: "master".to_owned(),
            wiring: Wiring::Ifupdown,
            filter: Filter::Nft,
            links: vec![link("eth0", "172.31.0.2", true), link("eth1", "192.168.10.1", false)],
            files: BTreeMap::new(),
            sysctls: BTreeMap::from([("net.ipv4.ip_forward".to_owned(), 1)]),
            rules_loaded: true,
            has_munge_key: true,
            batch: Default::default(),
            other_filters: vec![],
            other_tables: vec![],
            tools_missing: vec![],
            ssh_ports: Default::default(),
            unindexed: Default::default(),
            missing: BTreeMap::new(),
        },
        wires: BTreeMap::from([(name("eth0"), wire), (name("eth1"), wire)]),
        listeners: vec![ours("udp 67"), ours("tcp 80")],
        loaders_missing: vec![],
        broken: vec![],
        free_mib: Some(10_000),
        secrets: None,
        journal: None,
        now_ms: 2_000_000,
        clock_kept: Some(true),
        offers: vec![],
        passing: Passing::default(),
        mislabelled: None,
        hidden: BTreeSet::new(),
        answers: BTreeMap::from([("192.168.10.10".parse().expect("ip"), Some(sample::mac(1)))]),
        is_pending: false,
    }
}

fn state(events: &[Event]) -> State {
    let entries: Vec<_> = (1..)
        .zip(events)
        .map(|(seq, event)| Entry {
            seq,
            at_ms: 1_000_000 + seq,
            mac: sample::mac(1),
            event: event.clone(),
        })
        .collect();
    State::from_entries(&entries)
}

fn names(found: &[Finding]) -> Vec<&'static str> {
    found.iter().map(|finding| finding.check).collect()
}

fn seen(change: impl FnOnce(&mut Signs)) -> Vec<Finding> {
    let mut signs = well();
    change(&mut signs);
    let plan = crate::setup::plan(
        &crate::setup::Wish {
            cluster: &cluster(),
            state: &State::default(),
            host_ca: "",
            paths: &Default::default(),
        },
        &signs.facts,
        &Area::ALL,
    );
    diagnose(&cluster(), &State::default(), &plan, &signs)
}

#[test]
fn of_a_well_master_nothing_is_said() {
    assert_eq!(seen(|_| {}), vec![]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list, one fault a line")]
fn every_fault_has_its_own_name_and_a_fix() {
    let os: OsName = "el9".parse().expect("os");
    let broken = |what| Broken { os: os.clone(), what, why: "why".to_owned() };
    let ip: Ipv4Addr = "192.168.10.10".parse().expect("ip");
    type Change<'a> = Box<dyn FnOnce(&mut Signs) + 'a>;
    let faults: Vec<(&str, Change<'_>)> = vec![
        ("no-interface", Box::new(|it| it.facts.links.truncate(1))),
        (
            "swapped",
            Box::new(|it| {
                it.facts.links =
                    vec![link("eth0", "172.31.0.2", false), link("eth1", "192.168.10.1", true)];
            }),
        ),
        ("leads-out", Box::new(|it| it.facts.links[1].has_default_route = true)),
        ("overlap", Box::new(|it| it.facts.links[0] = link("eth0", "192.168.10.77", true))),
        (
            "configured-twice",
            Box::new(|it| {
                let text = "iface eth1 inet dhcp\n".to_owned();
                let found = crate::setup::Found { mode: 0o644, text };
                it.facts.files.insert("/etc/network/interfaces".to_owned(), found);
            }),
        ),
        (
            "missing-package",
            Box::new(|it| {
                it.facts.missing.insert(Area::Time, vec!["chrony".to_owned()]);
            }),
        ),
        ("other-firewall", Box::new(|it| it.facts.other_filters = vec!["firewalld".to_owned()])),
        ("link-down", Box::new(|it| it.facts.links[1].is_up = false)),
        (
            "no-cable",
            Box::new(|it| {
                it.wires.insert(name("eth1"), Wire { carrier: Some(false), mtu: 1500 });
            }),
        ),
        (
            "small-packets",
            Box::new(|it| {
                it.wires.insert(name("eth1"), Wire { carrier: Some(true), mtu: 1400 });
            }),
        ),
        ("no-address", Box::new(|it| it.facts.links[1].addresses.clear())),
        ("rogue-dhcp", Box::new(|it| it.offers = vec![ip])),
        (
            "port-taken",
            Box::new(|it| {
                it.listeners.push(Listener { port: "udp 69", program: "in.tftpd".to_owned() });
            }),
        ),
        ("not-serving", Box::new(|it| it.listeners.clear())),
        (
            "no-rules",
            Box::new(|it| {
                it.facts.rules_loaded = false;
                it.facts.sysctls.clear();
            }),
        ),
        ("open-forwarding", Box::new(|it| it.facts.rules_loaded = false)),
        ("no-forwarding", Box::new(|it| it.facts.sysctls.clear())),
        ("loader-missing", Box::new(|it| it.loaders_missing = vec![Loader::Undionly])),
        ("tree-broken", Box::new(|it| it.broken = vec![broken(What::Tree)])),
        ("tree-corrupt", Box::new(|it| it.broken = vec![broken(What::Checksum)])),
        ("repository-broken", Box::new(|it| it.broken = vec![broken(What::Repository)])),
        ("disk-full", Box::new(|it| it.free_mib = Some(3))),
        ("secrets", Box::new(|it| it.secrets = Some("can be read by others".to_owned()))),
        ("journal", Box::new(|it| it.journal = Some("is no database".to_owned()))),
        ("clock-alone", Box::new(|it| it.clock_kept = Some(false))),
        (
            "wrong-card",
            Box::new(|it| {
                it.answers.insert(ip, Some(sample::mac(9)));
            }),
        ),
        (
            "node-silent",
            Box::new(|it| {
                it.answers.insert(ip, None);
            }),
        ),
        ("unconfirmed", Box::new(|it| it.is_pending = true)),
    ];
    assert!(faults.len() >= 25);
    for (fault, change) in faults {
        let found = seen(change);
        assert!(names(&found).contains(&fault), "{fault}: {found:?}");
        assert!(CHECKS.contains(&fault), "{fault}");
        assert!(found.iter().all(|it| !it.evidence.is_empty() && !it.fix.is_empty()), "{found:?}");
    }
}

#[test]
fn a_node_that_waits_and_a_clock_that_went_back_are_found_in_the_journal() {
    let script = Event::ScriptSent { plan: Script::Install, os: None, why: String::new() };
    let failed = Report::Failed { log: "one\nno disk".to_owned() };
    let events = [
        Event::Armed,
        script,
        Event::Released { arm: 1 },
        Event::Reported { arm: 1, report: failed },
    ];
    let (state, plan) = (state(&events), Ok(Plan { steps: vec![], left_alone: vec![] }));
    let found = diagnose(&cluster(), &state, &plan, &well());
    assert_eq!(names(&found), ["node-waits"]);
    assert_eq!(found[0].evidence, "worker1 is failed: no disk");
    let early = Signs { now_ms: 1_000, ..well() };
    assert_eq!(names(&diagnose(&cluster(), &state, &plan, &early)), ["clock-behind", "node-waits"]);
}
