"""`rekindle master` on a machine with systemd: an installed node plays the master, with a card that leads to a namespace."""

import re
from pathlib import Path

from .installing import install
from .master import BINARY, Settings
from .proof import cycle, flood_row
from .session import Lab
from .shell import CHECKOUT, LabError, say, wait_for

CLUSTER = """\
[network]
uplink = "{uplink}"
interface = "eth1"
address = "192.168.77.1/24"
workers = "192.168.77.10-192.168.77.99"
discovery = "192.168.77.200-192.168.77.240"
domain = "second.lan"
internet = true
dns = ["9.9.9.9"]

[os.el9]
tree = "/srv/tree"

[defaults]
os = "el9"
admin_keys = ["{admin_key}"]

[[node]]
name = "far1"
mac = "52:54:00:cc:cc:01"
ip = "192.168.77.10"
"""
# Gone with the power, as it is of no file.
SECOND_CARD = ("ip netns add far && ip link add eth1 type veth peer name eth0 netns far && "
               "ip -n far addr add 192.168.77.10/24 dev eth0 && ip -n far link set eth0 up")
# As much of a tree as `serve` looks at before anybody installs.
TREE = {".treeinfo": """\
[general]
family = AlmaLinux
version = 9.8
arch = x86_64

[images-x86_64]
kernel = images/pxeboot/vmlinuz
initrd = images/pxeboot/initrd.img

[variant-BaseOS]
id = BaseOS
repository = BaseOS
""", "images/pxeboot/vmlinuz": "a kernel", "images/pxeboot/initrd.img": "an initrd", "images/install.img": "an image",
        "BaseOS/repodata/repomd.xml": "<repomd/>", "RPM-GPG-KEY-x": "a key"}
# The unit as it is shipped, and what it does.
SERVED = """\
systemctl is-active rekindle || journalctl -u rekindle -n 5 -o cat --no-pager
echo user $(ps -o user= -p $(systemctl show -p MainPID --value rekindle))
stat -c 'state %U %a' /var/lib/rekindle
ip netns exec far curl -sS http://192.168.77.1/ipxe/52-54-00-dd-dd-01 | grep 'machine waits'
ip netns exec far curl -sS http://192.168.77.1/tree/el9/.treeinfo 2>&1 | grep -E '^(family|curl)'
if ss -lun | grep -q ':67 '; then echo udp 67; fi
"""


def unit(packaging: Path) -> str:
    """The shipped unit, for this story's cluster.toml."""
    return (packaging / "rekindle.service").read_text().replace("rekindle serve", "rekindle --config /etc/rekindle-cluster.toml serve")


ONLY = "--only network,firewall,nat,names,ssh"
WITHIN = 20


def master(lab: Lab) -> None:
    """`rekindle master apply` on a machine with systemd: undone when nobody confirms, kept over a power cut when somebody does."""
    lab.serve(Settings([lab.medium]))
    vm = lab.machine(lab.hardware())
    [name] = install(lab, vm)
    if not lab.proof.holds():
        return
    lab.phases.begin("master")
    ip = lab.master.nodes()[name]["ip"]
    there = Machine(lab, ip)
    there.prepare()
    before = there.state()

    def planned():
        done = there.rekindle(f"plan {ONLY}")
        good = all(word in done.stdout for word in ("load the rules", "far1.second.lan", "192.168.77.1/24"))
        return done.returncode == 1 and good and there.state() == before, f"exit code {done.returncode}: {last(done.stderr)}"
    lab.proof.check("S3", "plan: shows what would change, and changes nothing", planned)

    def applied():
        done = there.rekindle(f"apply --yes --within {WITHIN} {ONLY}")
        state = there.state()
        good = "masquerade" in state and "rekindle-firewall enabled active" in state and "ip_forward 1" in state
        return done.returncode == 0 and good, f"exit code {done.returncode}: {last(done.stdout + done.stderr)}; {state}"
    lab.proof.check("S3", "apply: rules, unit and forwarding are there, ssh still opens", applied)

    def undone():
        wait_for("the change is undone", 600, lambda: there.state() == before, every=2)
        return True, f"as before the change, by systemd, {WITHIN} s after it"
    lab.proof.check("S3", "nobody confirms: all of it is undone", undone)

    def cut_off():
        there.rekindle(f"apply --yes --within 3600 {ONLY}")
        say("the plug is pulled before anybody confirmed, and put back")
        cycle(lab, vm, ip)
        wait_for("the change is undone at boot", 600, lambda: there.state() == before, every=2)
        there.ask(SECOND_CARD)
        return True, "as before the change, at boot"
    lab.proof.check("S3", "not confirmed, and the power fails: undone at boot", cut_off)

    def kept():
        there.rekindle(f"apply --yes --within 600 {ONLY}")
        said = there.rekindle("confirm").stdout.strip()
        say("the plug is pulled and put back")
        cycle(lab, vm, ip)
        state = there.state()
        good = "masquerade" in state and "rekindle-firewall enabled active" in state and "ip_forward 1" in state
        return said == "kept" and good, f"confirm says {said}; after the power cut: {state}"
    lab.proof.check("S3", "confirmed: rules and forwarding come back after a power cut", kept)

    flood_row(lab.proof, lab.master, ip, name)

    def served():
        there.ask(f"{SECOND_CARD} && ip addr replace 192.168.77.1/24 dev eth1 && ip link set eth1 up")
        said = there.ask(f"systemctl enable --now rekindle; {SERVED}")
        level = there.ask("systemd-analyze security rekindle --no-pager | tail -n 1").strip()
        good = all(word in said for word in ("user rekindle", "state rekindle 700", "machine waits", "family = AlmaLinux", "udp 67"))
        return good and exposure(level) <= 2.0, f"{' '.join(said.split())}; {level}"
    lab.proof.check("C1", "rekindle serves there by its unit, as its own user", served)

    def shared():
        said = there.rekindle_raw("node reinstall far1") + there.rekindle_raw("node list")
        seen = there.ask("sleep 2; journalctl -u rekindle --no-pager | grep -c 'node=\"far1\".*to=\"waiting\"'; true").strip()
        return "waiting" in said and seen == "1", f"{last(said)}; the daemon saw it {seen} times"
    lab.proof.check("C4", "root's commands and the daemon share its folder", shared)

    def reverted():
        there.ask("systemctl disable --now rekindle")
        done = there.rekindle("revert")
        after = there.state()
        other = " ".join(sorted(set(after.split()) ^ set(before.split()))) or "nothing"
        return done.returncode == 0 and after == before, f"{last(done.stdout + done.stderr)}; what differs: {other}"
    lab.proof.check("S3", "revert: as before the first apply", reverted)


