"""Stories besides the usual one, each with its own proof: ./vm-lab/up --scenario NAME."""

from typing import Callable

from . import power_cuts, scenario_disks, scenario_firmware, scenario_master, scenario_nodes, scenario_packages
from .session import Lab

ALL: dict[str, Callable[[Lab], None]] = {**scenario_disks.STORIES, **scenario_nodes.STORIES, **scenario_master.STORIES,
                                         **scenario_packages.STORIES, **scenario_firmware.STORIES, **power_cuts.STORIES}


def told() -> str:
    """The list for --help."""
    width = max(map(len, ALL))
    lines = [f"  {name:{width}}  {' '.join((story.__doc__ or '').split())}" for name, story in ALL.items()]
    return "\n".join(["scenarios:", *lines])
