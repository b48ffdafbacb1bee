"""One run of the lab: namespaces, master, machines, and what is proven; whatever happens, it is ended."""

import argparse
import shutil
import time
from pathlib import Path
from typing import Callable

from . import distro, net
from .master import Master, Settings, build_binary
from .proof import Proof
from .report import Phases, write_json
from .shell import RUN, WORK, LabError, run, say
from .tree import Medium
from .vm import Hardware, Vm, accelerator, say_console
from .workshop import Workshop

INSTALL_SECONDS = 3600


class Lab:
    """What a run works with. `options` are those of the command line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.phases, self.proof = options, Phases(), Proof()
        self.master, self.vms = Master(RUN), []
        self.names: dict[str, Vm] = {}

    def prepare(self) -> None:
        """Ends what an earlier run left; builds what is missing."""
        if net.existing():
            say("an earlier run was still there and is ended")
        net.down()
        shutil.rmtree(RUN, ignore_errors=True)
        RUN.mkdir(parents=True)
        self.phases.begin("build rekindle")
        say("building rekindle")
        build_binary(RUN / "cargo.log")
        self.phases.begin("build distribution")
        tree = getattr(self.options, "tree", None)
        self.medium = Medium.real(tree, RUN) if tree else self.release(self.options.release)
        self.validator = ks_validator()
        self.phases.begin("accelerator")
        self.accel = accelerator(self.medium.built)
        say(f"accelerator: {self.accel}")
        self.workshop = Workshop(self.medium.built, self.accel, RUN)

    def release(self, release: int) -> Medium:
        """The test distribution as a release."""
        return Medium.of(distro.build(), release)

    def serve(self, settings: Settings) -> None:
        """Network and server."""
        self.phases.begin("network and server")
        net.up()
        self.master.configure(settings)
        self.master.neighbours()
        self.master.serve()
        say(f"rekindle serves on eth1 of the master's namespace; its log is {self.master.log}")

    def machine(self, hardware: Hardware) -> Vm:
        """One more machine, off and with nothing plugged in."""
        vm = Vm(len(self.vms) + 1, hardware, self.accel, RUN)
        self.vms.append(vm)
        return vm

    def hardware(self, **more) -> Hardware:
        """What the medium needs, with the firmware of the command line."""
        cpu = "host" if self.accel == "kvm" else self.medium.cpu
        return Hardware(**{"firmware": self.options.firmware, "cpu": cpu, "memory_mib": self.medium.memory_mib,
                           "disk_gib": self.medium.disk_gib, **more})

    def add(self, vm: Vm, *words: str) -> str:
        """`node add`."""
        name = f"worker{vm.number}"
        self.master.rekindle("node", "add", name, "--mac", vm.mac, *words)
        self.names[name] = vm
        return name

    def cycle(self, vm: Vm) -> None:
        """The plug is pulled and put back."""
        vm.power_off()
        time.sleep(1)
        vm.power_on()

    def follow(self, names: list[str], until: str = "ready", fatal: tuple[str, ...] = ("failed", "held")) -> None:
        """Live progress until every node is there, told stage by stage."""
        told: dict[str, tuple] = {}
        end = time.monotonic() + INSTALL_SECONDS * len(names)
        while True:
            nodes = self.master.nodes()
            for name in names:
                tell(told, nodes[name])
                stage = nodes[name]["stage"]
                if stage in fatal and stage != until:
                    raise LabError(f"{name} is {stage}: {words_of(nodes[name])[-400:]}")
            if all(nodes[name]["stage"] == until for name in names):
                return
            dead = [name for name in names if not self.names[name].is_on()]
            if dead:
                raise LabError(f"QEMU of {', '.join(dead)} ended; see its qemu.log in {RUN}")
            if time.monotonic() > end:
                raise LabError(f"not all nodes were {until} within {INSTALL_SECONDS * len(names)} s")
            time.sleep(1)

    def finish(self, failed: bool) -> None:
        """Reports, and ends everything unless it is to be kept."""
        options = self.options
        self.phases.begin(None)
        if options.json:
            about = {"scenario": options.scenario, "release": options.release, "firmware": options.firmware,
                     "nodes": options.nodes, "old": options.old}
            write_json(options.json, self.proof, self.phases, about)
        if failed:
            for vm in self.vms:
                say_console(vm)
            say(f"consoles, packets and rekindle's log are kept in {RUN}")
        if options.keep:
            say("everything keeps running; ./vm-lab/down ends it")
            return
        self.end()

    def end(self) -> None:
        """Ends machines, server and namespaces; the disks go too, they are large."""
        for vm in self.vms:
            vm.unplug()
        self.master.stop()
        net.down()
        for file in [*RUN.glob("*.qcow2"), *RUN.glob("*.raw")]:
            file.unlink()


def tell(told: dict[str, tuple], node: dict) -> None:
    """One line when a node is further than it was."""
    packages = node.get("packages")
    now = (node["stage"], (packages or {}).get("done"))
    if now == told.get(node["name"]):
        return
    told[node["name"]] = now
    more = f" {packages['done']}/{packages['total']}" if packages and node["stage"] == "packages" else ""
    say(f"  {node['name']}: {node['stage']}{more}")


def words_of(node: dict) -> str:
    """What a node last said of itself, in one line."""
    return " ".join(str(node.get("detail")).split())


def conduct(options: argparse.Namespace, body: Callable[[Lab], None]) -> int:
    """Prepares, runs `body`, reports, ends. 0 when everything is proven."""
    lab = Lab(options)
    lab.prepare()
    failed = True
    try:
        body(lab)
        failed = not lab.proof.holds()
    finally:
        lab.finish(failed)
    print(lab.proof.table(), flush=True)
    return 1 if failed else 0


def ks_validator() -> Path:
    """pykickstart's own validator, in an environment of its own."""
    venv = WORK / "venv"
    validator = venv / "bin/ksvalidator"
    if not validator.exists():
        run("python3", "-m", "venv", venv)
        run(venv / "bin/pip", "install", "-q", "pykickstart==3.78")
    return validator
