"""A workshop for disks: a small Linux with the installer's tools runs a script over disk images.

What an old computer's disk may carry (LVM, RAID, old labels) is made by the real programs and the
real kernel, and what is on a disk afterwards is looked at with them too.
"""

from pathlib import Path

from . import releases
from .distro import Distro
from .shell import LabError, run

SECONDS = 1800


class Workshop:
    """Runs scripts over disks."""

    def __init__(self, built: Distro, accel: str, dir: Path) -> None:
        self.built, self.accel, self.dir = built, accel, dir

    def work(self, script: str, disks: list[Path], read_only: bool = False) -> str:
        """Runs a bash script with the images as /dev/vda, /dev/vdb …; gives what it printed."""
        self.dir.mkdir(exist_ok=True)
        console = self.dir / "workshop.log"
        console.unlink(missing_ok=True)
        run("timeout", SECONDS, *self.command(self.initrd(script), console, disks, read_only), check=False)
        text = console.read_text(errors="replace").replace("\r", "") if console.exists() else ""
        said, end, code = text.partition("WORKSHOP-ENDED-WITH ")
        if not end or code.split()[0] != "0":
            raise LabError(f"the workshop's script failed; its console is in {console}: {text.strip()[-300:]}")
        return said.partition("WORKSHOP-BEGINS\n")[2]

    def initrd(self, script: str) -> Path:
        """The workshop's initrd with the script behind it: the kernel unpacks both archives."""
        folder = self.dir / "workshop"
        folder.mkdir(exist_ok=True)
        # The kernel's own words would stand between the script's.
        (folder / "script.sh").write_text(f"echo 1 >/proc/sys/kernel/printk\necho WORKSHOP-BEGINS\n{script}\n")
        image = self.dir / "workshop.img"
        run("sh", "-c", f"{{ cat '{releases.workshop_of(self.built)}'; cd '{folder}' && echo script.sh | "
                        f"cpio -o -H newc --quiet | gzip -1; }} >'{image}'")
        return image

    def command(self, initrd: Path, console: Path, disks: list[Path], read_only: bool) -> list:
        """QEMU's command line: no network, no firmware of a card, straight into the kernel."""
        words = ["qemu-system-x86_64", "-accel", self.accel, "-m", "768", "-display", "none", "-monitor", "none",
                 "-nodefaults", "-nic", "none", "-no-reboot", "-serial", f"file:{console}",
                 "-kernel", self.built.kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1"]
        for number, disk in enumerate(disks):
            form = "raw" if disk.suffix == ".raw" else "qcow2"
            only = ",readonly=on" if read_only else ""
            words += ["-drive", f"if=none,id=d{number},file={disk},format={form},cache=unsafe{only}",
                      "-device", f"virtio-blk-pci,drive=d{number},serial=DISK-{number}"]
        tools = self.built.dir / "tree/images/install.img"
        return words + ["-drive", f"if=none,id=tools,file={tools},format=raw,readonly=on",
                        "-device", "virtio-blk-pci,drive=tools,serial=TOOLS"]
