//! Starting: where it must not serve it does not, and says why in one line.

use std::net::SocketAddrV4;
use std::process::Command;

use crate::lab::process::{Process, run};
use crate::lab::wire::{Frame, Sniffer};
use crate::lab::{Lab, MASTER, NODE1, NODE2, STRANGER, curl, lab, refusal, stop};

/// The server does not start and says so in a line with all of `words`.
fn check_refused(lab: &Lab, words: &[&str]) {
    let (line, code) = lab.refused(&[]);
    assert_eq!(code, Some(2), "{line}");
    assert!(line.starts_with("rekindle: "), "{line}");
    for word in words {
        assert!(line.contains(word), "no `{word}` in: {line}");
    }
}

#[test]
fn an_interface_that_leads_outside_is_refused_until_its_owner_insists() {
    let lab = lab!();
    lab.master.ip("route add default via 192.168.10.254 metric 500");
    check_refused(&lab, &["eth1 carries a default route", "--serve-on-default-route"]);
    lab.master.ip("route del default via 192.168.10.254");
    // What a router of the institute's network tells whoever has just been plugged in.
    lab.master.ip("-6 route add default via fe80::1 dev eth1");
    check_refused(&lab, &["eth1 carries a default route", "--serve-on-default-route"]);
    let server = lab.serve_with(&["--serve-on-default-route"]);
    let node = lab.client(NODE1.0);
    assert_eq!(lab.udhcpc(&node, &["-q", "-t", "80"]).wait().code, Some(0));
    stop(&server);
}

// Somebody exchanged the cables, and a DHCP client on the master took what it got.
#[test]
fn an_interface_that_begins_to_lead_outside_is_not_served_any_more() {
    let lab = lab!();
    let server = lab.serve();
    let route = |what: &str| {
        lab.master.ip(&format!("route {what} default via 192.168.10.250 dev eth1 metric 5"));
    };
    route("add");
    server.wait_for("eth1 carries a default route now");
    let client = lab.client(NODE1.0);
    let asked = run(client
        .command("busybox")
        .args(["udhcpc", "-n", "-q", "-t", "2", "-T", "1", "-i", "eth0"]));
    assert_ne!(asked.code, Some(0), "{}", asked.err);
    route("del");
    server.wait_for("serving DHCP again");
    lab.udhcpc(&client, &["-q"]).wait_for("GOT ip=192.168.10.10");
}

#[test]
fn the_uplink_by_mistake_is_refused() {
    let lab = lab!();
    let text = lab.config();
    let text = text.replace("\"eth0\"", "\"eth2\"").replace("\"eth1\"", "\"eth0\"");
    lab.write_config(text.replace("192.168.10.", "172.31.0."));
    check_refused(&lab, &["eth0 carries a default route"]);
}

#[test]
fn an_interface_that_is_missing_down_or_without_the_address_is_named() {
    let lab = lab!();
    lab.master.ip("addr del 192.168.10.1/24 dev eth1");
    check_refused(&lab, &["eth1", "192.168.10.1", "ip addr add 192.168.10.1/24 dev eth1"]);
    lab.master.ip("link set dev eth1 down");
    check_refused(&lab, &["eth1 is down", "ip link set eth1 up"]);
    lab.master.ip("link set dev eth1 name eth7");
    check_refused(&lab, &["no interface `eth1`", "ip -br link"]);
}

/// A program that has a port. Not this one: its children have its sockets, too, for a moment.
fn holder(lab: &Lab, words: &[&str]) -> Process {
    let holder = Process::start(lab.master.command("nc").args(["-v", "-n", "-l"]).args(words));
    holder.wait_until("port", |said| said.contains("Bound on") || said.contains("Listening on"));
    holder
}

