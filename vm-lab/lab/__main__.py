"""./vm-lab/up and ./vm-lab/down."""

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path

from . import distro, installing, net, power_cuts, scenarios
from .releases import RELEASES
from .session import conduct
from .shell import LAB, RUN, WORK, LabError, main_guard, run, say


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vm-lab", description="Installs blank virtual machines and proves the result.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="the whole job, from nothing to the proof table", epilog=scenarios.told(),
                             formatter_class=argparse.RawDescriptionHelpFormatter)
    up.add_argument("--firmware", choices=["bios", "uefi"], default="bios", help="of the virtual machines (default: bios)")
    up.add_argument("--release", type=int, choices=RELEASES, help="the Enterprise Linux whose ways the test distribution "
                    "follows (default: 9, with --old 8)")
    up.add_argument("--nodes", type=int, default=1, metavar="N", help="how many machines (default: 1)")
    up.add_argument("--old", action="store_true", help="an old machine: e1000, IDE, Core 2, 1 GiB of memory, release 8")
    up.add_argument("--reinstall", action="store_true", help="also reinstall the first node and prove that")
    up.add_argument("--scenario", choices=sorted(scenarios.ALL), metavar="NAME", help="another story than the usual one, see below")
    up.add_argument("--points", metavar="N|NAME,…", help="cut the power at N points of the first node's installation, or at those named")
    up.add_argument("--keep", action="store_true", help="leave everything running; ./vm-lab/down ends it")
    up.add_argument("--tree", type=Path, metavar="DIR|ISO", help="a real CentOS, AlmaLinux or Rocky tree or DVD instead of "
                    "the test distribution (no such medium was at hand when this was written: not run)")
    up.add_argument("--json", type=Path, metavar="FILE", help="write rows, evidence and seconds")
    down = commands.add_parser("down", help="end everything that up left running")
    down.add_argument("--cache", action="store_true", help="also remove the built test distribution")
    return parser.parse_args()


def up(options: argparse.Namespace) -> int:
    """Checks what the parser cannot, and runs the story."""
    if not 1 <= options.nodes <= 20:
        raise LabError("--nodes takes 1 to 20")
    if options.points and options.scenario not in (None, "power-cuts"):
        raise LabError("--points goes with the usual story and with --scenario power-cuts")
    if options.scenario and (options.old or options.reinstall or options.nodes != 1 or options.tree):
        raise LabError("a scenario goes with --release, --firmware, --keep and --json only")
    options.release = options.release or (8 if options.old else 9)
    if options.points:
        power_cuts.chosen(options.points)
    return conduct(options, scenarios.ALL[options.scenario] if options.scenario else installing.story)


def down(options: argparse.Namespace) -> int:
    """Ends what `up --keep` left."""
    spaces = net.existing()
    ended = len(net.inhabitants(spaces))
    net.down()
    shutil.rmtree(RUN, ignore_errors=True)
    say(f"ended {ended} processes, removed {len(spaces)} namespaces")
    if options.cache:
        distro.remove(WORK)
    elif WORK.exists():
        size = run("du", "-sh", WORK).stdout.split()[0]
        say(f"the built test distribution stays in {WORK} ({size}); ./vm-lab/down --cache removes it")
    return 0


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
