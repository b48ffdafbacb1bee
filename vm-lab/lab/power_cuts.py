"""Power cuts: QEMU is killed at one point of the installation after the other, each time the machine
comes back alone, and in the end it is a node.

A point is an event, never a time: a line on the console since the last start, or a stage in the journal.
"""

import re
import time
from dataclasses import dataclass

from .master import Settings
from .proof import service_rows
from .session import INSTALL_SECONDS, Lab
from .shell import LabError, say
from .vm import Vm

# Of one permission to install: iPXE gets 10 scripts and 10 kickstarts at the most (README, BOOTS_MAX).
TRIES, CUTS_OF_ONE_PERMISSION = 10, 8


@dataclass(frozen=True)
class Point:
    """Where the power goes: when the console shows `line`, the packages are so far, or a stage is reported."""

    name: str
    line: str = ""
    packages: int = 0
    stage: str = ""

    def reached(self, console: str, stages: list[str]) -> bool:
        """Whether it is there: by the console, and by the stages reported, since the machine was started."""
        if self.stage:
            return self.stage in stages
        if not self.packages:
            return re.search(self.line, console) is not None
        found = re.findall(r"Installing \S+ \((\d+)/(\d+)\)", console)
        return bool(found) and int(found[-1][0]) * 100 >= int(found[-1][1]) * self.packages


POINTS = [
    Point("firmware", line=r"iPXE|SeaBIOS|PXEv4|UEFI"),
    Point("script", line=r"what can this computer run"),
    Point("kernel", line=r"/vmlinuz\.\.\."),
    Point("initrd", line=r"/initrd\.img\.\.\."),
    Point("stage1", line=r"stand-in for Anaconda, stage 1"),
    Point("stage2", line=r"stage1 \S+ kickstart of"),
    Point("pre", stage="pre"),
    Point("disk", stage="disk"),
    Point("partitioned", line=r"installer \S+ disk is ready"),
    Point("packages-10", packages=10),
    Point("packages-50", packages=50),
    Point("packages-95", packages=95),
    Point("boot-loader", line=r"installer \S+ packages are in"),
    Point("post", stage="post"),
    Point("installed", stage="installed"),
    Point("first-boot", line=r"boots its own disk(?s:.*)systemd\[1\]"),
]


def chosen(words: str | None) -> list[Point]:
    """`--points`: all, so many spread over all, or those named."""
    if not words:
        return POINTS
    if words.isdigit():
        count = min(max(int(words), 1), len(POINTS))
        return [POINTS[(2 * index + 1) * len(POINTS) // (2 * count)] for index in range(count)]
    names = words.split(",")
    unknown = set(names) - {point.name for point in POINTS}
    if unknown:
        raise LabError(f"there is no point {', '.join(sorted(unknown))}; there are {', '.join(point.name for point in POINTS)}")
    return [point for point in POINTS if point.name in names]


def power_cuts(lab: Lab) -> None:
    """The power fails at 16 points of an installation (--points), nobody helps, it ends as a node."""
    points = chosen(lab.options.points)
    lab.serve(Settings([lab.medium], tries=TRIES))
    vm = lab.machine(lab.hardware())
    vm.plug_in()
    name = lab.add(vm)
    since = 0.0
    for first in range(0, len(points), CUTS_OF_ONE_PERMISSION):
        if first:
            say("another permission to install, for the other points")
            vm.power_off()
            lab.master.rekindle("node", "reinstall", name)
        since = one_permission(lab, vm, name, points[first:first + CUTS_OF_ONE_PERMISSION])
        if not lab.proof.holds():
            return
    say(f"the last cut was {time.monotonic() - since:.0f} s before it was ready")
    service_rows(lab.proof, lab.master, lab.master.nodes()[name]["ip"], name, lab.medium)


def one_permission(lab: Lab, vm: Vm, name: str, points: list[Point]) -> float:
    """Cuts at the points, then lets it come to its end. When the last cut was."""
    released = lab.master.released()
    for point in points:
        lab.phases.begin(f"cut at {point.name}")
        lab.proof.check("C3", f"power cut at {point.name}", lambda: cut(lab, vm, point))
    lab.phases.begin("the rest")
    cut_at = time.monotonic()
    vm.power_on()

    def ready():
        lab.follow([name])
        tries = lab.master.released() - released
        return True, f"{len(points)} cuts, {tries} kickstarts released, no key pressed"
    lab.proof.check("C3", f"{name} is ready after {len(points)} power cuts", ready)
    return cut_at


def cut(lab: Lab, vm: Vm, point: Point) -> tuple[bool, str]:
    """Starts the machine and kills it at the point."""
    seen, known = len(vm.console_text()), len(lab.master.events())
    vm.power_on()
    end = time.monotonic() + INSTALL_SECONDS
    while True:
        console = vm.console_text()[seen:]
        events = lab.master.events()[known:] if point.stage else []
        if point.reached(console, [event["report"]["stage"] for event in events if event["event"] == "reported"]):
            break
        if not vm.is_on():
            raise LabError(f"QEMU ended before {point.name}; see its qemu.log")
        if time.monotonic() > end:
            raise LabError(f"{point.name} was not reached within {INSTALL_SECONDS} s")
        time.sleep(0.1)
    vm.power_off()
    lines = [line for line in console.splitlines() if line.strip()]
    return True, f"last line of its console: {lines[-1].strip()[-80:] if lines else 'none'}"


STORIES = {"power-cuts": power_cuts}
