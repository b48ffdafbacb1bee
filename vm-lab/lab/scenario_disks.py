"""Disks that had an earlier life: what the rule does not choose stays as it was, bit by bit; what it
does choose is taken apart, whatever it carries."""

import os
import re

from .installing import install, installed_row, reinstall
from .master import Settings
from .scenario_nodes import refused_row
from .session import Lab
from .shell import run, say
from .vm import Drive, Vm

TARGET_GIB, OTHER_GIB = 5, 6
BLOCK = 4 << 20


def checksum(drive: Drive) -> str:
    """Of the whole raw image."""
    return run("sha256sum", drive.file).stdout.split()[0]


def fill_with_noise(drive: Drive) -> None:
    """Every byte of a raw image random."""
    with drive.file.open("r+b") as image:
        for _ in range(drive.gib * (1 << 30) // BLOCK):
            image.write(os.urandom(BLOCK))


def two_disks(vm: Vm) -> tuple[Drive, Drive]:
    """The smaller one, which the rule chooses, and a larger one whose bytes are compared later."""
    return vm.drive(TARGET_GIB, "TARGET"), vm.drive(OTHER_GIB, "OTHER", "raw")


def untouched_row(lab: Lab, drive: Drive, before: str, what: str) -> None:
    """The other disk is as it was."""
    def same():
        after = checksum(drive)
        return after == before, f"{drive.gib} GiB, sha256 {before[:16]}… before, {after[:16]}… after"
    lab.proof.check("safe", f"{what} is byte for byte as before", same)


def earlier_life_row(lab: Lab, vm: Vm, *words: str) -> None:
    """Not vacuous: the installer's kernel had it running before %pre."""
    def running():
        lines = [line for line in vm.console_text().splitlines() if "of earlier lives" in line]
        line = lines[-1].strip() if lines else "the installer said nothing of earlier lives"
        return all(word in line for word in words), line
    lab.proof.check("safe", f"{vm.name}: the installer found it running", running)


def look(lab: Lab, vm: Vm, script: str, *drives: Drive) -> str:
    """Cuts the power and looks at the disks with the workshop's tools, without writing."""
    vm.power_off()
    return lab.workshop.work(script, [drive.file for drive in drives or vm.drives], read_only=True)


def two_disks_story(lab: Lab) -> None:
    """A larger disk full of data comes first: not a byte of it changes, and the other one is installed and booted."""
    lab.serve(Settings([lab.medium]))
    vm = lab.machine(lab.hardware())
    # The BIOS counts it first, and would boot it.
    other = vm.drive(OTHER_GIB, "OTHER", "raw")
    vm.drive(TARGET_GIB, "TARGET")
    say("filling the first disk")
    fill_with_noise(other)
    # In place of the first noise, so that a careless look finds something to mount.
    lab.workshop.work("mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=1 /dev/vda\n"
                      "mount /dev/vda /mnt && echo precious >/mnt/file && umount /mnt", [other.file])
    before = checksum(other)
    install(lab, vm)
    vm.power_off()
    untouched_row(lab, other, before, "the other disk")


OLD_LVM = """
printf 'label: dos\\nsize=512MiB, type=83\\ntype=8e\\n' | sfdisk -q /dev/vda
mkfs.ext4 -q -E nodiscard /dev/vda1
pvcreate -qy /dev/vda2 /dev/vdb
vgcreate -q old /dev/vda2 /dev/vdb
lvcreate -qy -l 100%FREE -n home old
mkfs.xfs -q -K /dev/old/home
mount /dev/old/home /mnt && echo precious >/mnt/file && umount /mnt
vgchange -qan old
"""


def old_lvm_story(lab: Lab) -> None:
    """One old volume group over the disk that is chosen and another: the other one does not change."""
    lab.serve(Settings([lab.medium]))
    vm = lab.machine(lab.hardware())
    target, other = two_disks(vm)
    lab.workshop.work(OLD_LVM, [target.file, other.file])
    before = checksum(other)
    install(lab, vm)
    earlier_life_row(lab, vm, "old/home")
    vm.power_off()
    untouched_row(lab, other, before, "the other disk of the volume group")

    def gone():
        found = look(lab, vm, "pvs --noheadings -o pv_name; wipefs /dev/vda", target)
        return "LVM" not in found and "/dev/" not in found.split("DEVICE")[0], found
    lab.proof.check("safe", "nothing of the volume group is left on the chosen disk", gone)


# Two pairs of partitions, one with each kind of metadata that is still met. The last one does not reach the
# end of the disk: mdadm could not tell its 0.90 from one of the whole disk, and would assemble nothing.
OLD_RAID = """
printf 'label: dos\\nsize=1GiB, type=fd\\nsize=1GiB, type=fd\\nsize=1GiB, type=fd\\nsize=1GiB, type=fd\\n' | sfdisk -q /dev/vda
mdadm --create /dev/md12 --run --quiet --metadata=1.2 --level=1 --raid-devices=2 --assume-clean /dev/vda1 /dev/vda2
mdadm --create /dev/md9 --run --quiet --metadata=0.90 --level=1 --raid-devices=2 --assume-clean /dev/vda3 /dev/vda4
for md in md12 md9; do
  mkfs.ext4 -q -E nodiscard /dev/$md
  mount /dev/$md /mnt && echo precious >/mnt/file && umount /mnt
done
mdadm --stop --scan
"""


def old_raid_story(lab: Lab) -> None:
    """Old Linux RAID, metadata 1.2 and 0.90: taken apart, and nothing assembles afterwards."""
    lab.serve(Settings([lab.medium]))
    vm = lab.machine(lab.hardware())
    target = vm.drive(TARGET_GIB, "TARGET")
    lab.workshop.work(OLD_RAID, [target.file])
    install(lab, vm)
    earlier_life_row(lab, vm, "arrays: md")

    def gone():
        found = look(lab, vm, "mdadm --assemble --scan --run 2>&1 || :; cat /proc/mdstat; mdadm --examine --scan")
        return "ARRAY" not in found and not re.search(r"^md\d", found, re.M), found
    lab.proof.check("safe", "nothing assembles from the disk afterwards", gone)


OLD_GPT = """
printf 'label: gpt\\nsize=512MiB, type=U\\nsize=1GiB, type=L\\ntype=L\\n' | sfdisk -q /dev/vda
mkfs.vfat /dev/vda1 >/dev/null
mkfs.ext4 -q -E nodiscard /dev/vda2
mkfs.xfs -q -K /dev/vda3
"""

OLD_EXTENDED = """
printf 'label: dos\\nsize=1GiB, type=83, bootable\\ntype=5\\nsize=1GiB, type=83\\nsize=1GiB, type=82\\ntype=83\\n' |
  sfdisk -q /dev/vda
mkfs.ext4 -q -E nodiscard /dev/vda1
mkfs.ext4 -q -E nodiscard /dev/vda5
mkswap -q /dev/vda6
mkfs.xfs -q -K /dev/vda7
"""

LABELS = """
sfdisk -J /dev/vda | grep '"label"'
sectors=$(blockdev --getsz /dev/vda)
for at in 1 $((sectors - 1)); do
  dd if=/dev/vda bs=512 skip=$at count=1 2>/dev/null | grep -q 'EFI PART' && echo "GPT header in sector $at" || :
done
"""


def old_label_story(lab: Lab) -> None:
    """An old GPT under BIOS, an old MBR with logical partitions under UEFI: both are replaced whole."""
    lab.serve(Settings([lab.medium]))
    bios, uefi = lab.machine(lab.hardware(firmware="bios")), lab.machine(lab.hardware(firmware="uefi"))
    for vm, script in ((bios, OLD_GPT), (uefi, OLD_EXTENDED)):
        lab.workshop.work(script, [vm.drive(TARGET_GIB, "TARGET").file])
    install(lab, bios, uefi)

    def replaced(vm: Vm, label: str, headers: int):
        found = look(lab, vm, LABELS)
        return f'"label": "{label}"' in found and found.count("GPT header") == headers, found
    new = "gpt" if lab.medium.release >= 10 else "dos"
    lab.proof.check("safe", "BIOS: both headers of the old GPT are gone",
                    lambda: replaced(bios, new, 2 if new == "gpt" else 0))
    lab.proof.check("safe", "UEFI: the disk has a whole GPT", lambda: replaced(uefi, "gpt", 2))


def keep_story(lab: Lab) -> None:
    """keep = ["/data"]: a reinstallation makes / new and leaves /data as it is."""
    lab.serve(Settings([lab.medium], disk='min_gib = 4, keep = ["/data"], root_gib = 4'))
    vm = lab.machine(lab.hardware())
    [name] = install(lab, vm)
    if not lab.proof.holds():
        return
    master, ip = lab.master, lab.master.nodes()[name]["ip"]
    told = "cd /data && stat -c '%i %Y %s' file && sha256sum file && findmnt -no SOURCE,UUID,LABEL /data"
    master.ask(ip, "head -c 50000000 /dev/urandom >/data/file && sync")
    before = master.ask(ip, told)
    lab.phases.begin("reinstall")
    lab.proof.check("C3", f"{name} is installed again, and / is new", lambda: reinstall(lab, name))

    def kept():
        after = master.ask(ip, told)
        return after == before, f"inode, times, checksum, partition: {after}"
    lab.proof.check("safe", "/data is the same file system with the same file", kept)


def new_disk_story(lab: Lab) -> None:
    """The disk was swapped since the last installation: it is not written before the owner says so."""
    lab.serve(Settings([lab.medium]))
    vm = lab.machine(lab.hardware())
    vm.drive(TARGET_GIB, "FIRST")
    [name] = install(lab, vm)
    if not lab.proof.holds():
        return
    vm.power_off()
    vm.drives.clear()
    new = vm.drive(TARGET_GIB, "SECOND")
    lab.phases.begin("refused")
    say("the disk is another one now, and the node is to be installed again")
    lab.master.rekindle("node", "reinstall", name)
    refused_row(lab, vm, name, "installed on the disk with serial FIRST, now it would be vda with serial SECOND")
    lab.phases.begin("allowed")
    lab.master.rekindle("node", "reinstall", "--new-disk", name)
    vm.power_on()
    installed_row(lab, [name])
    lab.proof.check("C3", "it is on the new disk", lambda: (not new.is_blank(), "the new disk was written"))


STORIES = {"two-disks": two_disks_story,
           "old-lvm": old_lvm_story,
           "old-raid": old_raid_story,
           "old-label": old_label_story,
           "keep": keep_story,
           "new-disk": new_disk_story}
