"""What is installed: the test distribution, or a real tree or DVD."""

import configparser
from dataclasses import dataclass
from pathlib import Path

from . import distro
from .distro import Distro
from .shell import LabError, run, say


@dataclass(frozen=True)
class Medium:
    """An install tree and what it needs."""

    tree: Path
    repo: Path | None
    keys: list[Path]
    os: str
    scheduler: str
    memory_mib: int
    disk_gib: int
    probe: Distro
    real_media: bool

    @classmethod
    def of(cls, built: Distro) -> "Medium":
        """The test distribution."""
        return cls(built.tree, built.repo, [built.key], "el9", "torque", 2048, 12, built, False)

    @classmethod
    def real(cls, source: Path, run_dir: Path) -> "Medium":
        """A real tree, or a DVD image unpacked. Torque is in no vendor's tree: no batch system."""
        if not source.exists():
            raise LabError(f"{source} does not exist")
        folder = source.resolve()
        if folder.is_file():
            say(f"unpacking {folder}")
            folder = run_dir.parent / "media" / source.stem
            if not (folder / ".treeinfo").exists():
                folder.mkdir(parents=True, exist_ok=True)
                run("bsdtar", "-xf", source.resolve(), "-C", folder)
        info = configparser.ConfigParser(strict=False, interpolation=None)
        if not info.read(folder / ".treeinfo"):
            raise LabError(f"{folder} has no .treeinfo; name a whole DVD or install tree")
        version = info.get("release", "version", fallback=info.get("general", "version", fallback=""))
        keys = sorted(folder.glob("RPM-GPG-KEY*"))
        return cls(folder, None, keys, f"el{version.split('.')[0]}", "none", 3072, 20, distro.build(), True)
