"""Disks: what earlier lives left on them, the partition table, file systems, mounts.

As Anaconda does it, with sfdisk and mkfs: one disk, plain partitions, kept partitions untouched.
"""

import json
import os
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, Refused, log, out, sh

MIB = 2048  # sectors of 512 bytes
GPT_TYPES = {"biosboot": "21686148-6449-6E6F-744E-656564454649", "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
             "/boot/efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"}
GPT_LINUX, DOS_LINUX, DOS_SWAP, DOS_ESP = "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "83", "82", "ef"


def assemble_old() -> None:
    """Starts arrays and volume groups of earlier lives, as udev does in Anaconda's environment: what
    %pre does not take apart holds the disk. Arrays start read-only until somebody writes."""
    start_ro = Path("/sys/module/md_mod/parameters/start_ro")
    if start_ro.exists():
        start_ro.write_text("1")
    quiet = {"check": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    sh("mdadm", "--assemble", "--scan", **quiet)
    sh("vgscan", "--mknodes", **quiet)
    sh("vgchange", "-ay", **quiet)


def report_old() -> str:
    """What of earlier lives is running now."""
    arrays = [line.split()[0] for line in Path("/proc/mdstat").read_text().splitlines() if " : " in line
              and line.startswith("md")] if Path("/proc/mdstat").exists() else []
    volumes = out("lvs", "--noheadings", "-o", "lv_full_name", "-S", "lv_active=active", check=False).split()
    return f"arrays: {' '.join(arrays) or 'none'}; active volumes: {' '.join(volumes) or 'none'}"


def digit(disk: str) -> str:
    """What stands between a disk's name and a partition's number."""
    return "p" if disk[-1].isdigit() else ""


@dataclass
class Part:
    """One partition that is wanted."""

    mount: str
    fs: str | None
    size: int | None  # MiB, None: what is left
    label: str | None = None
    kept: str | None = None  # the device, when it stays as it is
    number: int = 0
    start: int = 0  # sectors
    length: int = 0


class Disk:
    """The one disk that ignoredisk --only-use names."""

    def __init__(self, handler, efi: bool, release: int) -> None:
        [self.name] = handler.ignoredisk.onlyuse
        clear = handler.clearpart
        if (clear.drives or [self.name]) != [self.name] or handler.bootloader.bootDrive != self.name:
            raise Refused("clearpart and bootloader must name the disk of ignoredisk --only-use")
        self.device, self.efi, self.fstab = f"/dev/{self.name}", efi, []
        self.mounts: list[tuple[str, str]] = []
        self.root_uuid = self.boot_uuid = None
        self.old = self.read_table()
        self.whole = bool(clear.initAll) or not self.old
        self.label = self.choose_label(clear.disklabel, release)
        self.stay = self.choose_stay(clear)
        self.wanted = self.plan(handler)

    def read_table(self) -> dict:
        """sfdisk's view of what is there."""
        table = out("sfdisk", "-J", self.device, check=False)
        return json.loads(table)["partitiontable"] if table.strip() else {}

    def sectors(self) -> int:
        """Size of the disk."""
        return int(Path(f"/sys/block/{self.name}/size").read_text())

    def choose_label(self, asked: str | None, release: int) -> str:
        """As Anaconda: GPT under UEFI, on large disks and from EL10 on, else msdos, unless it is told."""
        if not self.whole:
            label = "gpt" if self.old["label"] == "gpt" else "msdos"
            if self.efi and label != "gpt":
                raise Refused(f"{self.device}: UEFI needs a GPT, and its {label} label is to stay")
            return label
        large = self.sectors() >= 1 << 32
        return asked or ("gpt" if self.efi or release >= 10 or large else "msdos")

    def choose_stay(self, clear) -> list[dict]:
        """The partitions that clearpart leaves alone."""
        from pykickstart.constants import CLEARPART_TYPE_ALL, CLEARPART_TYPE_LIST
        if self.whole and clear.type != CLEARPART_TYPE_ALL:
            # Anaconda would go by clearpart; here nothing may be lost by a word that is missing.
            raise Refused("a new disk label without clearpart --all")
        if clear.type == CLEARPART_TYPE_ALL:
            return []
        gone = {f"/dev/{name}" for name in clear.devices} if clear.type == CLEARPART_TYPE_LIST else set()
        there = {part["node"] for part in self.old["partitions"]}
        if gone - there:
            raise Refused(f"clearpart --list names what is not there: {sorted(gone - there)}")
        return [part for part in self.old["partitions"] if part["node"] not in gone]

    def plan(self, handler) -> list[Part]:
        """The partitions that will be there, kept ones included."""
        parts = []
        if handler.reqpart.reqpart:
            if self.efi:
                parts.append(Part("/boot/efi", "vfat", 200))
            elif self.label == "gpt":
                parts.append(Part("biosboot", None, 1))
            if handler.reqpart.addBoot:
                # Anaconda takes the default file system, xfs; this one ext4, for Debian's grub.
                parts.append(Part("/boot", "ext4", 512))
        for part in sorted(handler.partition.partitions, key=lambda part: bool(part.grow)):
            parts.append(self.asked(part))
        return parts

    def asked(self, part) -> Part:
        """A `part` command."""
        if part.mountpoint != "swap" and not part.mountpoint.startswith("/"):
            raise Refused(f"part {part.mountpoint}")
        if bool(part.onPart) == bool(part.format):
            raise Refused(f"part {part.mountpoint}: --onpart and --noformat are carried out together only")
        if part.onPart:
            device = f"/dev/{part.onPart.removeprefix('/dev/')}"
            if device not in [old["node"] for old in self.stay]:
                raise Refused(f"part {part.mountpoint}: {device} does not stay on {self.device}")
            return Part(part.mountpoint, None, None, kept=device)
        size = 256 if part.recommended else part.size
        return Part(part.mountpoint, part.fstype or "ext4", None if part.grow else size, part.label or None)

    def prepare(self) -> None:
        """Partitions, formats and mounts the disk. What still holds it stops the installation."""
        self.refuse_held()
        if [part for part in self.wanted if not part.kept]:
            self.allocate()
            self.write_table()
        for part in self.wanted:
            self.format(part)
        for mount, device in sorted(self.mounts):
            (ROOT / mount.lstrip("/")).mkdir(parents=True, exist_ok=True)
            sh("mount", device, ROOT / mount.lstrip("/"))

    def refuse_held(self) -> None:
        """As Anaconda's check: arrays and volume groups of earlier lives must be gone from this disk."""
        holders = [holder.name for holder in Path(f"/sys/block/{self.name}").glob("**/holders/*")]
        if holders:
            raise RuntimeError(f"{self.device} is held by {' '.join(sorted(holders))}; {report_old()}")
        members = [line for line in out("pvs", "--noheadings", "-o", "pv_name,vg_name", check=False).splitlines()
                   if self.device in line]
        if members:
            raise RuntimeError(f"{self.device} carries a volume group: {members}")

    def free(self) -> list[list[int]]:
        """Free room as [start, end) in sectors, by place, on whole MiB."""
        end = self.sectors() - (34 if self.label == "gpt" else 0)
        regions, at = [], MIB
        for part in sorted(self.stay, key=lambda part: part["start"]):
            regions.append([at, part["start"]])
            at = part["start"] + part["size"]
        regions.append([at, end])
        whole = [[-(-start // MIB) * MIB, stop // MIB * MIB] for start, stop in regions]
        return [[start, stop] for start, stop in whole if stop > start]

    def allocate(self) -> None:
        """Gives every new partition a number and a place."""
        taken = {int(part["node"].removeprefix(self.device + digit(self.name))) for part in self.stay}
        numbers = (number for number in range(1, 129) if number not in taken)
        regions = self.free()
        for part in self.wanted:
            if part.kept:
                continue
            need = (part.size or 1) * MIB
            if part.size is None:
                regions.sort(key=lambda region: region[0] - region[1])
            region = next((region for region in regions if region[1] - region[0] >= need), None)
            if not region:
                raise RuntimeError(f"no room for {part.mount} of {part.size} MiB on {self.device}")
            part.number, part.start = next(numbers), region[0]
            part.length = need if part.size else region[1] - region[0]
            region[0] += part.length
        if self.label == "msdos" and max(part.number for part in self.wanted) > 4:
            raise Refused("extended partitions are not carried out")

    def write_table(self) -> None:
        """One table: what stays as it was, to the letter, and what is new."""
        lines = [f"label: {'gpt' if self.label == 'gpt' else 'dos'}", "unit: sectors"]
        if not self.whole:
            lines += [f"label-id: {self.old['id']}"] + [f"{key}: {self.old[word]}" for key, word in
                                                       (("first-lba", "firstlba"), ("last-lba", "lastlba"))
                                                       if word in self.old]
        for part in self.stay:
            more = "".join(f", {key}={part[key]}" for key in ("uuid", "attrs") if key in part)
            more += f', name="{part["name"]}"' if "name" in part else ""
            more += ", bootable" if part.get("bootable") else ""
            lines.append(f"{part['node']} : start={part['start']}, size={part['size']}, type={part['type']}{more}")
        for part in self.wanted:
            if not part.kept:
                lines.append(f"{self.node(part)} : start={part.start}, size={part.length}, type={self.type_of(part)}")
        log(" | ".join(lines), "storage")
        sh("sfdisk", "-q", "--wipe", "always" if self.whole else "never", self.device, input="\n".join(lines).encode())
        sh("sync")

    def node(self, part: Part) -> str:
        """The device of a new partition."""
        return f"{self.device}{digit(self.name)}{part.number}"

    def type_of(self, part: Part) -> str:
        """Its type in the table."""
        if self.label == "gpt":
            return GPT_TYPES.get(part.mount, GPT_LINUX)
        return {"swap": DOS_SWAP, "/boot/efi": DOS_ESP}.get(part.mount, DOS_LINUX)

    def format(self, part: Part) -> None:
        """Makes the file system, or takes the one that is there, and notes it for fstab."""
        device, id = part.kept or self.node(part), str(uuid.uuid4())
        for _ in range(100):
            if os.path.exists(device):
                break
            time.sleep(0.1)
        label = ["-L", part.label] if part.label else []
        fs = part.fs
        if part.kept:
            id, fs = (out("blkid", "-p", "-o", "value", "-s", tag, device).strip() for tag in ("UUID", "TYPE"))
        elif part.mount == "biosboot":
            return
        elif part.mount == "swap":
            sh("mkswap", "-q", "-U", id, device)
            self.fstab.append(f"UUID={id} none swap defaults 0 0")
            return
        elif fs == "vfat":
            sh("mkfs.vfat", "-F32", "-i", id[:8], device, stdout=subprocess.DEVNULL)
            id = f"{id[:4]}-{id[4:8]}".upper()
        elif fs == "xfs":
            sh("mkfs.xfs", "-q", "-f", "-m", f"uuid={id}", *label, device)
        else:
            sh("mkfs.ext4", "-q", "-F", "-U", id, *label, "-E", "lazy_itable_init=1,nodiscard", device)
        options = {"vfat": "umask=0077 0 2", "xfs": "defaults 0 0"}.get(fs, "defaults 1 2")
        self.fstab.append(f"UUID={id} {part.mount} {fs} {options}")
        self.mounts.append((part.mount, device))
        if part.mount == "/":
            self.root_uuid = id
        if part.mount == "/boot":
            self.boot_uuid = id
