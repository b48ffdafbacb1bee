"""Virtual machines: blank, booted from the network first and the disk second, every time."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import net
from .distro import Distro
from .shell import WORK, LabError, run, say

OVMF = Path("/usr/share/OVMF")
PROBE_SECONDS = 20


def accelerator(distro: Distro) -> str:
    """KVM if a real Linux boots under it. /dev/kvm can exist and hang every Linux guest, so only a
    boot tells; the answer is kept until the next boot of this machine."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = WORK / "accelerator"
    if known.exists() and known.read_text().split()[0] == boot_id:
        return known.read_text().split()[1]
    answer = "tcg"
    if Path("/dev/kvm").exists():
        serial = WORK / "kvm-probe.log"
        run("timeout", "-k", "2", PROBE_SECONDS, "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-m", "256",
            "-display", "none", "-monitor", "none", "-serial", f"file:{serial}", "-no-reboot", "-nic", "none",
            "-kernel", distro.kernel, "-initrd", distro.probe, "-append", "console=ttyS0 panic=-1", check=False)
        if serial.exists() and b"REKINDLE-LAB-LINUX-RUNS" in serial.read_bytes():
            answer = "kvm"
        serial.unlink(missing_ok=True)
    known.write_text(f"{boot_id} {answer}\n")
    return answer


@dataclass
class Vm:
    """One virtual machine."""

    name: str
    number: int
    firmware: str
    accel: str
    run_dir: Path
    old: bool = False
    disk_gib: int = 12
    memory_mib: int = 1536
    process: subprocess.Popen | None = None
    capture: subprocess.Popen | None = None

    mac = property(lambda self: f"52:54:00:aa:bb:{self.number:02x}")
    tap = property(lambda self: f"t{self.number}")
    disk = property(lambda self: self.run_dir / f"{self.name}.qcow2")
    console = property(lambda self: self.run_dir / f"{self.name}.console.log")
    pcap = property(lambda self: self.run_dir / f"{self.name}.pcap")

    def plug_in(self) -> None:
        """A blank disk, a port of the switch, and somebody who listens on it."""
        run("qemu-img", "create", "-q", "-f", "qcow2", self.disk, f"{self.disk_gib}G")
        if self.firmware == "uefi":
            shutil.copy(OVMF / "OVMF_VARS_4M.fd", self.run_dir / f"{self.name}.vars")
        net.tap(self.tap)
        # Whole packets of DHCP, TFTP and the small talk; of the rest only how connections begin and end.
        log = (self.run_dir / "tcpdump.log").open("ab")
        self.capture = net.start(net.SWITCH, "tcpdump", "-i", self.tap, "-U", "-s", "0", "-Z", "root", "-w", self.pcap,
                                 "udp or arp or icmp or (tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0) or "
                                 "(tcp dst port 80)", log=log)

    def power_on(self) -> None:
        """Presses the button."""
        if self.process and self.process.poll() is None:
            raise LabError(f"{self.name} is on already")
        log = (self.run_dir / f"{self.name}.qemu.log").open("ab")
        self.process = net.start(net.SWITCH, *self.command(), log=log)

    def power_off(self) -> None:
        """Pulls the plug."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def unplug(self) -> None:
        """Ends the machine and its listener."""
        self.power_off()
        if self.capture and self.capture.poll() is None:
            self.capture.terminate()
            self.capture.wait()

    def is_on(self) -> bool:
        """Whether QEMU runs."""
        return self.process is not None and self.process.poll() is None

    def command(self) -> list:
        """QEMU's command line."""
        words = ["qemu-system-x86_64", "-name", self.name, "-accel", self.accel, "-m", self.memory_mib, "-smp", "1",
                 "-display", "none", "-monitor", "none", "-nodefaults", "-device", "virtio-rng-pci",
                 "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
                 "-uuid", f"00000000-0000-4000-8000-{self.number:012x}",
                 "-netdev", f"tap,id=n0,ifname={self.tap},script=no,downscript=no"]
        if self.accel == "kvm":
            words += ["-cpu", "host"]
        if self.old:
            # SSE3 and SSSE3 at the most: x86-64-v1 of about 2006.
            words += [] if self.accel == "kvm" else ["-cpu", "core2duo"]
        card = f"{'e1000' if self.old else 'virtio-net-pci'},netdev=n0,mac={self.mac}"
        if self.firmware == "uefi":
            # romfile=: the firmware's own PXE client asks, not an iPXE in the card's ROM.
            words += ["-machine", "q35,graphics=off", "-device", f"{card},romfile=,bootindex=1",
                      "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF}/OVMF_CODE_4M.fd",
                      "-drive", f"if=pflash,format=raw,unit=1,file={self.run_dir}/{self.name}.vars"]
        else:
            words += ["-machine", "pc,graphics=off", "-device", f"{card},bootindex=1"]
        words += ["-drive", f"if=none,id=d0,file={self.disk},format=qcow2,cache=unsafe,discard=unmap"]
        disk = "ide-hd,drive=d0,serial=LAB-OLD-1" if self.old else "virtio-blk-pci,drive=d0,serial=LAB-1"
        return words + ["-device", f"{disk},bootindex=2"]

    def disk_is_blank(self) -> bool:
        """Whether nothing was ever written to the disk."""
        data = run("qemu-img", "map", "-U", "--output=json", self.disk).stdout
        return '"data": true' not in data and '"zero": false' not in data

    def console_text(self) -> str:
        """All that was on its screen."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""


def say_console(vm: Vm, lines: int = 12) -> None:
    """Shows the end of a console, for a person who wonders."""
    for line in vm.console_text().splitlines()[-lines:]:
        say(f"  {vm.name} | {line[:160]}")
