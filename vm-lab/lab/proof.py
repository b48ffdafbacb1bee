"""What must be true of an installed node, asserted from outside and over ssh with the baked key.

Row ids are those of the requirements: S4 address, S5 route, S6 firewall, S7 packages, S10 ssh,
S13 batch system, C1 silence on the uplink, C2 kickstart, C3 unattended, C4 added by MAC.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

from . import net
from .master import Master
from .shell import LabError, run, say, wait_for
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


def node_rows(proof: Proof, master: Master, node: dict, vm: Vm, real: bool) -> None:
    """Everything about one node."""
    ip, name = node["ip"], node["name"]
    ask = lambda command, **more: master.ask(ip, command, **more)

    def address():
        found = ask("ip -o -4 addr show scope global; cat /sys/class/net/e*/address; "
                    "grep -rh mac-address= /etc/NetworkManager/system-connections; hostname -f")
        return (f"inet {ip}/24 " in found and f"mac-address={vm.mac.upper()}" in found
                and f"{name}.cluster.lan" in found and "dynamic" not in found), found
    proof.check("S4", f"{name}: static {ip}/24, bound to {vm.mac}, named", address)

    def route():
        found = ask("ip -4 route show default; grep nameserver /etc/resolv.conf")
        return f"default via {net.MASTER_IP} " in found and f"nameserver {net.MASTER_IP}" in found, found
    proof.check("S5", f"{name}: default route and names through the master", route)
    firewall_rows(proof, master, ip, name)
    package_rows(proof, master, ip, name, real)

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
    if not real:
        batch_rows(proof, master, ip, name)

    def nothing_left():
        token = token_of(vm.pcap)
        found = ask("ls /root/anaconda-ks.cfg /root/original-ks.cfg /tmp/ks-script-* /etc/rekindle/report-to 2>/dev/null; "
                    f"grep -rIlsF -e '{token}' /root /tmp /etc /var /home /boot /opt /usr/local /usr/libexec; "
                    "stat -c '%a %U %n' /etc/munge/munge.key; true")
        others = [line for line in found.splitlines() if not line.startswith("400 munge ")]
        return not others, f"no file holds the token ({token[:4]}…), no kickstart, no script is left; {found}"
    proof.check("C2", f"{name}: no secret is left behind", nothing_left)


def firewall_rows(proof: Proof, master: Master, ip: str, name: str) -> None:
    """S6: open from a cluster address, closed from any other, and it says so in its log."""

    def friend():
        open_ports = [port for port in (22, 15002, 15003) if opens(net.OBSERVER, net.FRIEND_IP, ip, port)]
        ping = run(*net.inside(net.OBSERVER), "ping", "-c1", "-W3", "-I", net.FRIEND_IP, ip, check=False)
        return 22 in open_ports and ping.returncode == 0, f"from {net.FRIEND_IP}: ping {ping.returncode == 0}, ports {open_ports}"
    proof.check("S6", f"{name}: open from a cluster address", friend)

    def stranger():
        # The stranger stands on the same wire; only the firewall can stop it.
        run("ip", "-n", net.OBSERVER, "route", "replace", f"{ip}/32", "dev", "eth1", "src", net.STRANGER_IP)
        # Its answers would find the way too: this node is told where the stranger lives.
        master.ask(ip, f"ip route replace {net.STRANGER_IP}/32 dev $(ip -o -4 route show default | sed 's/.* dev //; s/ .*//')")
        got_in = [port for port in (22, 15002) if opens(net.OBSERVER, net.STRANGER_IP, ip, port)]
        run("ip", "-n", net.OBSERVER, "route", "del", f"{ip}/32")
        dropped = master.ask(ip, f"journalctl -k --no-pager | grep 'rekindle-drop: .*SRC={net.STRANGER_IP} ' | tail -n 1")
        rules = master.ask(ip, "nft list chain inet rekindle input | grep -c 'policy drop'; ip -6 addr show scope global | wc -l")
        return not got_in and dropped and rules.split()[0] == "1", f"from {net.STRANGER_IP}: opened {got_in}; {dropped}"
    proof.check("S6", f"{name}: closed from a stranger's, and logged", stranger)


def package_rows(proof: Proof, master: Master, ip: str, name: str, real: bool) -> None:
    """S7: packages from the master, with good signatures only, and no internet."""

    def no_internet():
        done = master.ssh(ip, f"curl -sS -m 5 -o /dev/null http://{net.INET_IP}/")
        there = opens(net.MASTER, net.UPLINK_IP, net.INET_IP, 80)
        return there and done.returncode == 28, f"the master reaches {net.INET_IP}: {there}; curl on the node ended with {done.returncode}"
    proof.check("S9", f"{name}: no way to the internet", no_internet)
    if real:
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


def batch_rows(proof: Proof, master: Master, ip: str, name: str) -> None:
    """S13: pbs_mom runs for the right server."""

    def mom():
        state = master.ask(ip, "systemctl is-active pbs_mom munge nftables chronyd sshd | tr '\\n' ' '; cat /etc/torque/server_name")
        banner = run(*net.inside(net.OBSERVER), "nc", "-w", "5", ip, "15002", check=False).stdout
        good = f"pbsserver=master at {net.MASTER_IP} server_name=master munge_key=1024 bytes" in banner
        return good and state.split()[:5] == ["active"] * 5, f"{state.strip()}; {banner}"
    proof.check("S13", f"{name}: pbs_mom (a stand-in daemon) runs for the master's server", mom)


def pair_rows(proof: Proof, master: Master, one: dict, two: dict) -> None:
    """S10 between nodes: there and back again, as an ordinary user, without a question."""

    def round_trip():
        found = master.ask(one["ip"], f"su - mpi -c 'ssh -o BatchMode=yes {two['name']} ssh -o BatchMode=yes {one['name']} hostname'",
                           timeout=300)
        return found.strip() == f"{one['name']}.cluster.lan", found
    proof.check("S10", f"user mpi: {one['name']} -> {two['name']} -> {one['name']} without a question", round_trip)

    def root_refused():
        done = master.ssh(one["ip"], f"ssh -o BatchMode=yes root@{two['name']} true")
        return "Permission denied" in done.stderr, f"ended with {done.returncode}: {done.stderr.strip()[-100:]}"
    proof.check("S10", f"root: {one['name']} -> {two['name']} is refused", root_refused)


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


def kickstart_row(proof: Proof, master: Master, name: str, validator: Path) -> None:
    """C2: the parser of the release accepts what the node gets."""

    def valid():
        file = master.dir / f"{name}.ks"
        file.write_text(master.rekindle("render", "kickstart", name))
        done = run(validator, "-v", "RHEL9", file, check=False)
        return done.returncode == 0, f"ksvalidator ended with {done.returncode}: {done.stdout}{done.stderr}"
    proof.check("C2", f"{name}: ksvalidator for RHEL9 accepts its kickstart", valid)


def power_cycle_row(proof: Proof, master: Master, node: dict, vm: Vm) -> None:
    """C3: after a power cut it boots its disk, and is not installed again."""

    def cycled():
        before = master.ask(node["ip"], "cat /proc/sys/kernel/random/boot_id")
        installs = sum(event["event"] == "released" for event in master.events())
        scripts = sum(event["event"] == "script-sent" and event["plan"] == "local" for event in master.events())
        vm.power_off()
        time.sleep(1)
        vm.power_on()

        def back():
            done = master.ssh(node["ip"], "cat /proc/sys/kernel/random/boot_id", timeout=60)
            return done.returncode == 0 and done.stdout != before
        wait_for(f"{vm.name} is back", 1200, back, every=5)
        events = master.events()
        again = sum(event["event"] == "released" for event in events) - installs
        local = sum(event["event"] == "script-sent" and event["plan"] == "local" for event in events) - scripts
        return again == 0 and local >= 1, f"asked the network first, was sent to its disk {local} times, installed again {again} times"
    proof.check("C3", f"{node['name']}: power cycle boots the disk, no second install", cycled)
