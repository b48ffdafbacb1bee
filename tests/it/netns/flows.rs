//! What `explain flow` says of the rules is what the kernel does with them: the same flows, one after
//! the other asked of the model and tried with real packets, in both forms of the rules.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rekindle::cluster::Cluster;
use rekindle::firewall::walk::{End, Traffic, flow};
use rekindle::firewall::{self, Ruleset, text};
use socket2::{Domain, Protocol, Socket, Type};

use super::setup::{AREAS, Fresh, differs};
use crate::lab::net::Namespace;
use crate::lab::process::{DEADLINE, run};
use crate::lab::{INET, MASTER, NODE1, NODE2, UPLINK, at_once, lab};

/// What is tried between all ends.
const TRAFFIC: [Traffic; 11] = [
    Traffic::Tcp(22),
    Traffic::Tcp(80),
    Traffic::Tcp(443),
    Traffic::Tcp(3306),
    Traffic::Tcp(5140),
    Traffic::Tcp(15002),
    Traffic::Udp(40_000, 53),
    Traffic::Udp(68, 67),
    Traffic::Udp(40_000, 69),
    Traffic::Udp(40_000, 15003),
    Traffic::Echo,
];

/// How long silence is listened to. What passes has far longer, so a slow machine only finds less.
const SILENCE: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy)]
enum Form {
    Nft,
    Iptables,
}

/// Master, two workers, the outside; where they are and what they are called by whom.
struct Place<'l> {
    master: &'l Namespace,
    inet: &'l Namespace,
    one: Namespace,
    two: Namespace,
}

impl Place<'_> {
    fn namespace(&self, end: &End) -> &Namespace {
        match end {
            End::Master | End::MasterPrivate => self.master,
            End::Worker(name) if name.as_str() == "worker1" => &self.one,
            End::Worker(_) => &self.two,
            End::Outside(_) => self.inet,
        }
    }

    fn address(from: &End, to: &End) -> Ipv4Addr {
        let text = match to {
            End::Master if matches!(from, End::Outside(_)) => UPLINK,
            End::Master | End::MasterPrivate => MASTER,
            End::Worker(name) if name.as_str() == "worker1" => NODE1.1,
            End::Worker(_) => NODE2.1,
            End::Outside(_) => INET,
        };
        text.parse().expect("address")
    }
}

fn load(namespace: &Namespace, rules: &Ruleset, form: Form, dir: &Path) {
    let file = dir.join(format!("{}.rules", namespace.name()));
    let load = |program: &str, words: &[&str], text: String| {
        std::fs::write(&file, text).expect("file");
        run(namespace.command(program).args(words).arg(&file)).ok();
    };
    match form {
        Form::Nft => {
            load("nft", &["-f"], text::nft(rules));
            // Twice is as good as once.
            load("nft", &["-f"], text::nft(rules));
        }
        Form::Iptables => {
            load("iptables-restore", &[], text::iptables(rules));
            load("ip6tables-restore", &[], text::ip6tables(rules));
        }
    }
}

/// Listens on every port that is tried, and answers datagrams.
fn answer<'s>(
    scope: &'s std::thread::Scope<'s, '_>,
    namespace: &Namespace,
    stop: &'s AtomicBool,
) -> Vec<TcpListener> {
    let mut listeners = vec![];
    for traffic in TRAFFIC {
        let any = |port| (Ipv4Addr::UNSPECIFIED, port);
        match traffic {
            Traffic::Tcp(port) => {
                listeners.push(namespace.enter(|| TcpListener::bind(any(port)).expect("listen")));
            }
            Traffic::Udp(_, port) => {
                let socket = namespace.enter(|| UdpSocket::bind(any(port)).expect("bind"));
                socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
                scope.spawn(move || {
                    let mut buffer = [0; 64];
                    while !stop.load(Ordering::Relaxed) {
                        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                        socket.send_to(&buffer[..len], from).map(drop).unwrap_or_default();
                    }
                });
            }
            Traffic::Echo => {}
        }
    }
    listeners
}

/// Whether a conversation comes about. Where none is expected, silence is listened to for a moment.
fn tried(from: &Namespace, to: Ipv4Addr, traffic: Traffic, is_expected: bool) -> bool {
    let patience = if is_expected { DEADLINE } else { SILENCE };
    match traffic {
        Traffic::Tcp(port) => from.enter(|| {
            let to = SocketAddr::from((to, port));
            match TcpStream::connect_timeout(&to, patience) {
                Ok(_) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{to}: {error}");
                    false
                }
            }
        }),
        Traffic::Udp(source, port) => {
            from.enter(|| asked(source, SocketAddrV4::new(to, port), patience))
        }
        Traffic::Echo => {
            let to = to.to_string();
            // Each waits a second for its answer; a limit may take some of them.
            (0..patience.as_secs().max(2)).any(|_| {
                let mut ping = from.command("busybox");
                run(ping.args(["ping", "-q", "-c", "1", "-W", "1", &to])).code == Some(0)
            })
        }
    }
}