#[test]
fn a_port_that_another_program_has_is_named_with_its_owner() {
    let lab = lab!();
    for (address, port) in
        [("0.0.0.0", "67"), (MASTER, "69"), ("0.0.0.0", "69"), ("0.0.0.0", "4011")]
    {
        let holder = holder(&lab, &["-u", address, port]);
        let owner = format!("UDP port {port} is taken by nc (pid {});", holder.pid());
        check_refused(&lab, &[&owner]);
    }
    for (address, port) in [("0.0.0.0", "80"), (MASTER, "80"), (MASTER, "5140")] {
        let _holder = holder(&lab, &[address, port]);
        check_refused(&lab, &[&format!("TCP port {port}"), "ss -ltpn", "stop it first"]);
    }
    // Nothing of the refused ones stayed behind.
    stop(&lab.serve());
}

#[test]
fn another_dhcp_server_on_the_machine_is_named() {
    let lab = lab!();
    std::fs::write(
        lab.path("udhcpd.conf"),
        "start 192.168.10.50\nend 192.168.10.60\ninterface eth1\n",
    )
    .expect("conf");
    let mut udhcpd = lab.master.command("busybox");
    let udhcpd = Process::start(udhcpd.args(["udhcpd", "-f"]).arg(lab.path("udhcpd.conf")));
    udhcpd.wait_for("started");
    let owner = format!("taken by busybox (pid {})", udhcpd.pid());
    check_refused(&lab, &["UDP port 67", &owner]);
}

#[test]
fn beside_another_server_on_the_wire_ours_is_silent_until_that_one_is_gone() {
    let lab = lab!();
    let (_at, other) = lab.other_dhcp_server();
    let server = Process::start(&mut lab.command(&["serve"]));
    server.wait_for("another DHCP server answers on eth1: 192.168.10.250");
    let wire = Sniffer::on(&lab.master);
    let client = lab.client(NODE1.0);
    let udhcpc = lab.udhcpc(&client, &["-q"]);
    udhcpc.wait_for("GOT ip=192.168.10.24");
    let is_ours =
        |frame: &Frame| frame.src == SocketAddrV4::new(MASTER.parse().expect("address"), 67);
    assert!(!wire.frames().iter().any(is_ours), "an answer of ours");

    other.signal("KILL");
    server.wait_for("is gone: serving DHCP again");
    lab.udhcpc(&client, &["-q"]).wait_for("GOT ip=192.168.10.10");
}

// What most other servers are: a router for the home, with its own network, while the master's packet filter lets in
// nothing but its own.
#[test]
fn a_router_with_a_network_of_its_own_is_noticed_behind_the_masters_packet_filter() {
    let lab = lab!();
    let rules = "table inet filter {\n chain input {\n  type filter hook input priority 0; policy drop;\n  \
                 iif lo accept\n  ip saddr 192.168.10.0/24 accept\n }\n}\n";
    std::fs::write(lab.path("rules"), rules).expect("rules");
    run(lab.master.command("nft").arg("-f").arg(lab.path("rules"))).ok();
    run(lab.master.command("sysctl").args(["-q", "-w", "net.ipv4.conf.all.rp_filter=1"])).ok();
    let (_at, other) = lab.other_dhcp_server_at("10.99.0.1", "10.99.0");
    let server = Process::start(&mut lab.command(&["serve"]));
    server.wait_for("another DHCP server answers on eth1: 10.99.0.1");
    other.signal("KILL");
    server.wait_for("is gone: serving DHCP again");
}

#[test]
fn another_server_that_comes_later_is_noticed_when_somebody_takes_its_offer() {
    let lab = lab!();
    let server = lab.serve();
    let (_at, other) = lab.other_dhcp_server();
    // Not of the cluster: ours says nothing to it, the other one does.
    let client = lab.client("52:54:00:aa:bb:79");
    lab.udhcpc(&client, &["-q"]).wait_for("GOT ip=192.168.10.24");
    server.wait_for("another DHCP server answers on eth1: 192.168.10.250");
    other.signal("KILL");
    server.wait_for("is gone: serving DHCP again");
}

