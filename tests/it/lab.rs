//! A small network for tests: the real binary and real clients in namespaces that live as long as
//! the test.
//!
//!     inet 172.31.0.1 --- eth0 172.31.0.2 [master] eth1 192.168.10.1 --- [switch] --- eth0 of each client
//!
//! Everything a test starts ends with it, also when it panics.

#![expect(clippy::print_stderr, reason = "a skipped or failed test says why")]

pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod wire;

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use net::{Namespace, wire};
use process::{DEADLINE, Done, Process, run};

pub(crate) const MASTER: &str = "192.168.10.1";
pub(crate) const UPLINK: &str = "172.31.0.2";
pub(crate) const INET: &str = "172.31.0.1";
/// Two nodes of the cluster, and machines that are not in it.
pub(crate) const NODE1: (&str, &str) = ("52:54:00:aa:bb:01", "192.168.10.10");
pub(crate) const NODE2: (&str, &str) = ("52:54:00:aa:bb:02", "192.168.10.11");
pub(crate) const STRANGER: &str = "52:54:00:aa:bb:99";
/// The master's cards.
pub(crate) const ETH0: [u8; 6] = [0x52, 0x54, 0, 0xee, 0, 0];
pub(crate) const ETH1: [u8; 6] = [0x52, 0x54, 0, 0xee, 0, 1];

const BINARY: &str = env!("CARGO_BIN_EXE_rekindle");
const LEASE_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/lab/lease.sh");
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz admin@master";
const TOOLS: [&str; 14] = [
    "busybox",
    "curl",
    "dhclient",
    "ip",
    "munged",
    "nc",
    "nft",
    "prlimit",
    "setpriv",
    "slurmctld",
    "slurmd",
    "srun",
    "ss",
    "tftp",
];

/// Size of the big file in the install tree.
const BIG: usize = 6 << 20;

/// The network and the files of one test.
pub(crate) struct Lab {
    id: String,
    clients: Cell<u32>,
    pub(crate) inet: Namespace,
    pub(crate) master: Namespace,
    switch: Namespace,
    dir: tempfile::TempDir,
}

/// Makes a lab, or returns from the test when this machine cannot have one.
macro_rules! lab {
    () => {
        match $crate::lab::Lab::new() {
            Some(lab) => lab,
            None => return,
        }
    };
}
pub(crate) use lab;

