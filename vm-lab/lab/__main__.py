"""./vm-lab/up and ./vm-lab/down."""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from . import distro, net, proof as proving, tree
from .master import Master, build_binary
from .proof import Proof
from .report import Phases, write_json
from .shell import LAB, WORK, LabError, main_guard, run, say, wait_for
from .vm import Vm, accelerator, say_console

RUN = WORK / "run"
STATE = RUN / "processes.json"
INSTALL_SECONDS = 3600


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vm-lab", description="Installs blank virtual machines and proves the result.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="the whole job, from nothing to the proof table")
    up.add_argument("--firmware", choices=["bios", "uefi"], default="bios", help="of the virtual machines (default: bios)")
    up.add_argument("--nodes", type=int, default=1, metavar="N", help="how many machines (default: 1)")
    up.add_argument("--old", action="store_true", help="an old machine: e1000, IDE, Core 2 features, 1 GiB of memory")
    up.add_argument("--reinstall", action="store_true", help="also reinstall the first node and prove that")
    up.add_argument("--keep", action="store_true", help="leave everything running; ./vm-lab/down ends it")
    up.add_argument("--tree", type=Path, metavar="DIR|ISO", help="a real CentOS, AlmaLinux or Rocky tree or DVD instead of "
                    "the test distribution (no such medium was at hand when this was written: not run)")
    up.add_argument("--json", type=Path, metavar="FILE", help="write rows, evidence and seconds")
    down = commands.add_parser("down", help="end everything that up left running")
    down.add_argument("--cache", action="store_true", help="also remove the built test distribution")
    return parser.parse_args()


def remember(master: Master, vms: list[Vm]) -> None:
    """Writes down which processes are ours, for `down`."""
    running = [(process.pid, name) for vm in vms for process, name in ((vm.process, "qemu"), (vm.capture, "tcpdump"))
               if process]
    running += master.processes()
    STATE.write_text(json.dumps(running))


def end_remembered() -> int:
    """Ends what an earlier run left, by pid, and only if it is still that program."""
    if not STATE.exists():
        return 0
    ended = 0
    for pid, name in json.loads(STATE.read_text()):
        comm = Path(f"/proc/{pid}/comm")
        if comm.exists() and comm.read_text().startswith(name):
            os.kill(pid, signal.SIGTERM)
            ended += 1
            for _ in range(100):
                if not comm.exists() or Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
                    break
                time.sleep(0.1)
    STATE.unlink()
    return ended


def down(options) -> int:
    ended = end_remembered()
    spaces = len(net.existing())
    net.down()
    shutil.rmtree(RUN, ignore_errors=True)
    say(f"ended {ended} processes, removed {spaces} namespaces")
    if options.cache:
        shutil.rmtree(WORK, ignore_errors=True)
    elif WORK.exists():
        size = run("du", "-sh", WORK).stdout.split()[0]
        say(f"the built test distribution stays in {WORK} ({size}); ./vm-lab/down --cache removes it")
    return 0


def follow(master: Master, vms: list[Vm], names: list[str], until: str, seconds: float) -> None:
    """Live progress until every node is there, told stage by stage."""
    told: dict[str, tuple] = {}
    end = time.monotonic() + seconds
    while True:
        nodes = master.nodes()
        for name in names:
            node = nodes[name]
            packages = node.get("packages")
            now = (node["stage"], (packages or {}).get("done"))
            if now != told.get(name):
                told[name] = now
                more = f" {packages['done']}/{packages['total']}" if packages and node["stage"] == "packages" else ""
                say(f"  {name}: {node['stage']}{more}")
            if node["stage"] in ("failed", "held"):
                raise LabError(f"{name} is {node['stage']}: {' '.join(str(node.get('detail')).split())[-400:]}")
        if all(nodes[name]["stage"] == until for name in names):
            return
        dead = [vm.name for vm in vms if not vm.is_on()]
        if dead:
            raise LabError(f"QEMU of {', '.join(dead)} ended; see its qemu.log in {RUN}")
        if time.monotonic() > end:
            raise LabError(f"not all nodes were {until} within {seconds:.0f} s")
        time.sleep(1)