def exposure(verdict: str) -> float:
    """The number in systemd's verdict."""
    found = re.search(r"rekindle.service: ([0-9.]+)", verdict)
    return float(found[1]) if found else 10.0


class Machine:
    """The node that plays the master."""

    def __init__(self, lab: Lab, ip: str) -> None:
        self.lab, self.ip = lab, ip

    def ask(self, command: str) -> str:
        return self.lab.master.ask(self.ip, command)

    def prepare(self) -> None:
        """The binary, a cluster.toml, and a second card."""
        uplink = self.ask("ip -o -4 route show default | sed 's/.* dev //; s/ .*//'").strip()
        key = self.lab.master.admin.with_suffix(".pub").read_text().strip()
        self.put("/usr/local/bin/rekindle", BINARY.read_bytes(), "755")
        self.put("/etc/rekindle-cluster.toml", CLUSTER.format(uplink=uplink, admin_key=key).encode(), "644")
        self.ask(SECOND_CARD)
        # What serve wants to find: a tree, loaders, its unit and its user.
        for file, text in TREE.items():
            self.put(f"/srv/tree/{file}", text.encode(), "644")
        for loader in ("undionly.kpxe", "snponly.efi"):
            self.put(f"/usr/share/ipxe/{loader}", Path("/usr/lib/ipxe", loader).read_bytes(), "644")
        packaging = CHECKOUT / "packaging"
        self.put("/etc/systemd/system/rekindle.service", unit(packaging).encode(), "644")
        self.put("/etc/sysusers.d/rekindle.conf", (packaging / "rekindle.sysusers").read_bytes(), "644")
        self.ask("systemd-sysusers && systemctl daemon-reload")

    def put(self, path: str, content: bytes, mode: str) -> None:
        """Writes a file there."""
        done = self.lab.master.ssh(self.ip, f"mkdir -p $(dirname {path}) && cat >{path} && chmod {mode} {path}", input=content)
        if done.returncode:
            raise LabError(f"{path} could not be written on {self.ip}: {done.stderr[-200:]!r}")

    def rekindle(self, words: str):
        """`rekindle master …` there."""
        return self.lab.master.ssh(self.ip, f"rekindle --config /etc/rekindle-cluster.toml --state /var/lib/rk master {words}",
                                   timeout=600)

    def rekindle_raw(self, words: str) -> str:
        """`rekindle …` with the unit's own folder."""
        return self.ask(f"rekindle --config /etc/rekindle-cluster.toml {words} 2>&1")

    def state(self) -> str:
        """What apply may change, in one line. Rules count without their counters."""
        return " ".join(self.ask(
            "echo ip_forward $(cat /proc/sys/net/ipv4/ip_forward); "
            "echo rekindle-firewall $(systemctl is-enabled rekindle-firewall 2>/dev/null || echo no) "
            "$(systemctl is-active rekindle-firewall); nft list table inet rekindle | sha256sum; "
            "nft list table inet rekindle | grep -o masquerade; ip -o -4 addr show dev eth1 2>/dev/null | grep -o 192.168.77.1/24; "
            "cat /etc/hosts /etc/rekindle/firewall.nft /etc/sysctl.d/90-rekindle.conf /etc/ssh/ssh_known_hosts 2>/dev/null | sha256sum; "
            "ls /etc/rekindle /etc/NetworkManager/system-connections").split())


def last(text: str) -> str:
    """The last line."""
    lines = text.strip().splitlines()
    return lines[-1][-200:] if lines else "nothing was said"


STORIES = {"master": master}