fn asked(source: u16, to: SocketAddrV4, patience: Duration) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("socket");
    socket.set_reuse_address(true).expect("reuse");
    // DHCP is known by its ports; everybody else has a port of his own.
    let source = if source == 68 { source } else { 0 };
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, source).into()).expect("bind");
    socket.connect(&to.into()).expect("address");
    let socket = UdpSocket::from(socket);
    let each = Duration::from_millis(500);
    socket.set_read_timeout(Some(each)).expect("timeout");
    (0..patience.as_millis() / each.as_millis()).any(|_| {
        socket.send(b"?").expect("sent");
        socket.recv(&mut [0; 8]).is_ok()
    })
}

fn ends() -> Vec<(End, End)> {
    let worker = |name: &str| End::Worker(name.parse().expect("name"));
    let outside = End::Outside(INET.parse().expect("address"));
    let from = [worker("worker1"), worker("worker2"), End::Master, outside.clone()];
    let to = [worker("worker1"), worker("worker2"), End::Master, End::MasterPrivate, outside];
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())));
    let is_one =
        |from: &End, to: &End| from == to || (*from == End::Master && *to == End::MasterPrivate);
    pairs.filter(|(from, to)| !is_one(from, to)).collect()
}

fn agree(form: Form, internet: bool) {
    let lab = lab!();
    let text = lab
        .config()
        .replace("domain =", &format!("internet = {internet}\ndns = [\"9.9.9.9\"]\ndomain ="));
    let cluster = Cluster::parse(&text, Path::new("cluster.toml")).expect("cluster");
    lab.write_config(text);
    let fresh = match form {
        Form::Nft => Fresh::new(lab),
        Form::Iptables => Fresh::release_7(lab),
    };
    let before = fresh.state();
    let applied = fresh.run(&["apply", "--yes", "--only", AREAS]);
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    assert_eq!(fresh.run(&["confirm"]).text(), "kept\n");
    let lab = &fresh.0;
    let (one, two) = (lab.client_at(NODE1), lab.client_at(NODE2));
    let place = Place { master: &lab.master, inet: &lab.inet, one, two };
    for worker in [&place.one, &place.two] {
        worker.ip(&format!("route add default via {MASTER}"));
        load(worker, &firewall::worker(cluster.network()), form, &lab.path(""));
    }
    if internet {
        // S2: under whose address a worker is seen out there.
        let listener = place.inet.enter(|| TcpListener::bind((INET, 9999)).expect("listen"));
        let to = SocketAddr::from((INET.parse::<Ipv4Addr>().expect("address"), 9999));
        let talk = place.one.enter(|| TcpStream::connect_timeout(&to, DEADLINE));
        talk.expect("a worker reaches the outside");
        let (_, seen) = listener.accept().expect("somebody came");
        assert_eq!(seen.ip().to_string(), UPLINK);
    } else {
        // Somebody else's doing: the rules alone must hold.
        run(lab.master.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=1"])).ok();
    }
    let flows: Vec<_> = ends()
        .into_iter()
        .flat_map(|(from, to)| TRAFFIC.map(|traffic| (from.clone(), to.clone(), traffic)))
        .collect();
    assert!(flows.len() > 150, "{}", flows.len());
    let stop = AtomicBool::new(false);
    let wrong = std::sync::Mutex::new(vec![]);
    std::thread::scope(|scope| {
        let _listeners: Vec<_> = [&place.one, &place.two, &lab.master, &lab.inet]
            .map(|namespace| answer(scope, namespace, &stop))
            .into();
        at_once(&flows, |(from, to, traffic)| {
            let told = flow(&cluster, from, to, *traffic).expect("both are there").works();
            let address = Place::address(from, to);
            if tried(place.namespace(from), address, *traffic, told) != told {
                wrong
                    .lock()
                    .expect("lock")
                    .push(format!("{from:?} {to:?} {traffic:?}: told {told}"));
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    let wrong = wrong.into_inner().expect("lock");
    assert!(wrong.is_empty(), "{wrong:#?}");

    let again = fresh.run(&["apply", "--yes", "--only", AREAS]);
    assert_eq!((again.code, again.text().as_str()), (Some(0), "nothing to do\n"), "{}", again.err);
    if !internet {
        run(lab.master.command("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=0"])).ok();
    }
    assert_eq!(fresh.run(&["revert"]).code, Some(0));
    assert_eq!(differs(&fresh.state(), &before), Vec::<String>::new());
}

#[test]
fn what_is_explained_of_nft_rules_is_what_they_do() {
    agree(Form::Nft, true);
    agree(Form::Nft, false);
}

#[test]
fn what_is_explained_of_iptables_rules_is_what_they_do() {
    agree(Form::Iptables, true);
    agree(Form::Iptables, false);
}