#[test]
fn a_second_server_on_the_same_machine_is_refused_and_the_first_serves_on() {
    let lab = lab!();
    let server = lab.serve();
    let owner = format!("taken by rekindle (pid {})", server.pid());
    check_refused(&lab, &["UDP port 67", &owner]);
    let node = lab.client(NODE1.0);
    assert_eq!(lab.udhcpc(&node, &["-q", "-t", "80"]).wait().code, Some(0));
    stop(&server);
    stop(&lab.serve());
}

#[test]
fn a_user_without_the_right_is_told_what_is_missing() {
    let lab = lab!();
    // Where nobody may read nothing of it would be seen.
    let binary = lab.path("rekindle");
    run(Command::new("cp").arg(env!("CARGO_BIN_EXE_rekindle")).arg(&binary)).ok();
    open_to_all(lab.path("").as_path());
    let serve = |state: &str| {
        let mut command = lab.master.command("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&binary);
        command.arg("--config").arg(lab.config_file()).arg("--state").arg(lab.path(state));
        refusal(run(command.arg("serve")))
    };
    // root's folder
    std::fs::create_dir(lab.path("state")).expect("folder");
    let (line, code) = serve("state");
    assert_eq!(code, Some(2));
    assert!(line.contains("state/secrets") && line.contains("ermission denied"), "{line}");
    // its own folder, but not the ports
    std::fs::create_dir(lab.path("own")).expect("folder");
    run(Command::new("chown").arg("65534:65534").arg(lab.path("own"))).ok();
    let (line, code) = serve("own");
    assert_eq!(code, Some(2));
    assert!(line.contains("UDP port 67 may not be opened by this user; run as root"), "{line}");
}

fn open_to_all(dir: &std::path::Path) {
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(dir)).ok();
}

/// A setting of the unit file.
fn of_unit(key: &str) -> String {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/rekindle.service");
    let unit = std::fs::read_to_string(unit).expect("unit");
    let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

#[test]
fn as_its_unit_starts_it_it_is_never_root_and_shares_its_folder_with_root() {
    let lab = lab!();
    assert_eq!(of_unit("User"), "rekindle");
    assert_eq!(of_unit("AmbientCapabilities"), of_unit("CapabilityBoundingSet"));
    let name = |name: &str| format!("+{}", name.trim_start_matches("CAP_").to_lowercase());
    let capabilities = of_unit("AmbientCapabilities");
    let capabilities = capabilities.split_whitespace().map(name).collect::<Vec<_>>().join(",");
    // Where only root may look nothing of it would be seen.
    let binary = lab.path("rekindle");
    run(Command::new("cp").arg(env!("CARGO_BIN_EXE_rekindle")).arg(&binary)).ok();
    open_to_all(lab.path("").as_path());
    // Its own folder, as systemd makes it; journal and secrets are first made by root's command.
    std::fs::create_dir(lab.state()).expect("folder");
    run(Command::new("chown").arg("nobody:nogroup").arg(lab.state())).ok();
    lab.rekindle(&["node", "reinstall", "worker1"]);
    lab.rekindle(&["render", "all", "worker1"]);

    // Of /proc it sees itself only.
    assert_eq!(
        (of_unit("ProcSubset").as_str(), of_unit("ProtectProc").as_str()),
        ("pid", "invisible")
    );
    let hidden = "mount -t proc -o subset=pid,hidepid=invisible none /proc && exec setpriv \"$@\"";
    let mut command = lab.master.command("sh");
    command.args(["-c", hidden, "sh"]);
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"]);
    command.arg(format!("--inh-caps=-all,{capabilities}"));
    command.arg(format!("--ambient-caps=-all,{capabilities}"));
    command.arg(format!("--bounding-set=-all,{capabilities}")).arg(&binary);
    command.arg("--config").arg(lab.config_file()).arg("--state").arg(lab.state());
    let server = Process::start(command.args(["serve", "--log", "debug"]));
    server.wait_for("serving DHCP");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    // Unicast to a machine without an address takes one of the capabilities.
    let node = lab.client(NODE1.0);
    assert_eq!(lab.udhcpc(&node, &["-q", "-t", "80"]).wait().code, Some(0));
    assert!(!server.text().contains("no ARP entry"), "{}", server.text());
    let served =
        curl(&lab.client_at(NODE2), &["--fail", &format!("http://{MASTER}/tree/el9/.treeinfo")]);
    assert!(served.text().contains("family"), "{} {}", served.err, server.text());
    // It writes what root made, and root writes on.
    let stranger = lab.client(STRANGER);
    let asks = lab.udhcpc(&stranger, &["-q", "-t", "80", "-V", "PXEClient:Arch:00000:UNDI:002001"]);
    assert_eq!(asks.wait().code, Some(0));
    server.wait_for("an unknown machine asks to boot");
    lab.rekindle(&["node", "reinstall", "worker2"]);
    server.wait_for_times("to=\"waiting\"", 2);
    assert!(lab.rekindle(&["machines", "--json"]).contains(STRANGER));
    let others = ["-not", "-user", "nobody"];
    let others = run(Command::new("find").arg(lab.state()).args(others)).text();
    assert_eq!(others, "", "all of it belongs to the daemon's user");
    stop(&server);
}

#[test]
fn its_unit_does_not_take_away_what_files_are_opened_with() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/rekindle.service");
    let unit = std::fs::read_to_string(unit).expect("unit");
    // systemd answers openat2 with ENOSYS then, and every file of a tree with it.
    assert!(!unit.lines().any(|line| line.starts_with("RestrictSUIDSGID")));
}

