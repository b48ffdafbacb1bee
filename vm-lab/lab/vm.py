"""Virtual machines: blank, booted from the network first and the disk second, every time."""

import shutil
import subprocess
from dataclasses import dataclass, field
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
class Drive:
    """A disk of a machine. Its form is its file's suffix: raw keeps every byte where the guest put it."""

    file: Path
    gib: int
    serial: str

    form = property(lambda self: "raw" if self.file.suffix == ".raw" else "qcow2")

    def make(self) -> None:
        """A blank one."""
        run("qemu-img", "create", "-q", "-f", self.form, self.file, f"{self.gib}G")

    def is_blank(self) -> bool:
        """Whether nothing was ever written to it."""
        data = run("qemu-img", "map", "-U", "--output=json", self.file).stdout
        return '"data": true' not in data and '"zero": false' not in data


@dataclass
class Hardware:
    """What a machine is made of."""

    firmware: str = "bios"
    cpu: str = "Nehalem"
    memory_mib: int = 2048
    disk_gib: int = 12
    # e1000 and IDE: what was usual in 2006.
    old_devices: bool = False
    # The network card, when it is to be another one than goes with the disks.
    card: str = ""
    # One more network card before it, with nothing at the other end of its cable.
    spare_card: bool = False
    # UEFI that runs nothing but what is signed.
    secure_boot: bool = False
    # UEFI that boots from the network by HTTP alone.
    http_boot: bool = False


@dataclass
class Vm:
    """One virtual machine."""

    number: int
    hardware: Hardware
    accel: str
    run_dir: Path
    drives: list[Drive] = field(default_factory=list)
    process: subprocess.Popen | None = None
    capture: subprocess.Popen | None = None

    name = property(lambda self: f"vm{self.number}")
    mac = property(lambda self: f"52:54:00:aa:bb:{self.number:02x}")
    tap = property(lambda self: f"t{self.number}")
    disk = property(lambda self: self.drives[0])
    console = property(lambda self: self.run_dir / f"{self.name}.console.log")
    pcap = property(lambda self: self.run_dir / f"{self.name}.pcap")

    def drive(self, gib: int, serial: str, form: str = "qcow2") -> Drive:
        """One more blank disk."""
        drive = Drive(self.run_dir / f"{self.name}.{serial}.{form}", gib, serial)
        drive.make()
        self.drives.append(drive)
        return drive

    def plug_in(self) -> None:
        """A blank disk if it has none yet, a port of the switch, and somebody who listens on it."""
        if not self.drives:
            self.drive(self.hardware.disk_gib, "LAB-1")
        if self.hardware.firmware == "uefi":
            keys = ".ms" if self.hardware.secure_boot else ""
            shutil.copy(OVMF / f"OVMF_VARS_4M{keys}.fd", self.run_dir / f"{self.name}.vars")
        net.tap(self.tap)
        # Whole packets of DHCP, TFTP and the small talk; of the rest only how connections begin and end.
        log = (self.run_dir / "tcpdump.log").open("ab")
        self.capture = net.start(net.SWITCH, "tcpdump", "-i", self.tap, "-U", "-s", "0", "-Z", "root", "-w", self.pcap,
                                 "udp or arp or icmp or (tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0) or "
                                 "(tcp dst port 80)", log=log)

    def power_on(self) -> None:
        """Presses the button."""
        if self.is_on():
            raise LabError(f"{self.name} is on already")
        log = (self.run_dir / f"{self.name}.qemu.log").open("ab")
        self.process = net.start(net.SWITCH, *self.command(), log=log)

    def power_off(self) -> None:
        """Pulls the plug: what the guest did not flush may be lost."""
        if self.is_on():
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
        hardware = self.hardware
        words = ["qemu-system-x86_64", "-name", self.name, "-accel", self.accel, "-m", hardware.memory_mib, "-smp", "1",
                 "-display", "none", "-monitor", "none", "-nodefaults", "-device", "virtio-rng-pci",
                 "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
                 "-uuid", f"00000000-0000-4000-8000-{self.number:012x}", "-cpu", hardware.cpu,
                 "-netdev", f"tap,id=n0,ifname={self.tap},script=no,downscript=no"]
        if hardware.spare_card:
            words += ["-netdev", "hubport,id=n1,hubid=1", "-device",
                      f"e1000,netdev=n1,mac=52:54:00:cc:bb:{self.number:02x},romfile="]
        kind = hardware.card or ("e1000" if hardware.old_devices else "virtio-net-pci")
        card = f"{kind},netdev=n0,mac={self.mac}"
        if hardware.firmware == "uefi":
            machine, code = "q35,graphics=off", "OVMF_CODE_4M.fd"
            if hardware.secure_boot:
                # What keeps the guest's own hands off the keys.
                machine, code = f"{machine},smm=on", "OVMF_CODE_4M.secboot.fd"
                words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
            if hardware.http_boot:
                words += [word for version in (4, 6) for word in
                          ("-fw_cfg", f"name=opt/org.tianocore/IPv{version}PXESupport,string=n")]
            # romfile=: the firmware's own PXE client asks, not an iPXE in the card's ROM.
            words += ["-machine", machine, "-device", f"{card},romfile=,bootindex=1",
                      "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF}/{code}",
                      "-drive", f"if=pflash,format=raw,unit=1,file={self.run_dir}/{self.name}.vars"]
        else:
            words += ["-machine", "pc,graphics=off", "-device", f"{card},bootindex=1"]
        kind = "ide-hd" if hardware.old_devices else "virtio-blk-pci"
        for number, drive in enumerate(self.drives):
            # unsafe: a flush of the guest reaches the image's file, but does not wait for this machine's disk.
            words += ["-drive", f"if=none,id=d{number},file={drive.file},format={drive.form},cache=unsafe,discard=unmap",
                      "-device", f"{kind},drive=d{number},serial={drive.serial},bootindex={2 + number}"]
        return words

    def console_text(self) -> str:
        """All that was on its screen."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""


def say_console(vm: Vm, lines: int = 12) -> None:
    """Shows the end of a console, for a person who wonders."""
    for line in vm.console_text().splitlines()[-lines:]:
        say(f"  {vm.name} | {line[:160]}")
