"""What must be true of an installed node, asserted from outside and over ssh with the baked key.

Row ids are those of the requirements: S4 address, S5 route, S6 firewall, S7 packages, S10 ssh,
S13 batch system, C1 silence on the uplink, C2 kickstart, C3 unattended, C4 added by MAC.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from . import net
from .master import Master
from .shell import LabError, run, say, wait_for
from .tree import Medium

if TYPE_CHECKING:
    from .session import Lab
    from .vm import Vm


@dataclass
class Row:
    """One thing that is proven or not."""

    id: str
    what: str
    holds: bool
    evidence: str


class Proof:
    """The rows of a run, in order."""

    def __init__(self):
        self.rows: list[Row] = []

    def check(self, id: str, what: str, probe) -> None:
        """`probe` returns (holds, evidence); a failing probe is a row that does not hold."""
        try:
            holds, evidence = probe()
        except LabError as error:
            holds, evidence = False, str(error)
        evidence = " ".join(str(evidence).split())[:400]
        self.rows.append(Row(id, what, bool(holds), evidence))
        say(f"  {'ok  ' if holds else 'FAIL'} {id:4} {what}: {evidence[:140]}")

    def holds(self) -> bool:
        """Whether everything is proven."""
        return bool(self.rows) and all(row.holds for row in self.rows)

    def table(self) -> str:
        """For the end of the run."""
        lines = [f"{'ok' if row.holds else 'FAIL':4}  {row.id:4}  {row.what}" for row in self.rows]
        good = sum(row.holds for row in self.rows)
        return "\n".join([*lines, f"proof: {good} of {len(self.rows)}"])


def opens(namespace: str, source: str, address: str, port: int) -> bool:
    """Whether a TCP connection from that source comes about."""
    done = run(*net.inside(namespace), "nc", "-z", "-w", "4", "-s", source, address, str(port), check=False)
    return done.returncode == 0


def node_rows(lab: "Lab", name: str) -> None:
    """Everything about one node."""
    proof, master, medium, vm = lab.proof, lab.master, lab.medium, lab.names[name]
    ip = master.nodes()[name]["ip"]
    network_rows(proof, master, ip, name, vm.mac)
    firewall_rows(proof, master, ip, name, medium)
    package_rows(proof, master, ip, name, medium)

    def root_key():
        done = master.ssh(ip, "id -un; hostname", key=master.state / "secrets/root_ed25519")
        return done.returncode == 0 and done.stdout.split() == ["root", f"{name}.cluster.lan"], done.stdout or done.stderr
    proof.check("S10", f"master -> {name}: root by the master's key, host known by its certificate", root_key)

    def no_way_back():
        done = master.ssh(ip, f"ssh -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=no "
                              f"-o UserKnownHostsFile=/dev/null root@{net.MASTER_IP} true")
        # Refused by the master's sshd, not for want of one.
        return "Permission denied" in done.stderr, f"ended with {done.returncode}: {done.stderr.strip()[-100:]}"
    proof.check("S10", f"{name} -> master: root is refused", no_way_back)
    service_rows(proof, master, ip, name, medium)

    def nothing_left():
        token = token_of(vm.pcap)
        found = master.ask(ip, "ls /root/anaconda-ks.cfg /root/original-ks.cfg /tmp/ks-script-* /etc/rekindle/report-to "
                           f"2>/dev/null; grep -rIlsF -e '{token}' /root /tmp /etc /var /home /boot /opt /usr/local "
                           "/usr/libexec; true")
        return not found.strip(), f"no file holds the token ({token[:4]}…), no kickstart, no script is left; {found}"
    proof.check("C2", f"{name}: no file holds a secret of the installation", nothing_left)


def network_rows(proof: Proof, master: Master, ip: str, name: str, mac: str) -> None:
    """S4, S5: address and route."""

    def address():
        found = master.ask(ip, "ip -o -4 addr show scope global; cat /sys/class/net/e*/address; "
                           "grep -rh mac-address= /etc/NetworkManager/system-connections; hostname -f")
        return (f"inet {ip}/24 " in found and f"mac-address={mac.upper()}" in found
                and f"{name}.cluster.lan" in found and "dynamic" not in found), found
    proof.check("S4", f"{name}: static {ip}/24, bound to {mac}, named", address)

    def route():
        found = master.ask(ip, "ip -4 route show default; grep nameserver /etc/resolv.conf")
        return f"default via {net.MASTER_IP} " in found and f"nameserver {net.MASTER_IP}" in found, found
    proof.check("S5", f"{name}: default route and names through the master", route)


FLOOD_PACKETS = 2000
FLOOD = f"""
import socket, sys
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.bind((sys.argv[1], 0))
for number in range({FLOOD_PACKETS}):
    out.sendto(b"flood", (sys.argv[2], 1 + number))
