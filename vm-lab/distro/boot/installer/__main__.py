"""Stand-in for Anaconda's stage 2 in the rekindle lab. Not Anaconda, and no claim to be.

Real: pykickstart's parser of the tree's release, sfdisk, mkfs, dnf and its rpm transaction, grub,
systemctl. It keeps Anaconda's ways that matter: disks of earlier lives are assembled, %pre runs
before the kickstart is parsed whole, then disk, packages, boot loader, settings, %post in the chroot;
on failure %onerror, a pause, a reboot.
"""

import configparser
import ctypes
import os
import shutil
import subprocess
import sys
import time
import traceback
import uuid
from pathlib import Path

from pykickstart.constants import KS_SCRIPT_ONERROR, KS_SCRIPT_POST, KS_SCRIPT_PRE
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

import storage
import system
from common import ROOT, Refused, log, sh, write
from refuse import refuse_what_is_not_carried_out

KICKSTART = "/run/install/ks.cfg"
TREEINFO = "/run/install/treeinfo"
SECTION = {KS_SCRIPT_PRE: "%pre", KS_SCRIPT_POST: "%post", KS_SCRIPT_ONERROR: "%onerror"}


def release_of_tree() -> int:
    """The generation that this tree is, by its .treeinfo."""
    info = configparser.ConfigParser(strict=False, interpolation=None)
    info.read(TREEINFO)
    version = info.get("release", "version", fallback=None) or info.get("general", "version")
    release = int(version.split(".")[0])
    if release not in (7, 8, 9, 10):
        raise Refused(f"release {version}")
    return release


def parse(release: int, missing_include_is_fatal: bool):
    """The kickstart as that release's parser understands it."""
    handler = makeVersion(f"RHEL{release}")
    KickstartParser(handler, missingIncludeIsFatal=missing_include_is_fatal).readKickstart(KICKSTART)
    return handler


def run_scripts(handler, kind: int) -> None:
    """All scripts of a kind, in the kickstart's order."""
    for script in handler.scripts:
        if script.type == kind:
            run_script(script, kind)


def run_script(script, kind: int) -> None:
    """One of them. Like Anaconda's AnacondaKSScript.run: the log is written anew, and a script that
    ran in the chroot is never deleted."""
    in_chroot = kind == KS_SCRIPT_POST and script.inChroot
    root = ROOT if in_chroot else Path("/")
    file = root / "tmp" / f"ks-script-{uuid.uuid4().hex[:8]}"
    file.write_text(script.script)
    file.chmod(0o700)
    inside = "/" + str(file.relative_to(root))
    command = ["chroot", root, script.interp, inside] if in_chroot else [script.interp, file]
    messages = root / script.logfile.lstrip("/") if script.logfile else Path(f"/tmp/{file.name}.log")
    messages.parent.mkdir(parents=True, exist_ok=True)
    with messages.open("wb") as told:
        code = sh(*command, check=False, stdin=subprocess.DEVNULL, stdout=told, stderr=told).returncode
    if not in_chroot:
        file.unlink()
    log(f"{SECTION[kind]} {'in the chroot ' if in_chroot else ''}ended with {code}")
    if code:
        log(messages.read_text(errors="replace")[-1500:].replace("\n", " | "))
    if code and script.errorOnFail:
        raise RuntimeError(f"a script with --erroronfail ended with {code}")


def install(handler, release: int) -> None:
    """Everything after the kickstart is understood."""
    efi = os.path.isdir("/sys/firmware/efi")
    # Anaconda looks at all storage again here, and starts what it finds.
    storage.assemble_old()
    disk = storage.Disk(handler, efi, release)
    log(f"disk {disk.device}, {'UEFI' if efi else 'BIOS'}, {disk.label}: {disk.wanted}", "storage")
    disk.prepare()
    log("disk is ready", "storage")
    system.packages(handler, release)
    system.boot_loader(handler, disk)
    log("boot loader is in")
    system.settings(handler, disk, release)
    log("settings are written")
    run_scripts(handler, KS_SCRIPT_POST)
    keep_logs()
    sh("sync")
    for name in ("run", "dev", "sys", "proc"):
        sh("umount", "-R", "-l", ROOT / name, check=False)
    for mount, _ in sorted(disk.mounts, reverse=True):
        sh("umount", ROOT / mount.lstrip("/"), check=False)
    log("installation is complete")


def keep_logs() -> None:
    """What Anaconda leaves in the new system for later readers."""
    if "inst.nosave=all_ks" not in Path("/proc/cmdline").read_text():
        for name in ("anaconda-ks.cfg", "original-ks.cfg"):
            write(f"/root/{name}", Path(KICKSTART).read_text(), 0o600)
    logs = ROOT / "var/log/anaconda"
    logs.mkdir(parents=True, exist_ok=True)
    for file in Path("/tmp").glob("*.log"):
        shutil.copy(file, logs / file.name)
    # Anaconda's copy of the journal holds the kernel's command line, and that the kickstart's URL.
    write("/var/log/anaconda/syslog", sh("dmesg", check=False, capture_output=True, text=True).stdout, 0o600)


def prepare_environment() -> None:
    """A writable /tmp, terminals, the firmware's variables, the log, old disks as udev leaves them."""
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", LANG="C.UTF-8", HOME="/root")
    sh("mount", "-t", "tmpfs", "t", "/tmp")
    os.makedirs("/dev/pts", exist_ok=True)
    sh("mount", "-t", "devpts", "p", "/dev/pts", check=False)
    if os.path.isdir("/sys/firmware/efi"):
        sh("mount", "-t", "efivarfs", "e", "/sys/firmware/efi/efivars", check=False)
    log.open()
    arguments = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
    if "inst.syslog" in arguments:
        log.connect(arguments["inst.syslog"])
    log("stand-in for Anaconda, stage 2")
    ROOT.mkdir(parents=True, exist_ok=True)
    storage.assemble_old()
    log(f"of earlier lives, {storage.report_old()}", "storage")


def main() -> None:
    """From the kickstart to the reboot."""
    handler = None
    try:
        prepare_environment()
        release = release_of_tree()
        handler = parse(release, missing_include_is_fatal=False)
        run_scripts(handler, KS_SCRIPT_PRE)
        refuse_what_is_not_carried_out(KICKSTART)
        handler = parse(release, missing_include_is_fatal=True)
        log(f"kickstart is parsed as RHEL{release}")
        install(handler, release)
    except BaseException as error:
        traceback.print_exc()
        log(f"FAILED: {type(error).__name__}: {error}")
        if handler:
            run_scripts(handler, KS_SCRIPT_ONERROR)
        # Anaconda sleeps 180 s here.
        time.sleep(5)
    sys.stdout.flush()
    os.sync()
    ctypes.CDLL(None).reboot(0x01234567)


if __name__ == "__main__":
    main()
