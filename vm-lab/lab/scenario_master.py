"""`rekindle master` on a machine with systemd: an installed node plays the master, with a card that leads nowhere."""


from .installing import installed_row
from .master import BINARY, Settings
from .proof import cycle
from .session import Lab
from .shell import LabError, say, wait_for

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
tree = "/srv/none"

[defaults]
os = "el9"
admin_keys = ["{admin_key}"]

[[node]]
name = "far1"
mac = "52:54:00:cc:cc:01"
ip = "192.168.77.10"
"""
ONLY = "--only network,firewall,nat,names,ssh"
WITHIN = 20


def master(lab: Lab) -> None:
    """`rekindle master apply` on a machine with systemd: undone when nobody confirms, kept over a power cut when somebody does."""
    lab.serve(Settings([lab.medium]))
    vm = lab.machine(lab.hardware())
    vm.plug_in()
    name = lab.add(vm)
    lab.phases.begin("install")
    vm.power_on()
    installed_row(lab, [name])
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

    def kept():
        there.rekindle(f"apply --yes --within 600 {ONLY}")
        said = there.rekindle("confirm").stdout.strip()
        say("the plug is pulled and put back")
        cycle(lab, vm, ip)
        state = there.state()
        good = "masquerade" in state and "rekindle-firewall enabled active" in state and "ip_forward 1" in state
        return said == "kept" and good, f"confirm says {said}; after the power cut: {state}"
    lab.proof.check("S3", "confirmed: rules and forwarding come back after a power cut", kept)

    def reverted():
        done = there.rekindle("revert")
        return done.returncode == 0 and there.state() == before, f"{last(done.stdout + done.stderr)}; {there.state()}"
    lab.proof.check("S3", "revert: as before the first apply", reverted)


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
        self.ask("ip link add eth1 type dummy")

    def put(self, path: str, content: bytes, mode: str) -> None:
        """Writes a file there."""
        done = self.lab.master.ssh(self.ip, f"cat >{path} && chmod {mode} {path}", input=content)
        if done.returncode:
            raise LabError(f"{path} could not be written on {self.ip}: {done.stderr[-200:]!r}")

    def rekindle(self, words: str):
        """`rekindle master …` there."""
        return self.lab.master.ssh(self.ip, f"rekindle --config /etc/rekindle-cluster.toml --state /var/lib/rk master {words}",
                                   timeout=600)

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
