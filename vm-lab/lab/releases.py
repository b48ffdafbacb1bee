"""Install trees of the releases: one distribution, told apart by .treeinfo and by what boots."""

import fcntl
import hashlib
import os
import shutil
import time
from pathlib import Path

from . import distro
from .distro import BOOT, Distro
from .shell import WORK, run

RELEASES = (7, 8, 9, 10)
SUMMED = ("images/install.img", "images/pxeboot/initrd.img", "images/pxeboot/vmlinuz", "repodata/repomd.xml")


def fingerprint(built: Distro) -> str:
    """Changes with the distribution, the installer and this file."""
    digest = hashlib.sha256(built.dir.name.encode())
    for file in sorted([*BOOT.rglob("*"), Path(__file__)]):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def folder(built: Distro) -> Path:
    """Where all that is made of the distribution lies. Made once, by the first who asks."""
    with (WORK / "trees.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dir = WORK / "trees" / fingerprint(built)
        if not (dir / "complete").exists():
            for old in (WORK / "trees").glob("*"):
                # Younger ones may be served to a lab that runs.
                if time.time() - old.stat().st_mtime > 86400:
                    shutil.rmtree(old)
            shutil.rmtree(dir, ignore_errors=True)
            dir.mkdir(parents=True)
            make(built, dir)
            (dir / "complete").touch()
        return dir


def make(built: Distro, dir: Path) -> None:
    """The installer's initrd, the workshop's, and a tree of hard links for each release."""
    early = dir / "early"
    run("cp", "-a", built.early, early)
    shutil.copytree(BOOT / "installer", early / "installer", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(BOOT / "udhcpc.sh", early / "udhcpc.sh")
    (early / "udhcpc.sh").chmod(0o755)
    initrd = dir / "initrd.img"
    distro.initramfs(early, BOOT / "stage1-init.sh", initrd)
    distro.initramfs(early, BOOT / "workshop-init.sh", dir / "workshop.img")
    shutil.rmtree(early)
    for release in RELEASES:
        tree = dir / f"el{release}"
        run("cp", "-al", built.tree, tree)
        os.link(initrd, tree / "images/pxeboot/initrd.img")
        treeinfo(tree, release)
    os.sync()


def treeinfo(tree: Path, release: int) -> None:
    """Describes the tree as productmd does, checksums included."""
    sums = [f"{name} = sha256:{hashlib.sha256((tree / name).read_bytes()).hexdigest()}" for name in SUMMED]
    text = (BOOT / "treeinfo").read_text()
    text = text.replace("@VERSION@", str(release)).replace("@CHECKSUMS@", "\n".join(sums))
    (tree / ".treeinfo").write_text(text)


def tree_of(built: Distro, release: int) -> Path:
    """The install tree of a release."""
    return folder(built) / f"el{release}"


def workshop_of(built: Distro) -> Path:
    """The initrd of the workshop (workshop.py)."""
    return folder(built) / "workshop.img"
