use super::batch::{Known, Server};
use super::*;
use crate::cluster::sample;
use crate::stage::{Entry, Event, Plan as Script, Report};

fn cluster(internet: bool) -> Cluster {
    let mut parts = sample::parts();
    parts.network.internet = internet;
    Cluster::assemble(parts)
}

fn link(name: &str, addresses: &[(&str, u8)], has_default_route: bool) -> Link {
    let addresses =
        addresses.iter().map(|(ip, prefix)| (ip.parse().expect("ip"), *prefix)).collect();
    Link { name: name.parse().expect("name"), addresses, is_up: true, has_default_route }
}

fn facts() -> Facts {
    let hosts = Found { mode: 0o644, text: "127.0.0.1 localhost\n10.0.0.7 printer\n".to_owned() };
    Facts {
        host_name: "frontend".to_owned(),
        wiring: Wiring::Ifupdown,
        filter: Filter::Nft,
        links: vec![link("eth0", &[("172.31.0.2", 24)], true), link("eth1", &[], false)],
        files: BTreeMap::from([("/etc/hosts".to_owned(), hosts)]),
        sysctls: BTreeMap::from([(FORWARD.to_owned(), 0), (TIMEOUT.to_owned(), 432_000)]),
        rules_loaded: false,
        has_munge_key: false,
        batch: Batch::default(),
        other_filters: vec![],
        other_tables: vec!["inet f2b-table".to_owned()],
        tools_missing: vec![],
        ssh_ports: Default::default(),
        unindexed: Default::default(),
        missing: BTreeMap::new(),
    }
}

const CA: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz";

fn plan_of(cluster: &Cluster, facts: &Facts, areas: &[Area]) -> Result<Plan, Vec<Refusal>> {
    plan_with(cluster, &State::default(), facts, areas)
}

fn plan_with(
    cluster: &Cluster,
    state: &State,
    facts: &Facts,
    areas: &[Area],
) -> Result<Plan, Vec<Refusal>> {
    let paths = &Paths {
        program: "/usr/local/bin/rekindle".to_owned(),
        config: "/etc/rekindle/cluster.toml".to_owned(),
        state: "/var/lib/rekindle".to_owned(),
    };
    plan(&Wish { cluster, state, host_ca: CA, paths }, facts, areas)
}

fn planned(facts: &Facts) -> Plan {
    plan_of(&cluster(true), facts, &Area::ALL).expect("a plan")
}

/// The machine after the plan was carried out.
fn done(mut facts: Facts, plan: &Plan) -> Facts {
    for step in &plan.steps {
        match &step.action {
            Action::Write { path, after, .. } => {
                facts.files.insert(path.clone(), after.clone());
            }
            Action::Sysctl { name, after, .. } => {
                facts.sysctls.insert((*name).to_owned(), *after);
            }
            Action::Address { link, address, prefix } => {
                let link = facts.links.iter_mut().find(|one| one.name == *link).expect("link");
                link.addresses.push((*address, *prefix));
            }
            Action::LoadRules(_) => facts.rules_loaded = true,
            Action::MungeKey => facts.has_munge_key = true,
            Action::Index(dir) => drop(facts.unindexed.remove(dir)),
            Action::Enable { .. } => {}
            Action::TorqueDatabase => facts.batch.has_database = true,
            Action::Service { unit } => {
                if matches!(*unit, "pbs_server.service" | "pbs.service") {
                    facts.batch.server.get_or_insert_default();
                }
            }
            Action::Qmgr(_, told) => {
                let server = facts.batch.server.get_or_insert_default();
                server.is_set_up = true;
                told.lines.iter().for_each(|line| obey(server, line));
            }
        }
    }
    facts
}

/// A server does what it is told.
fn obey(server: &mut Server, line: &str) {
    let number = |text: &str| text.split([',', ' ']).next().and_then(|it| it.parse().ok());
    let cores = line.split_once("np=").or(line.split_once("np = ")).and_then(|(_, it)| number(it));
    match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["create", "node", name, ..] => {
            server.nodes.insert((*name).to_owned(), Known { cores, is_ours: true });
        }
        ["set", "node", name, ..] => server.nodes.get_mut(*name).expect("a node").cores = cores,
        ["delete", "node", name] => drop(server.nodes.remove(*name)),
        _ => {}
    }
}