impl Lab {
    /// Namespaces, wires and files; nothing runs yet. `None` where it cannot be, unless it must.
    pub(crate) fn new() -> Option<Self> {
        if let Err(why) = possible() {
            // Where all tests must pass, one that cannot run is a failure.
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("rkt-{}-{count}", std::process::id());
        let made = |what: &str| Namespace::new(format!("{id}-{what}"));
        let dir = tempfile::Builder::new().prefix(&id).tempdir().expect("folder");
        let lab = Self {
            inet: made("inet"),
            master: made("master"),
            switch: made("switch"),
            clients: Cell::new(0),
            id,
            dir,
        };
        lab.switch.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0");
        lab.switch.ip("link set dev br0 up");
        let (eth0, eth1) = (mac(ETH0), mac(ETH1));
        wire((&lab.master, "eth0", &eth0), (&lab.inet, "eth0", "52:54:00:ee:00:02"));
        wire((&lab.master, "eth1", &eth1), (&lab.switch, "m", "52:54:00:ee:00:03"));
        lab.switch.ip("link set dev m master br0");
        lab.master.ip(&format!("addr add {UPLINK}/24 dev eth0"));
        lab.master.ip(&format!("addr add {MASTER}/24 dev eth1"));
        lab.inet.ip(&format!("addr add {INET}/24 dev eth0"));
        lab.master.ip(&format!("route add default via {INET}"));
        // A host out there that knows the way to the private network.
        lab.inet.ip(&format!("route add 192.168.10.0/24 via {UPLINK}"));
        lab.write_tree();
        lab.write_config(lab.config());
        Some(lab)
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `cluster.toml`.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.path("cluster.toml")
    }

    /// The folder of journal, secrets and logs.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The default text of `cluster.toml`.
    pub(crate) fn config(&self) -> String {
        let (tree, repo) = (self.path("tree"), self.path("repo"));
        let node = |name: &str, (mac, ip): (&str, &str)| {
            format!("\n[[node]]\nname = \"{name}\"\nmac = \"{mac}\"\nip = \"{ip}\"\n")
        };
        format!(
            "[network]\nuplink = \"eth0\"\ninterface = \"eth1\"\naddress = \"{MASTER}/24\"\n\
             workers = \"192.168.10.10-192.168.10.99\"\n\
             discovery = \"192.168.10.200-192.168.10.240\"\ndomain = \"cluster.lan\"\n\n\
             [os.el9]\ntree = \"{}\"\nrepo = \"{}\"\n\n[defaults]\nos = \"el9\"\nadmin_keys = [\"{KEY}\"]\n\n\
             [scheduler]\nkind = \"torque\"\n{}{}",
            tree.display(),
            repo.display(),
            node("worker1", NODE1),
            node("worker2", NODE2),
        )
    }

    /// Writes `cluster.toml` as an editor does: a new file in place of the old.
    pub(crate) fn write_config(&self, text: impl AsRef<[u8]>) {
        let fresh = self.path("cluster.toml.new");
        std::fs::write(&fresh, text).expect("config");
        std::fs::rename(&fresh, self.config_file()).expect("config");
    }

    fn write_tree(&self) {
        let treeinfo = "[general]\nfamily = AlmaLinux\nversion = 9.8\narch = x86_64\n\n\
             [images-x86_64]\nkernel = images/pxeboot/vmlinuz\n\
             initrd = images/pxeboot/initrd.img\n\n\
             [variant-BaseOS]\nid = BaseOS\nrepository = BaseOS\n";
        for (path, content) in [
            (".treeinfo", treeinfo.as_bytes()),
            ("images/pxeboot/vmlinuz", &wire::noise(1, 70_000)),
            ("images/pxeboot/initrd.img", &wire::noise(2, 100_001)),
            ("images/install.img", &big_file()),
            ("BaseOS/repodata/repomd.xml", b"<repomd/>\n"),
            ("RPM-GPG-KEY-x", b"a key\n"),
            ("empty", b""),
            ("../repo/repodata/repomd.xml", b"<repomd/>\n"),
        ] {
            let path = self.path("tree").join(path);
            std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
            std::fs::write(path, content).expect("file");
        }
    }

    /// A machine on the private switch, with its card `eth0` up and no address.
    pub(crate) fn client(&self, mac: &str) -> Namespace {
        let number = self.clients.replace(self.clients.get() + 1);
        let port = format!("c{number}");
        let client = Namespace::new(format!("{}-{port}", self.id));
        wire(
            (&client, "eth0", mac),
            (&self.switch, &port, &format!("52:54:00:ee:01:{number:02x}")),
        );
        self.switch.ip(&format!("link set dev {port} master br0"));
        client
    }

    /// The same with an address of its own.
    pub(crate) fn client_at(&self, (mac, ip): (&str, &str)) -> Namespace {
        let client = self.client(mac);
        client.ip(&format!("addr add {ip}/24 dev eth0"));
        client
    }

    /// Pulls a plug of the switch, or puts it back.
    pub(crate) fn switch_port(&self, port: &str, state: &str) {
        self.switch.ip(&format!("link set dev {port} {state}"));
    }

    /// Switches the bridge's spanning tree on or off; its ports forward at once all the same.
    pub(crate) fn switch_does_spanning_tree(&self, on: u8) {
        self.switch.ip(&format!("link set dev br0 type bridge stp_state {on}"));
    }

    /// `rekindle WORDS` in the master's namespace.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.command_by("env", &[], words)
    }

    /// The same, started by a program that changes something and then becomes rekindle.
    pub(crate) fn command_by(&self, program: &str, before: &[&str], words: &[&str]) -> Command {
        let mut command = self.master.command(program);
        command.args(before).arg(BINARY);
        command.arg("--config").arg(self.config_file()).arg("--state").arg(self.state());
        command.args(words).env_remove("REKINDLE_LOG").env_remove("NOTIFY_SOCKET");
        command
    }

    /// One of the owner's commands; it must work.
    pub(crate) fn rekindle(&self, words: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(words)).ok()).expect("text")
    }

    /// Starts the server and waits until it serves.
    pub(crate) fn serve(&self) -> Process {
        self.serve_with(&["--log", "debug"])
    }

    /// The same, and it has looked for other DHCP servers, briefly and thoroughly: the port of that is closed.
    pub(crate) fn serve_alone(&self) -> Process {
        let server = self.serve();
        server.wait_for_times("no other DHCP server answers", 2);
        server
    }

    /// The same with these words behind `serve`.
    pub(crate) fn serve_with(&self, words: &[&str]) -> Process {
        let words = [&["serve"], words].concat();
        let server = Process::start(&mut self.command(&words));
        server.wait_for("serving DHCP");
        server
    }

    /// Starts a server that must not come up: the one line it says, and its exit code is not 0.
    pub(crate) fn refused(&self, words: &[&str]) -> (String, Option<i32>) {
        refusal(run(&mut self.command(&[&["serve"], words].concat())))
    }

    /// Lets worker1 be installed; the server has seen it when this returns.
    pub(crate) fn arm(&self, server: &Process) {
        let times = server.text().matches("to=\"waiting\"").count();
        self.rekindle(&["node", "reinstall", "worker1"]);
        server.wait_for_times("to=\"waiting\"", times + 1);
    }

    /// `busybox udhcpd` at the switch.
    pub(crate) fn other_dhcp_server(&self) -> (Namespace, Process) {
        self.other_dhcp_server_at("192.168.10.250", "192.168.10")
    }

    /// The same at another address, with those of a network to give.
    pub(crate) fn other_dhcp_server_at(&self, address: &str, net: &str) -> (Namespace, Process) {
        let at = self.client_at((STRANGER, address));
        let (conf, leases) = (self.path("udhcpd.conf"), self.path("udhcpd.leases"));
        std::fs::write(&leases, "").expect("leases");
        let text = format!(
            "start {net}.240\nend {net}.245\ninterface eth0\nlease_file {}\npidfile {}\n",
            leases.display(),
            self.path("udhcpd.pid").display()
        );
        std::fs::write(&conf, text).expect("conf");
        let server = Process::start(at.command("busybox").args(["udhcpd", "-f"]).arg(&conf));
        server.wait_for("started");
        (at, server)
    }

    /// `busybox udhcpc WORDS` on a card, in the foreground.
    pub(crate) fn udhcpc(&self, client: &Namespace, words: &[&str]) -> Process {
        let mut command = client.command("busybox");
        command.args(["udhcpc", "-f", "-i", "eth0", "-T", "1", "-s"]).arg(LEASE_SCRIPT);
        Process::start(command.args(words))
    }

    /// `dhclient` on a card, in the foreground. It never asks for broadcast.
    pub(crate) fn dhclient(&self, client: &Namespace) -> Process {
        let conf = self.path("dhclient.conf");
        let text = "timeout 60; initial-interval 1; backoff-cutoff 1;\n\
            request subnet-mask, routers, domain-name-servers, domain-name, host-name;\n";
        std::fs::write(&conf, text).expect("conf");
        let mut command = client.command("dhclient");
        command.args(["-d", "-v", "-sf"]).arg(LEASE_SCRIPT).arg("-cf").arg(conf);
        command.arg("-lf").arg(self.path(&format!("{}.leases", client.name())));
        command.arg("-pf").arg(self.path(&format!("{}.pid", client.name())));
        Process::start(command.arg("eth0"))
    }
}