def up(options) -> int:
    if not 1 <= options.nodes <= 20:
        raise LabError("--nodes takes 1 to 20")
    phases, proof = Phases(), Proof()
    if end_remembered() or net.existing():
        say("an earlier run was still there and is ended")
    net.down()
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    phases.begin("build rekindle")
    say("building rekindle")
    build_binary(RUN / "cargo.log")
    phases.begin("build distribution")
    medium = tree.Medium.real(options.tree, RUN) if options.tree else tree.Medium.of(distro.build())
    validator = ks_validator()
    phases.begin("accelerator")
    accel = accelerator(medium.probe)
    say(f"accelerator: {accel}")
    master = Master(RUN)
    vms = [Vm(f"vm{number}", number, options.firmware, accel, RUN, old=options.old, disk_gib=medium.disk_gib,
              memory_mib=1024 if options.old else medium.memory_mib) for number in range(1, options.nodes + 1)]
    failed = True
    try:
        prove(options, medium, master, vms, proof, phases, validator)
        failed = not proof.holds()
    finally:
        phases.begin(None)
        if options.json:
            about = {"firmware": options.firmware, "nodes": options.nodes, "old": options.old, "accelerator": accel}
            write_json(options.json, proof, phases, about)
        if failed:
            for vm in vms:
                say_console(vm)
            say(f"consoles, packets and rekindle's log are kept in {RUN}")
        if not options.keep:
            for vm in vms:
                vm.unplug()
            master.stop()
            net.down()
            STATE.unlink(missing_ok=True)
            for vm in vms:
                vm.disk.unlink(missing_ok=True)
        else:
            say("everything keeps running; ./vm-lab/down ends it")
    print(proof.table(), flush=True)
    return 1 if failed else 0


def prove(options, medium, master: Master, vms: list[Vm], proof: Proof, phases: Phases, validator: Path) -> None:
    """The main job."""
    phases.begin("network and server")
    net.up()
    master.configure(medium.tree, medium.repo, medium.keys, medium.os, medium.scheduler)
    master.neighbours()
    remember(master, vms)
    master.serve()
    say(f"rekindle serves on eth1 of the master's namespace; its log is {master.log}")
    for vm in vms:
        vm.plug_in()
    remember(master, vms)
    phases.begin("unknown machine waits")
    first, rest = vms[0], vms[1:]
    say("a blank machine that nobody knows is powered on")
    first.power_on()
    remember(master, vms)

    def waits():
        wait_for(f"{first.mac} is listed as waiting", 600, lambda: first.mac in master.waiting(), every=1)
        wait_for(f"{first.name} shows the hold screen", 600, lambda: first.mac in first.console_text()
                 and "this machine waits" in first.console_text(), every=1)
        return first.disk_is_blank(), "it is listed, its screen says that it waits, its disk is untouched"
    proof.check("C4", "an unknown machine is listed, waits, and its disk is not touched", waits)
    phases.begin("install")
    say("it is added by its MAC" + (", the others are added before they are powered on" if rest else ""))
    names = [f"worker{vm.number}" for vm in vms]
    for vm, name in zip(vms, names):
        master.rekindle("node", "add", name, "--mac", vm.mac)
    for vm in rest:
        vm.power_on()
    remember(master, vms)

    def installed():
        follow(master, vms, names, "ready", INSTALL_SECONDS * len(vms))
        released = sum(event["event"] == "released" for event in master.events())
        return released == len(vms), f"{released} kickstarts were released to {len(vms)} machines, no key was pressed"
    proof.check("C3", f"blank disk to ready, unattended ({options.firmware})", installed)
    if not proof.holds():
        return
    phases.begin("proof")
    nodes = master.nodes()
    for vm, name in zip(vms, names):
        proving.kickstart_row(proof, master, name, validator)
        proving.node_rows(proof, master, nodes[name], vm, medium.real_media)
    if len(vms) > 1:
        proving.pair_rows(proof, master, nodes[names[0]], nodes[names[1]])
    proving.uplink_rows(proof)
    phases.begin("power cycle")
    say("the plug is pulled and put back")
    proving.power_cycle_row(proof, master, nodes[names[0]], first)
    remember(master, vms)
    if options.reinstall:
        phases.begin("reinstall")
        proof.check("C3", "node reinstall installs again", lambda: reinstall(master, first, names[0]))
        remember(master, vms)


def reinstall(master: Master, vm: Vm, name: str):
    """Arms an installed node again and cycles its power."""
    say(f"{name} is armed again and its power is cycled")
    ip = master.nodes()[name]["ip"]
    master.ask(ip, "touch /root/from-the-first-life && sync")
    master.rekindle("node", "reinstall", name)
    vm.power_off()
    time.sleep(1)
    vm.power_on()
    follow(master, [vm], [name], "ready", INSTALL_SECONDS)
    left = master.ssh(ip, "ls /root/from-the-first-life")
    return left.returncode != 0, f"it is ready again, ssh raised no alarm, nothing of its first life is left ({left.stderr.strip()})"


def ks_validator() -> Path:
    """pykickstart's own validator, in an environment of its own."""
    venv = WORK / "venv"
    validator = venv / "bin/ksvalidator"
    if not validator.exists():
        run("python3", "-m", "venv", venv)
        run(venv / "bin/pip", "install", "-q", "pykickstart==3.78")
    return validator


def main() -> int:
    options = arguments()
    WORK.mkdir(exist_ok=True)
    if os.geteuid():
        raise LabError("namespaces and package installs need root; run it as root")
    return up(options) if options.command == "up" else down(options)


if __name__ == "__main__":
    os.chdir(LAB)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main_guard(main)
