//! A small cluster for tests: two nodes, one os, one user.

use super::*;

pub(crate) fn mac(last: u8) -> Mac {
    Mac::from_wire([0x52, 0x54, 0, 0xaa, 0xbb, last]).expect("a card's address")
}

pub(crate) fn node(number: u8) -> Node {
    Node {
        name: format!("worker{number}").parse().expect("name"),
        mac: mac(number),
        ip: Ipv4Addr::new(192, 168, 10, 9 + number),
        os: "el9".parse().expect("os"),
        roles: vec!["compute".parse().expect("role")],
        settings: Settings {
            timezone: "Europe/Berlin".to_owned(),
            keyboard: "us".to_owned(),
            language: "en_US.UTF-8".to_owned(),
            kernel_args: vec!["console=ttyS0".to_owned()],
            packages: vec![],
            disk: DiskRule { min_gib: 10, root_gib: 30, ..DiskRule::default() },
            unfit: UnfitPolicy::Hold,
            boot_order: BootOrder::Network,
            loader: None,
        },
    }
}

pub(crate) fn network() -> Network {
    let range = |a, b| AddressRange {
        first: Ipv4Addr::new(192, 168, 10, a),
        last: Ipv4Addr::new(192, 168, 10, b),
    };
    Network {
        uplink: "eth0".parse().expect("interface"),
        interface: "eth1".parse().expect("interface"),
        master: "master".parse().expect("name"),
        address: Ipv4Addr::new(192, 168, 10, 1),
        subnet: "192.168.10.0/24".parse().expect("subnet"),
        workers: range(10, 99),
        discovery: range(200, 240),
        domain: "cluster.lan".parse().expect("domain"),
        dns: vec![],
        internet: false,
        uplink_client_id: None,
        ssh_port: 22,
        dhcp: DhcpMode::Serve,
        strangers: false,
    }
}

pub(crate) fn parts() -> Parts {
    let os = Os {
        tree: "/srv/el9".into(),
        repo: Some("/srv/repo/el9".into()),
        gpg_keys: vec![],
        fallback: None,
        memory_min_mib: None,
    };
    Parts {
        network: network(),
        systems: BTreeMap::from([("el9".parse().expect("os"), os)]),
        installers: BTreeMap::new(),
        scheduler: Scheduler::Torque,
        home_over_nfs: false,
        users: vec![User { name: "mpi".parse().expect("user"), uid: 1500 }],
        admin_keys: vec![
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz admin@master".to_owned(),
        ],
        tries_max: 3,
        nodes: vec![node(1), node(2)],
    }
}

pub(crate) fn cluster() -> Cluster {
    Cluster::assemble(parts())
}

/// The cluster with a tree for its os.
pub(crate) fn site() -> crate::site::Site {
    site_of(cluster())
}

pub(crate) fn site_of(cluster: Cluster) -> crate::site::Site {
    let tree = crate::media::tests::tree();
    let trees = cluster.systems().keys().map(|os| (os.clone(), tree.clone())).collect();
    let loaders = Loader::ALL.into();
    let (snippets, answers) = (crate::snippets::Snippets::default(), BTreeMap::new());
    crate::site::Site { cluster, trees, snippets, answers, loaders }
}