/// What the big file of the tree holds.
pub(crate) fn big_file() -> Vec<u8> {
    wire::noise(3, BIG)
}

/// `curl WORDS` in a namespace.
pub(crate) fn curl(from: &Namespace, words: &[&str]) -> Done {
    run(from.command("curl").args(["-sS", "--max-time", "80"]).args(words))
}

/// The script that a machine ends up with: it may be told to look at its hardware first.
pub(crate) fn script(from: &Namespace, mac: &str) -> String {
    boots(from, mac);
    let url = format!("http://{MASTER}/ipxe/{}", mac.replace(':', "-"));
    let get = |url: &str| String::from_utf8(curl(from, &["--fail", url]).ok()).expect("text");
    let first = get(&url);
    // A processor of the second generation, with an Intel card.
    if first.contains("cpuid") { get(&format!("{url}/v2/018086100e")) } else { first }
}

/// A card's ROM asks for an address, and is answered. Nothing is installed on who did not boot.
pub(crate) fn boots(from: &Namespace, mac: &str) {
    let bytes = wire::discover(octets(mac));
    from.enter(move || {
        let kind = socket2::Type::DGRAM;
        let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).expect("socket");
        socket.set_reuse_address(true).expect("reuse");
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into()).expect("port 68");
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        socket.send_to(&bytes, (MASTER, 67)).expect("sent");
        let mut buffer = [0; 1500];
        undisturbed(|| socket.recv_from(&mut buffer)).expect("an offer");
    });
}

/// The status code that `curl WORDS` gets.
pub(crate) fn status(from: &Namespace, words: &[&str]) -> String {
    let asked = curl(from, &[&["-o", "/dev/null", "-w", "%{http_code}"], words].concat());
    String::from_utf8(asked.ok()).expect("digits")
}

/// The one line of a program that refused, and its exit code.
pub(crate) fn refusal(done: Done) -> (String, Option<i32>) {
    assert_ne!(done.code, Some(0), "it was to be refused; stderr: {}", done.err);
    assert_eq!(done.err.lines().count(), 1, "one line is said: {:?}", done.err);
    (done.err.trim_end().to_owned(), done.code)
}

/// Does the same for all `items` at the same time.
pub(crate) fn at_once<T: Sync>(items: &[T], task: impl Fn(&T) + Sync) {
    let task = &task;
    std::thread::scope(|scope| {
        for item in items {
            scope.spawn(move || task(item));
        }
    });
}

/// Waits again when a wait is interrupted, as by a machine that is put to sleep.
pub(crate) fn undisturbed<T>(mut wait: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match wait() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Ends a server as systemd does, and sees it end well.
pub(crate) fn stop(server: &Process) {
    server.signal("TERM");
    assert_eq!(server.wait().code, Some(0));
}

/// A card's address as bytes.
pub(crate) fn octets(mac: &str) -> [u8; 6] {
    let octets: Vec<_> =
        mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("octet")).collect();
    octets.try_into().expect("six")
}

fn possible() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("network namespaces need root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !is_there(tool)).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(format!("missing: {missing}; see vm-lab/packages.txt, tests/packages.txt"));
    }
    let loader = Path::new("/usr/lib/ipxe/undionly.kpxe");
    if loader.exists() { Ok(()) } else { Err("the package ipxe is missing".to_owned()) }
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}
