"""What is installed: the test distribution as one of the releases, or a real tree or DVD."""

import configparser
from dataclasses import dataclass
from pathlib import Path

from . import distro, releases
from .distro import Distro
from .shell import LabError, run, say


@dataclass(frozen=True)
class Medium:
    """An install tree and what it needs."""

    tree: Path
    repo: Path | None
    keys: list[Path]
    release: int
    memory_mib: int
    disk_gib: int
    built: Distro
    real_media: bool

    os = property(lambda self: f"el{self.release}")
    # Packages of torque exist for EL7 and EL9. It is in no vendor's tree.
    has_torque = property(lambda self: not self.real_media and self.release in (7, 9))
    uses_nft = property(lambda self: self.release >= 9)
    # EL9 is built for x86-64-v2, EL10 for v3. QEMU's own default is less than that.
    cpu = property(lambda self: "max" if self.release >= 10 else "Nehalem")

    @classmethod
    def of(cls, built: Distro, release: int) -> "Medium":
        """The test distribution. Its installer gets along with less, but %pre wants what EL wants."""
        return cls(releases.tree_of(built, release), built.repo, [built.key], release, 2048, 12, built, False)

    @classmethod
    def real(cls, source: Path, run_dir: Path) -> "Medium":
        """A real tree, or a DVD image unpacked."""
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
        release = int(version.split(".")[0]) if version.split(".")[0].isdigit() else 0
        if release not in releases.RELEASES:
            raise LabError(f"{folder} is release {version!r}; rekindle installs {releases.RELEASES}")
        keys = sorted(folder.glob("RPM-GPG-KEY*"))
        return cls(folder, None, keys, release, 3072, 20, distro.build(), True)
