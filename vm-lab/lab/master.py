"""The master in its namespace: rekindle itself, its cluster.toml, and ssh to the nodes."""

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import net
from .tree import Medium
from .shell import CHECKOUT, LabError, last_line, run, wait_for

BINARY = CHECKOUT / "target/release/rekindle"

# As packaging/rekindle.service starts it: never root, with three capabilities. The fourth is the lab's: this
# checkout may lie where only root looks.
USER, GROUP = "nobody", "nogroup"
CAPABILITIES = ",".join(f"+{name}" for name in ("net_bind_service", "net_raw", "net_admin", "dac_read_search"))
AS_ITS_UNIT = ("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups", "--no-new-privs",
               f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}",
               f"--bounding-set=-all,{CAPABILITIES}")

# Its console is what is read. The test distribution's kernel (Debian 6.1.192) now and then spins in virtnet_poll for
# ever, mostly at its end: then it panics and starts again, instead of waiting for somebody.
KERNEL_ARGS = ("console=ttyS0", "softlockup_panic=1", "watchdog_thresh=60", "panic=5")

CLUSTER = """\
# The rekindle lab.
[network]
uplink = "eth0"
interface = "eth1"
address = "{master}/24"
workers = "{subnet}.10-{subnet}.99"
discovery = "{subnet}.200-{subnet}.240"
domain = "cluster.lan"
internet = false
dhcp = "{dhcp}"

{systems}
[defaults]
os = "{os}"
timezone = "Europe/Berlin"
keyboard = "us"
admin_keys = ["{admin_key}"]
kernel_args = "{kernel_args}"
tries = {tries}
disk = {{ {disk} }}

[scheduler]
kind = "{scheduler}"

[[users]]
name = "mpi"
uid = 1500
"""

SYSTEM = """\
[os.{os}]
tree = "{tree}"
{repo}gpg_keys = [{keys}]
{more}
"""


@dataclass
class Settings:
    """What a run wants of cluster.toml. The first medium is the default one."""

    media: list[Medium]
    disk: str = "min_gib = 4"
    tries: int = 3
    dhcp: str = "serve"
    # Further tables.
    more: str = ""
    # Further lines of [os.NAME].
    of_os: dict[str, str] = field(default_factory=dict)

    def system(self, medium: Medium, repo: Path) -> str:
        """The table of a medium."""
        return SYSTEM.format(
            os=medium.os, tree=medium.tree, repo=f'repo = "{repo}"\n' if medium.repo else "",
            keys=", ".join(f'"{key}"' for key in medium.keys), more=self.of_os.get(medium.os, ""))

    def text(self, admin_key: str, repo: Path) -> str:
        """cluster.toml without nodes. The cluster has a batch system if all its releases have it."""
        scheduler = "torque" if all(medium.has_torque for medium in self.media) else "none"
        return CLUSTER.format(
            master=net.MASTER_IP, subnet=net.SUBNET, os=self.media[0].os, tries=self.tries, disk=self.disk,
            systems="".join(self.system(medium, repo) for medium in self.media), scheduler=scheduler, admin_key=admin_key,
            kernel_args=" ".join(KERNEL_ARGS), dhcp=self.dhcp) + self.more