/// The first node of the sample is up, with so many cores.
fn up(cores: u32) -> State {
    let arm = 1;
    let detail = String::new();
    let events = [
        Event::Armed,
        Event::ScriptSent { plan: Script::Install, os: None, why: String::new() },
        Event::Released { arm },
        Event::Reported { arm, report: Report::Installed },
        Event::Reported { arm, report: Report::FirstBoot { detail, cores: Some(cores) } },
    ];
    let entries: Vec<_> = (1..)
        .zip(events)
        .map(|(seq, event)| Entry { seq, at_ms: seq, mac: sample::mac(1), event })
        .collect();
    State::from_entries(&entries)
}

/// What the server of Torque is told.
fn told(facts: &Facts, state: &State) -> Vec<String> {
    let plan = plan_with(&cluster(true), state, facts, &[Area::Scheduler]).expect("a plan");
    let mut lines = vec![];
    for step in plan.steps {
        if let Action::Qmgr(_, told) = step.action {
            lines.extend(told.lines);
        }
    }
    lines
}

#[test]
fn torque_keeps_books_once_and_its_nodes_are_those_that_are_up() {
    let plan = plan_with(&cluster(true), &up(4), &facts(), &[Area::Scheduler]).expect("a plan");
    let place = |wanted: &dyn Fn(&Action) -> bool| {
        plan.steps.iter().position(|step| wanted(&step.action)).expect("a step")
    };
    let key = place(&|it| *it == Action::MungeKey);
    let books = place(&|it| *it == Action::TorqueDatabase);
    let server = place(&|it| *it == Action::Service { unit: "pbs_server.service" });
    let lines = place(&|it| matches!(it, Action::Qmgr(..)));
    assert!(key < books && books < server && server < lines, "{plan:?}");
    let text = format!("{plan:?}");
    assert!(text.contains("/etc/torque/server_name") && text.contains("master\\n"), "{text}");
    let new = told(&facts(), &up(4));
    assert_eq!(new.first().map(String::as_str), Some("create queue batch"));
    let node = "create node worker1 np=4,num_node_boards=1,properties=rekindle";
    assert_eq!(new.last().map(String::as_str), Some(node));

    let mut after = done(facts(), &plan);
    assert_eq!(told(&after, &up(4)), Vec::<String>::new());
    assert_eq!(told(&after, &up(8)), ["set node worker1 np = 8"]);
    let server = after.batch.server.as_mut().expect("a server");
    server.nodes.insert("big".to_owned(), Known { cores: Some(64), is_ours: false });
    // It is installed again, or gone: no work for it. What others added is theirs.
    assert_eq!(told(&after, &State::default()), ["delete node worker1"]);
    // Nobody knows what is in books that cannot be read.
    after.batch.server = None;
    assert_eq!(told(&after, &up(4)), Vec::<String>::new());
    let plan = plan_with(&cluster(true), &up(4), &after, &[Area::Scheduler]).expect("a plan");
    assert!(
        plan.left_alone.iter().any(|line| line.starts_with("pbs_server.service does not answer"))
    );
}

#[test]
fn what_was_done_once_is_not_done_again() {
    for wiring in [Wiring::NetworkManager, Wiring::Ifcfg, Wiring::Networkd, Wiring::Ifupdown] {
        for filter in [Filter::Nft, Filter::Iptables] {
            let facts = Facts { wiring, filter, ..facts() };
            let first = planned(&facts);
            assert!(first.steps.len() > 10, "{first:?}");
            let after = done(facts, &first);
            assert_eq!(planned(&after).steps, vec![], "{wiring:?} {filter:?}");
        }
    }
}

#[test]
fn rules_come_before_forwarding() {
    let plan = planned(&facts());
    let place = |is_it: &dyn Fn(&Action) -> bool| {
        plan.steps.iter().position(|step| is_it(&step.action)).expect("there")
    };
    let rules = place(&|action| matches!(action, Action::LoadRules(_)));
    let forward = place(&|action| matches!(action, Action::Sysctl { name: FORWARD, .. }));
    assert!(rules < forward);
}

#[test]
fn a_limit_that_is_higher_stays() {
    let plan = planned(&facts());
    let named = |wanted: &str| {
        plan.steps
            .iter()
            .any(|step| matches!(&step.action, Action::Sysctl { name, .. } if *name == wanted))
    };
    assert!(!named(TIMEOUT), "432000 seconds are more than asked for");
    assert!(named(CONNECTIONS));
}

#[test]
fn without_internet_nothing_is_forwarded() {
    let plan = plan_of(&cluster(false), &facts(), &Area::ALL).expect("a plan");
    let text = format!("{plan:?}");
    assert!(!text.contains("ip_forward = 1") && !text.contains("masquerade"), "{text}");
    assert!(plan.left_alone.iter().any(|line| line.contains("net.ipv4.ip_forward = 0")));
}