"""

# What a node says of its rules: one word a family that drops what is not allowed.
NFT_POLICY = "nft list chain inet rekindle input | grep -c 'policy drop'"
IPTABLES_POLICY = "{ iptables -S INPUT; ip6tables -S INPUT; } | grep -c -- '-P INPUT DROP'"


def firewall_rows(proof: Proof, master: Master, ip: str, name: str, medium: Medium) -> None:
    """S6: open from a cluster address, closed from any other, and it says so in its log."""

    def friend():
        open_ports = [port for port in (22, 15002, 15003) if opens(net.OBSERVER, net.FRIEND_IP, ip, port)]
        ping = run(*net.inside(net.OBSERVER), "ping", "-c1", "-W3", "-I", net.FRIEND_IP, ip, check=False)
        wanted = [22, 15002, 15003] if medium.has_torque else [22]
        return open_ports == wanted and ping.returncode == 0, f"from {net.FRIEND_IP}: ping {ping.returncode == 0}, ports {open_ports}"
    proof.check("S6", f"{name}: open from a cluster address", friend)

    def stranger():
        # The stranger stands on the same wire; only the firewall can stop it.
        run("ip", "-n", net.OBSERVER, "route", "replace", f"{ip}/32", "dev", "eth1", "src", net.STRANGER_IP)
        # Its answers would find the way too: this node is told where the stranger lives.
        master.ask(ip, f"ip route replace {net.STRANGER_IP}/32 dev $(ip -o -4 route show default | sed 's/.* dev //; s/ .*//')")
        got_in = [port for port in (22, 15002) if opens(net.OBSERVER, net.STRANGER_IP, ip, port)]
        run("ip", "-n", net.OBSERVER, "route", "del", f"{ip}/32")
        dropped = master.ask(ip, f"journalctl -k --no-pager | grep 'rekindle-drop: .*SRC={net.STRANGER_IP} ' | tail -n 1")
        policy = master.ask(ip, NFT_POLICY if medium.uses_nft else IPTABLES_POLICY).strip()
        closed = policy == ("1" if medium.uses_nft else "2")
        return not got_in and dropped and closed, f"from {net.STRANGER_IP}: opened {got_in}; drops by default: {closed}; {dropped}"
    how = "nft" if medium.uses_nft else "iptables and ip6tables"
    proof.check("S6", f"{name}: closed from a stranger's by {how}, and logged", stranger)
    flood_row(proof, master, ip, name)


def flood_row(proof: Proof, master: Master, ip: str, name: str) -> None:
    """S11: somebody who is not let in writes into the log, and cannot fill it."""
    def flood():
        began = time.monotonic()
        count = f"journalctl -k --no-pager | grep -c 'rekindle-drop: .*SRC={net.STRANGER_IP} '"
        before = int(master.ask(ip, f"{count}; true"))
        run("ip", "-n", net.OBSERVER, "route", "replace", f"{ip}/32", "dev", "eth1", "src", net.STRANGER_IP)
        run(*net.inside(net.OBSERVER), "python3", "-c", FLOOD, net.STRANGER_IP, ip)
        run("ip", "-n", net.OBSERVER, "route", "del", f"{ip}/32")
        lines = int(master.ask(ip, f"{count}; true")) - before
        # 5 a minute, and 10 at once at the most.
        most = 10 + 5 * (1 + (time.monotonic() - began) / 60)
        return lines <= most, f"{FLOOD_PACKETS} datagrams, {lines} lines"
    proof.check("S11", f"{name}: a flood from a stranger does not flood the log", flood)


def package_rows(proof: Proof, master: Master, ip: str, name: str, medium: Medium) -> None:
    """S7: packages from the master, with good signatures only, and no internet."""

    def no_internet():
        done = master.ssh(ip, f"curl -sS -m 5 -o /dev/null http://{net.INET_IP}/")
        there = opens(net.MASTER, net.UPLINK_IP, net.INET_IP, 80)
        return there and done.returncode == 28, f"the master reaches {net.INET_IP}: {there}; curl on the node ended with {done.returncode}"
    proof.check("S9", f"{name}: no way to the internet", no_internet)
    if medium.real_media:
        return

    def signed():
        found = master.ask(ip, "dnf -q -y install rekindle-lab-hello >/dev/null && cat /usr/share/rekindle-lab-hello/hello "
                           "&& rpm -qi rekindle-lab-hello | grep ^Signature; grep -h ^gpgcheck /etc/yum.repos.d/*.repo; "
                           "rpm -qa | wc -l", timeout=900)
        return ("hello from the master" in found and "(none)" not in found and "gpgcheck=1" in found
                and "gpgcheck=0" not in found), found
    proof.check("S7", f"{name}: dnf installs a signed package from the master's repository", signed)

    def unsigned():
        done = master.ssh(ip, "dnf -y install rekindle-lab-unsigned 2>&1 | tail -n 3; rpm -q rekindle-lab-unsigned", timeout=900)
        return "not installed" in done.stdout and "GPG" in done.stdout, done.stdout
    proof.check("S7", f"{name}: dnf refuses an unsigned one", unsigned)

    def late():
        master.publish(medium.built.late)
        found = master.ask(ip, f"sleep {REPO_EXPIRES + 1}; dnf -q -y install rekindle-lab-late >/dev/null "
                           "&& cat /usr/share/rekindle-lab-late/hello", timeout=900)
        return "hello from the master" in found, found
    proof.check("S8", f"{name}: a package that the master got just now is installed, no cache cleaned", late)


# Seconds after which a node asks for the repository's index again (the .repo file's metadata_expire).
REPO_EXPIRES = 60


def service_rows(proof: Proof, master: Master, ip: str, name: str, medium: Medium) -> None:
    """What the kickstart switches on runs; S13: pbs_mom runs for the right server."""
    firewall = ["nftables"] if medium.uses_nft else ["iptables", "ip6tables"]
    batch = ["munge", "pbs_mom"] if medium.has_torque else []
    units = ["sshd", "chronyd", "rsyslog", *firewall, *batch]

    def mpi():
        found = master.ask(ip, "su - mpi -c 'command -v mpirun; mpirun -np 1 hostname; ulimit -l'", timeout=600).split()
        return found == ["/usr/lib64/openmpi/bin/mpirun", f"{name}.cluster.lan", "unlimited"], " ".join(found)
    proof.check("S12", f"{name}: OpenMPI is in a user's PATH and runs; memory may be locked", mpi)

    def running():
        states = master.ask(ip, f"systemctl is-active {' '.join(units)}; true").split()
        return states == ["active"] * len(units), " ".join(f"{unit} {state}" for unit, state in zip(units, states))
    proof.check("C2", f"{name}: its services run", running)
    if not medium.has_torque:
        return

    def mom():
        key = master.ask(ip, "stat -c '%a %U %s' /etc/munge/munge.key; cat /etc/torque/server_name; "
                         "systemctl show -P LimitMEMLOCK pbs_mom")
        banner = run(*net.inside(net.OBSERVER), "nc", "-w", "5", ip, "15002", check=False).stdout
        good = f"pbsserver=master at {net.MASTER_IP} server_name=master munge_key=1024 bytes" in banner
        return good and key.split() == ["400", "munge", "1024", "master", "infinity"], f"{key.strip()}; {banner}"
    proof.check("S13", f"{name}: pbs_mom (a stand-in daemon) runs for the master's server", mom)


def pair_rows(proof: Proof, master: Master, one: str, two: str) -> None:
    """S10 between nodes: there and back again, as an ordinary user, without a question."""
    ip = master.nodes()[one]["ip"]

    def round_trip():
        done = master.ssh(ip, f"su - mpi -c 'ssh -o BatchMode=yes {two} ssh -o BatchMode=yes {one} hostname'", timeout=600)
        said = done.stdout + done.stderr
        return done.returncode == 0 and said.strip() == f"{one}.cluster.lan", said
    proof.check("S10", f"user mpi: {one} -> {two} -> {one} without a question or a warning", round_trip)

    def mpi():
        done = master.ssh(ip, f"su - mpi -c 'mpirun --host {one},{two} hostname'", timeout=600)
        said = done.stdout + done.stderr
        return sorted(said.split()) == sorted([f"{one}.cluster.lan", f"{two}.cluster.lan"]), said
    proof.check("S12", f"mpirun from {one} over {one} and {two} as user mpi prints both names", mpi)

    def root_refused():
        done = master.ssh(ip, f"ssh -o BatchMode=yes root@{two} true")
        return "Permission denied" in done.stderr, f"ended with {done.returncode}: {done.stderr.strip()[-100:]}"
    proof.check("S10", f"root: {one} -> {two} is refused", root_refused)


def uplink_rows(proof: Proof) -> None:
    """C1: nothing answers on the uplink."""

    def silent():
        lease = run(*net.inside(net.INET), "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-t", "3", "-T", "1",
                    "-s", "/bin/true", check=False)
        tcp = [f"{address}:{port}" for address in (net.UPLINK_IP, net.MASTER_IP) for port in (80, 5140)
               if opens(net.INET, net.INET_IP, address, port)]
        tftp = [address for address in (net.UPLINK_IP, net.MASTER_IP)
                if run(*net.inside(net.INET), "curl", "-s", "-m", "3", "-o", "/dev/null", f"tftp://{address}/undionly.kpxe",
                       check=False).returncode == 0]
        return lease.returncode != 0 and not tcp and not tftp, f"DHCP ended with {lease.returncode}, TCP open {tcp}, TFTP {tftp}"
    proof.check("C1", "nothing answers on the uplink", silent)


def token_of(pcap: Path) -> str:
    """The token that went over the wire to this machine, last."""
    found = re.findall(rb"/node/([0-9a-f]{32})/", pcap.read_bytes())
    if not found:
        raise LabError(f"no token was seen on the wire in {pcap}")
    return found[-1].decode()


def kickstart_row(lab: "Lab", name: str) -> None:
    """C2: the parser of the release accepts what the node gets."""
    version = f"RHEL{lab.medium.release}"

    def valid():
        file = lab.master.dir / f"{name}.ks"
        file.write_text(lab.master.rekindle("render", "kickstart", name))
        done = run(lab.validator, "-v", version, file, check=False)
        return done.returncode == 0, f"ksvalidator ended with {done.returncode}: {done.stdout}{done.stderr}"
    lab.proof.check("C2", f"{name}: ksvalidator for {version} accepts its kickstart", valid)


def cycle(lab: "Lab", vm: "Vm", ip: str, while_off: Callable[[], None] = lambda: None) -> None:
    """The plug is pulled and put back; waits until it is another boot that answers."""
    master = lab.master
    before = master.ask(ip, "cat /proc/sys/kernel/random/boot_id")
    vm.power_off()
    while_off()
    time.sleep(1)
    vm.power_on()

    def back():
        done = master.ssh(ip, "cat /proc/sys/kernel/random/boot_id", timeout=120)
        return done.returncode == 0 and done.stdout != before
    wait_for(f"{vm.name} is back", 1800, back, every=5)


def power_cycle_row(lab: "Lab", name: str, while_off: Callable[[], None] = lambda: None) -> None:
    """C3: after a power cut it boots its disk, and is not installed again."""
    master, vm = lab.master, lab.names[name]
    ip = master.nodes()[name]["ip"]

    def local_boots() -> int:
        return sum(event["event"] == "script-sent" and event["plan"] == "local" for event in master.events())

    def cycled():
        installs, scripts = master.released(), local_boots()
        cycle(lab, vm, ip, while_off)
        again, local = master.released() - installs, local_boots() - scripts
        return again == 0 and local >= 1, f"asked the network first, was sent to its disk {local} times, installed again {again} times"
    lab.proof.check("C3", f"{name}: power cycle boots the disk, no second install", cycled)