#[test]
fn its_unit_leaves_it_little_to_do_harm_with() {
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=yes", "--threshold=20", "--no-pager"]);
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/rekindle.service");
    let Ok(done) = command.arg(unit).output() else {
        assert!(std::env::var_os("CI").is_none(), "systemd-analyze is missing");
        return;
    };
    let said = String::from_utf8_lossy(&done.stdout);
    let level = said.lines().find(|line| line.contains("exposure level")).unwrap_or("no verdict");
    assert!(done.status.success() && level.contains("OK"), "{level}");
}

#[test]
fn what_is_wrong_with_the_files_is_said_before_anything_is_served() {
    let lab = lab!();
    let text = lab.config();
    lab.write_config(text.replace("\"el9\"\nadmin", "\"el8\"\nadmin"));
    let (line, code) = lab.refused(&[]);
    assert_eq!(code, Some(1));
    assert!(line.contains("cluster.toml:14: there is no [os.el8]"), "{line}");
    std::fs::remove_file(lab.config_file()).expect("removed");
    check_refused(&lab, &["cannot read", "cluster.toml", "rekindle init"]);
    lab.write_config(&text);
    std::fs::remove_file(lab.path("tree/images/pxeboot/vmlinuz")).expect("removed");
    let (line, code) = lab.refused(&[]);
    assert_eq!(code, Some(1), "the owner's tree is wrong");
    assert!(line.contains("tree/images/pxeboot/vmlinuz is missing"), "{line}");
    assert!(!lab.state().exists(), "nothing was made");
}

#[test]
fn a_loader_that_is_missing_is_said_with_the_package_that_has_it() {
    let lab = lab!();
    // In a mount namespace of its own, nothing lies where loaders do.
    let hidden = "for d in /usr/lib/ipxe /usr/share/ipxe; do \
                  [ ! -d $d ] || mount -t tmpfs none $d || exit; done; exec \"$@\"";
    let before = ["-m", "sh", "-c", hidden, "sh"];
    let done = run(&mut lab.command_by("unshare", &before, &["serve"]));
    let (line, code) = refusal(done);
    assert_eq!(code, Some(2));
    assert!(line.contains("loader undionly.kpxe is missing; install the package `ipxe`"), "{line}");
}