#[test]
fn what_others_wrote_into_a_shared_file_stays() {
    let first = planned(&facts());
    let after = done(facts(), &first);
    let hosts = &after.files["/etc/hosts"].text;
    assert!(
        hosts.starts_with("127.0.0.1 localhost\n10.0.0.7 printer\n# rekindle begins"),
        "{hosts}"
    );
    assert!(hosts.contains("192.168.10.10 worker1.cluster.lan worker1\n"), "{hosts}");
    let mut edited = after.clone();
    let with_more = format!("{hosts}10.0.0.8 scanner\n");
    edited.files.get_mut("/etc/hosts").expect("hosts").text =
        with_more.replace("worker1.cluster.lan", "x");
    let again = planned(&edited);
    let [Step { action: Action::Write { after, .. }, .. }] = again.steps.as_slice() else {
        panic!("{again:?}");
    };
    assert_eq!(after.text, with_more);
}

fn refused(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = facts();
    change(&mut facts);
    let found = plan_of(&cluster(true), &facts, &Area::ALL).expect_err("refused");
    found.iter().map(Refusal::to_string).collect()
}

#[test]
fn what_would_hurt_is_refused_in_words() {
    let swapped = refused(|facts| {
        facts.links = vec![link("eth0", &[], false), link("eth1", &[("10.1.1.5", 24)], true)];
    });
    assert!(swapped[0].contains("they look swapped"), "{swapped:?}");
    let both = refused(|facts| facts.links[1].has_default_route = true);
    assert!(both[0].contains("leads to another network"), "{both:?}");
    let overlap = refused(|facts| {
        facts.links[0].addresses = vec![("192.168.1.5".parse().expect("ip"), 16)];
    });
    assert!(overlap[0].contains("overlaps 192.168.0.0/16 on eth0"), "{overlap:?}");
    let missing = refused(|facts| facts.links.truncate(1));
    assert!(missing[0].contains("there is no interface `eth1`"), "{missing:?}");
    let filter = refused(|facts| facts.other_filters = vec!["firewalld".to_owned()]);
    assert!(filter[0].starts_with("firewalld filters packets"), "{filter:?}");
    let elsewhere = refused(|facts| {
        let text = "auto eth1\niface eth1 inet dhcp\n".to_owned();
        facts.files.insert("/etc/network/interfaces".to_owned(), Found { mode: 0o644, text });
    });
    assert!(elsewhere[0].contains("/etc/network/interfaces configures eth1"), "{elsewhere:?}");
    let locked_out = refused(|facts| facts.ssh_ports = [2222, 2200].into());
    assert!(
        locked_out[0].starts_with("ssh comes in by port 2200 here, and only 22 would"),
        "{locked_out:?}"
    );
    let both = Facts { ssh_ports: [22, 2222].into(), ..facts() };
    assert!(plan_of(&cluster(true), &both, &Area::ALL).is_ok());
    let mut parts = sample::parts();
    parts.network.uplink_client_id = Some("cluster-master".parse().expect("id"));
    let cluster = Cluster::assemble(parts);
    let on = |wiring| {
        plan_of(&cluster, &Facts { wiring, ..facts() }, &[Area::Network])
            .map(|plan| format!("{plan:?}"))
    };
    let found = on(Wiring::Networkd).expect_err("refused");
    assert!(found[0].to_string().starts_with("systemd-networkd sends no text"), "{found:?}");
    for (wiring, path) in [
        (Wiring::Ifupdown, "/etc/dhcp/dhclient.conf"),
        (Wiring::Ifcfg, "/etc/dhcp/dhclient-eth0.conf"),
        (Wiring::NetworkManager, "/etc/NetworkManager/conf.d/rekindle-uplink.conf"),
    ] {
        let plan = on(wiring).expect("a plan");
        assert!(plan.contains(path) && plan.contains("cluster-master"), "{plan}");
    }
    let package = refused(|facts| {
        facts.missing.insert(Area::Time, vec!["chrony".to_owned()]);
    });
    assert_eq!(package, ["time needs chrony, which is not installed: apt-get install chrony"]);
}

#[test]
fn only_what_is_asked_for_is_done() {
    let facts = Facts { other_filters: vec!["firewalld".to_owned()], ..facts() };
    let plan = plan_of(&cluster(true), &facts, &[Area::Names]).expect("a plan");
    assert!(plan.steps.iter().all(|step| step.area == Area::Names));
    assert!(
        plan.left_alone.iter().any(|line| line.starts_with("not asked for: network, firewall"))
    );
}