class Master:
    """rekindle serving in the master's namespace."""

    def __init__(self, run_dir: Path):
        self.dir = run_dir
        self.config = run_dir / "cluster.toml"
        self.state = run_dir / "state"
        self.repo = run_dir / "repo"
        self.log = run_dir / "rekindle.log"
        self.admin = run_dir / "admin_ed25519"
        self.process: subprocess.Popen | None = None
        self.sshd: subprocess.Popen | None = None
        self.internet: subprocess.Popen | None = None

    def configure(self, settings: Settings) -> None:
        """Writes cluster.toml, makes the admin's key and the cluster's own repository."""
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "admin@master", "-f", self.admin)
        self.config.write_text(settings.text(self.admin.with_suffix(".pub").read_text().strip(), self.repo))
        for source in {medium.repo for medium in settings.media if medium.repo}:
            run("cp", "-a", source, self.repo)

    def publish(self, package: Path) -> None:
        """One more package in the cluster's own repository, by hand."""
        run("cp", package, self.repo)
        run("createrepo_c", "-q", "--update", self.repo)

    def edit(self, old: str, new: str) -> None:
        """The owner edits cluster.toml: in one step, as editors do."""
        text = self.config.read_text()
        if old not in text:
            raise LabError(f"{self.config} holds no {old!r}")
        new_file = self.config.with_suffix(".new")
        new_file.write_text(text.replace(old, new, 1))
        new_file.rename(self.config)

    def serve(self) -> None:
        """Starts the server and waits until it serves."""
        log = self.log.open("ab")
        before = log.tell()
        self.state.mkdir(mode=0o700, exist_ok=True)
        run("chown", "-R", f"{USER}:{GROUP}", self.state)
        self.process = net.start(net.MASTER, *AS_ITS_UNIT, BINARY, "--config", self.config, "--state", self.state, "serve", log=log)

        def serving():
            said = self.log.read_bytes()[before:].decode(errors="replace")
            if self.process.poll() is not None:
                raise LabError(f"rekindle ended at once: {said.strip()[-300:]}")
            return re.search("serving (proxy )?DHCP", said)
        wait_for("rekindle serves", 30, serving, every=0.1)

    def neighbours(self) -> None:
        """What else is on a real network: the master's own sshd, and a host behind the uplink."""
        log = (self.dir / "neighbours.log").open("ab")
        key = self.dir / "sshd_ed25519"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        keys = self.dir / "sshd_authorized_keys"
        keys.write_text(self.admin.with_suffix(".pub").read_text())
        config = self.dir / "sshd_config"
        config.write_text(f"HostKey {key}\nAuthorizedKeysFile {keys}\nPidFile none\nStrictModes no\nUsePAM no\n"
                          "PermitRootLogin prohibit-password\nPasswordAuthentication no\n")
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.sshd = net.start(net.MASTER, "/usr/sbin/sshd", "-D", "-e", "-f", config, log=log)
        page = self.dir / "internet"
        page.mkdir()
        self.internet = net.start(net.INET, "python3", "-m", "http.server", "--bind", net.INET_IP, "--directory", page, "80",
                                  log=log)
        from_here = net.inside(net.MASTER)
        wait_for("the host behind the uplink answers the master", 60,
                 lambda: run(*from_here, "nc", "-z", "-w", "2", net.INET_IP, "80", check=False).returncode == 0)
        wait_for("the master's sshd answers", 60,
                 lambda: run(*from_here, "nc", "-z", "-w", "2", net.MASTER_IP, "22", check=False).returncode == 0)

    def stop(self) -> None:
        """Ends the server as systemd would, and its neighbours."""
        self.end_of(self.process, self.sshd, self.internet)

    def away(self, seconds: float) -> None:
        """The server is not there for a while."""
        self.end_of(self.process)
        time.sleep(seconds)
        self.serve()

    @staticmethod
    def end_of(*processes: subprocess.Popen | None) -> None:
        """Ends those that run."""
        for process in processes:
            if process and process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def rekindle(self, *words) -> str:
        """One of the owner's commands."""
        return run(BINARY, "--config", self.config, "--state", self.state, *words).stdout

    def push(self, *words) -> subprocess.CompletedProcess:
        """`rekindle push`, from where the nodes can be reached."""
        return run(*net.inside(net.MASTER), BINARY, "--config", self.config, "--state", self.state, "push", *words, check=False)

    def nodes(self) -> dict[str, dict]:
        """`node list`, by name."""
        return {node["name"]: node for node in json.loads(self.rekindle("node", "list", "--json"))}

    def waiting(self) -> list[str]:
        """MACs of machines that wait to be added."""
        return [machine["mac"] for machine in json.loads(self.rekindle("machines", "--json"))]

    def events(self) -> list[dict]:
        """The journal."""
        return [json.loads(line) for line in self.rekindle("log", "--json").splitlines()]

    def released(self) -> int:
        """How many kickstarts left so far, not counting what one boot asks for again."""
        return sum(event["event"] == "released" for event in self.events())

    def known_hosts(self) -> Path:
        """One line: every host that the cluster's authority signed is known. Nothing is learnt."""
        file = self.dir / "known_hosts"
        file.write_text(f"@cert-authority * {(self.state / 'secrets/host_ca.pub').read_text()}")
        return file

    def ssh(self, address: str, command: str, key: Path | None = None, namespace: str = net.MASTER, user: str = "root",
            timeout: float = 180, input: bytes | None = None) -> subprocess.CompletedProcess:
        """Runs a command on a node. Host keys must carry the cluster's signature."""
        return run(*net.inside(namespace), "ssh", "-F", "/dev/null", "-i", key or self.admin, "-o", "BatchMode=yes",
                   "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=30",
                   "-o", f"UserKnownHostsFile={self.known_hosts()}", "-o", "GlobalKnownHostsFile=/dev/null",
                   "-o", "LogLevel=ERROR", f"{user}@{address}", command, check=False, timeout=timeout, input=input)

    def ask(self, address: str, command: str, **more) -> str:
        """The same for commands that must work."""
        done = self.ssh(address, command, **more)
        if done.returncode:
            raise LabError(f"on {address}, `{command[:80]}` ended with {done.returncode}: {last_line(done)}")
        return done.stdout


def build_binary(log: Path) -> None:
    """cargo build --release."""
    run("cargo", "build", "--release", "--locked", cwd=CHECKOUT, log=log, env=dict(os.environ))
