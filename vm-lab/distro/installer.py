#!/usr/bin/python3
"""Stand-in for Anaconda's stage 2 in the rekindle lab. Not Anaconda, and no claim to be.

Real: pykickstart's RHEL9 parser, sfdisk, mkfs, dnf and its rpm transaction, grub, systemctl.
It keeps Anaconda's ways that matter: %pre runs before the kickstart is parsed whole, then disk,
packages, boot loader, settings, %post in the chroot; on failure %onerror, a pause, a reboot. Every
command or option that it does not carry out is an error, so that a green run never means "ignored".
"""

import ctypes
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import traceback
import uuid
from pathlib import Path

KICKSTART = "/run/install/ks.cfg"
ROOT = Path("/mnt/sysimage")
ANY = None

# Command -> option -> the values it is carried out with (ANY: every value). "" stands for words
# that are no option.
CARRIED_OUT = {
    "cmdline": {}, "text": {}, "skipx": {}, "reboot": {}, "zerombr": {},
    "lang": {"": ANY}, "keyboard": {"--vckeymap": ANY}, "timezone": {"": ANY, "--utc": {""}},
    "timesource": {"--ntp-server": ANY}, "url": {"--url": ANY},
    "repo": {"--name": ANY, "--baseurl": ANY, "--cost": ANY},
    "rootpw": {"--lock": {""}}, "sshkey": {"--username": {"root"}, "": ANY},
    "user": {"--name": ANY, "--uid": ANY, "--gid": ANY, "--lock": {""}},
    "selinux": {"--enforcing": {""}, "--permissive": {""}}, "firewall": {"--disabled": {""}},
    "services": {"--enabled": ANY, "--disabled": ANY}, "firstboot": {"--disable": {""}},
    "eula": {"--agreed": {""}},
    "network": {"--device": ANY, "--bindto": {"mac"}, "--bootproto": {"static"}, "--ip": ANY,
                "--netmask": ANY, "--gateway": ANY, "--nameserver": ANY, "--hostname": ANY,
                "--noipv6": {""}, "--onboot": {"yes"}, "--activate": {""}},
    "ignoredisk": {"--only-use": ANY},
    "clearpart": {"--all": {""}, "--drives": ANY, "--initlabel": {""}, "--disklabel": {"gpt", "msdos"}},
    "bootloader": {"--location": {"mbr"}, "--boot-drive": ANY, "--append": ANY, "--timeout": ANY},
    "reqpart": {"--add-boot": {""}},
    "part": {"": {"/", "swap"}, "--fstype": {"xfs", "ext4"}, "--size": ANY, "--grow": {""},
             "--recommended": {""}},
}
SECTIONS = {
    "%packages": {"--exclude-weakdeps", "--excludedocs", "--inst-langs"},
    "%pre": {"--interpreter", "--log"},
    "%post": {"--interpreter", "--log", "--nochroot", "--erroronfail"},
    "%onerror": {"--interpreter", "--log"},
    "%addon": {"com_redhat_kdump", "--disable"},
}


class Refused(Exception):
    """The kickstart asks for something that this stand-in does not do."""


class Log:
    """Lines for the console and, as Anaconda's inst.syslog has it, for a TCP syslog server."""

    def __init__(self):
        self.socket = None
        self.file = open("/tmp/anaconda.log", "a", buffering=1)

    def connect(self, target):
        host, port = target.rsplit(":", 1)
        try:
            self.socket = socket.create_connection((host, int(port)), timeout=10)
        except OSError as error:
            self(f"no log server at {target}: {error}")

    def __call__(self, text, program="anaconda"):
        uptime = Path("/proc/uptime").read_text().split()[0]
        print(f"installer {uptime} {text}", flush=True)
        self.file.write(f"{program}: {text}\n")
        if self.socket:
            stamp = time.strftime("%b %e %H:%M:%S", time.gmtime())
            try:
                self.socket.sendall(f"<14>{stamp} installer {program}: {text}\n".encode())
            except OSError:
                self.socket = None


log = Log()


def sh(*command, check=True, **more):
    done = subprocess.run([str(word) for word in command], **more)
    if check and done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))} failed with {done.returncode}")
    return done


def refuse_what_is_not_carried_out(path, depth=0):
    """Reads the kickstart line by line, as it stands, before anything believes in it."""
    section = None
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        where = f"{path}:{number}"
        if section:
            if line.split() == ["%end"]:
                section = None
            continue
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if words[0] == "%include":
            if depth or len(words) != 2 or not words[1].startswith("/tmp/"):
                raise Refused(f"{where}: only one level of %include of /tmp is carried out")
            refuse_what_is_not_carried_out(words[1], depth + 1)
        elif words[0].startswith("%"):
            if words[0] not in SECTIONS:
                raise Refused(f"{where}: section {words[0]} is not carried out")
            for word in words[1:]:
                if word.split("=")[0] not in SECTIONS[words[0]]:
                    raise Refused(f"{where}: {words[0]} {word} is not carried out")
            section = words[0]
        else:
            refuse_command(where, words)


def refuse_command(where, words):
    command, *rest = words
    if command not in CARRIED_OUT:
        raise Refused(f"{where}: command {command} is not carried out")
    known = CARRIED_OUT[command]
    for word in rest:
        option, _, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if option not in known or (known[option] is not ANY and value not in known[option]):
            raise Refused(f"{where}: {command} {word} is not carried out")


def parse(missing_include_is_fatal):
    from pykickstart.parser import KickstartParser
    from pykickstart.version import RHEL9, makeVersion
    handler = makeVersion(RHEL9)
    parser = KickstartParser(handler, missingIncludeIsFatal=missing_include_is_fatal)
    parser.readKickstart(KICKSTART)
    return handler


def run_scripts(handler, kind, left_behind=False):
    for script in handler.scripts:
        if script.type != kind:
            continue
        in_chroot = kind == KS_POST and script.inChroot
        root = ROOT if in_chroot else Path("/")
        file = root / "tmp" / f"ks-script-{uuid.uuid4().hex[:8]}"
        file.write_text(script.script)
        file.chmod(0o700)
        inside = "/" + str(file.relative_to(root))
        command = ["chroot", root, script.interp, inside] if in_chroot else [script.interp, file]
        out = subprocess.DEVNULL
        if script.logfile:
            target = root / script.logfile.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            out = target.open("ab")
        code = sh(*command, check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode
        # Anaconda never deletes the scripts it ran in the chroot.
        if not in_chroot:
            file.unlink()
        log(f"{('%pre', '%post', '%onerror')[(KS_PRE, KS_POST, KS_ONERROR).index(kind)]} "
            f"{'in the chroot ' if in_chroot else ''}ended with {code}")
        if code and script.logfile:
            log((root / script.logfile.lstrip("/")).read_text(errors="replace")[-1500:].replace("\n", " | "))
        if code and script.errorOnFail:
            raise RuntimeError(f"a script with --erroronfail ended with {code}")


class Disk:
    """The one disk that ignoredisk --only-use names."""

    def __init__(self, handler, efi):
        [self.name] = handler.ignoredisk.onlyuse
        if handler.clearpart.drives != [self.name] or handler.bootloader.bootDrive != self.name:
            raise Refused("clearpart and bootloader must name the disk of ignoredisk --only-use")
        self.device, self.efi, self.mounts, self.fstab = f"/dev/{self.name}", efi, [], []
        self.root_uuid = self.boot_uuid = None
        # As Anaconda: GPT under UEFI, msdos on small disks under BIOS, unless it is told.
        self.label = handler.clearpart.disklabel or ("gpt" if efi else "msdos")
        self.wanted = self.plan(handler)

    def plan(self, handler):
        """(mount point, file system, size in MiB or None for the rest)"""
        parts = []
        if handler.reqpart.reqpart:
            if self.efi:
                parts.append(("/boot/efi", "vfat", 200))
            elif self.label == "gpt":
                parts.append(("biosboot", None, 1))
            if handler.reqpart.addBoot:
                # Anaconda takes the default file system, xfs; this one ext4, for Debian's grub.
                parts.append(("/boot", "ext4", 512))
        for part in sorted(handler.partition.partitions, key=lambda part: bool(part.grow)):
            size = 256 if part.recommended else part.size
            parts.append((part.mountpoint, part.fstype or "ext4", None if part.grow else size))
        return parts

    def partition(self):
        gpt = {"biosboot": "21686148-6449-6E6F-744E-656564454649", "swap": "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F",
               "/boot/efi": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"}
        dos = {"swap": "82"}
        lines = [f"label: {'gpt' if self.label == 'gpt' else 'dos'}"]
        for mount, _, size in self.wanted:
            kind = gpt.get(mount, "0FC63DAF-8483-4772-8E79-3D69D8477DE4") if self.label == "gpt" else dos.get(mount, "83")
            lines.append((f"size={size}MiB, " if size else "") + f"type={kind}")
        sh("sfdisk", "-q", "--wipe", "always", self.device, input="\n".join(lines).encode())
        sh("sync")

    def format(self):
        digit = "p" if self.name[-1].isdigit() else ""
        for number, (mount, fs, _) in enumerate(self.wanted, 1):
            device = f"{self.device}{digit}{number}"
            for _ in range(50):
                if os.path.exists(device):
                    break
                time.sleep(0.1)
            id = str(uuid.uuid4())
            if mount == "biosboot":
                continue
            if mount == "swap":
                sh("mkswap", "-q", "-U", id, device)
                self.fstab.append(f"UUID={id} none swap defaults 0 0")
                continue
            if fs == "vfat":
                short = id[:8].upper()
                sh("mkfs.vfat", "-F32", "-i", short, device, stdout=subprocess.DEVNULL)
                self.fstab.append(f"UUID={short[:4]}-{short[4:]} {mount} vfat umask=0077 0 2")
            elif fs == "xfs":
                sh("mkfs.xfs", "-q", "-f", "-m", f"uuid={id}", device)
                self.fstab.append(f"UUID={id} {mount} xfs defaults 0 0")
            else:
                sh("mkfs.ext4", "-q", "-F", "-U", id, "-E", "lazy_itable_init=1,nodiscard", device)
                self.fstab.append(f"UUID={id} {mount} ext4 defaults 1 2")
            if mount == "/":
                self.root_uuid = id
            if mount == "/boot":
                self.boot_uuid = id
            self.mounts.append((mount, device))
        for mount, device in sorted(self.mounts):
            (ROOT / mount.lstrip("/")).mkdir(parents=True, exist_ok=True)
            sh("mount", device, ROOT / mount.lstrip("/"))


def packages(handler):
    """A real dnf transaction into the new root. Like Anaconda it does not check signatures of
    the tree it was booted from."""
    for name in ("proc", "sys", "dev", "run"):
        (ROOT / name).mkdir(exist_ok=True)
        # --bind would hide efivars below /sys.
        sh("mount", "--rbind", f"/{name}", ROOT / name)
    chosen = handler.packages
    macros = ROOT / "etc/rpm/macros.image-language-conf"
    macros.parent.mkdir(parents=True, exist_ok=True)
    if chosen.instLangs:
        macros.write_text(f"%_install_langs {chosen.instLangs}\n")
    command = ["dnf", "-y", f"--installroot={ROOT}", "--releasever=9", "--setopt=reposdir=/nonexistent",
               "--setopt=keepcache=0", "--setopt=cachedir=/tmp/dnf", "--nogpgcheck"]
    if chosen.excludeWeakdeps:
        command.append("--setopt=install_weak_deps=0")
    if chosen.excludeDocs:
        command.append("--setopt=tsflags=nodocs")
    command += [f"--repofrompath=anaconda,{handler.url.url}", "--repo=anaconda"]
    for repo in handler.repo.repoList:
        command += [f"--repofrompath={repo.name},{repo.baseurl}", f"--repo={repo.name}"]
        if repo.cost:
            command.append(f"--setopt={repo.name}.cost={repo.cost}")
    efi = os.path.isdir("/sys/firmware/efi")
    wanted = [] if chosen.nocore else ["@core"]
    wanted += [f"@{group.name}" for group in chosen.groupList if group.name != "core"]
    wanted += [*chosen.packageList, "kernel-core", "grub2-tools", "grub2-efi-x64" if efi else "grub2-pc"]
    wanted += ["efibootmgr"] if efi else []
    excludes = [word for name in chosen.excludedList for word in ("-x", name)]
    log(f"dnf installs {' '.join(wanted)}", "packaging")
    lines = []
    with subprocess.Popen(command + ["install", *wanted, *excludes], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as dnf:
        for line in dnf.stdout:
            lines.append(line)
            found = re.match(r"\s*Installing\s*:\s+(\S+)\s+(\d+)/(\d+)", line)
            if found:
                name, arch = found.group(1).rsplit(".", 1)[0].rsplit("-", 2)[0], found.group(1).rsplit(".", 1)[-1]
                log(f"Installing {name}.{arch} ({found.group(2)}/{found.group(3)})", "packaging")
    if dnf.returncode:
        Path("/tmp/packaging.log").write_text("".join(lines[-60:]))
        raise RuntimeError(f"dnf ended with {dnf.returncode}: {''.join(lines[-5:]).strip()}")
    log("packages are in", "packaging")


def write(path, text, mode=0o644):
    file = ROOT / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def boot_loader(handler, disk):
    kernel = next((ROOT / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    # With a /boot of its own, the kernel lies in that file system's root.
    uuid_of, prefix = (disk.boot_uuid, "") if disk.boot_uuid else (disk.root_uuid, "/boot")
    append = handler.bootloader.appendLine or ""
    write("/boot/grub/grub.cfg",
          f"set timeout={handler.bootloader.timeout or 0}\n"
          f"search --no-floppy --fs-uuid --set=root {uuid_of}\n"
          f"menuentry 'rekindle lab' {{\n"
          f"  linux {prefix}/vmlinuz-{kernel} root=UUID={disk.root_uuid} ro {append}\n"
          f"  initrd {prefix}/initramfs-{kernel}.img\n}}\n")
    if disk.efi:
        sh("chroot", ROOT, "grub2-install", "--target=x86_64-efi", "--efi-directory=/boot/efi",
           "--bootloader-id=rekindle-lab")
    else:
        sh("chroot", ROOT, "grub2-install", "--target=i386-pc", disk.device)


def settings(handler, disk):
    """What Anaconda's modules write."""
    write("/etc/fstab", "".join(f"{line}\n" for line in disk.fstab))
    write("/etc/machine-id", "")
    write("/etc/locale.conf", f"LANG={handler.lang.lang}\n")
    write("/etc/vconsole.conf", f"KEYMAP={handler.keyboard.vc_keymap or handler.keyboard.keyboard}\n")
    zone = handler.timezone.timezone
    if not (ROOT / "usr/share/zoneinfo" / zone).exists():
        raise Refused(f"timezone {zone} does not exist")
    sh("ln", "-sf", f"../usr/share/zoneinfo/{zone}", ROOT / "etc/localtime")
    write("/etc/adjtime", "0.0 0 0.0\n0\n" + ("UTC\n" if handler.timezone.isUtc else "LOCAL\n"))
    servers = [source.ntp_server for source in handler.timesource.dataList() if source.ntp_server]
    write("/etc/chrony.conf", "".join(f"server {server} iburst\n" for server in servers) + "rtcsync\n")
    mode = {0: "disabled", 1: "enforcing", 2: "permissive"}.get(handler.selinux.selinux, "enforcing")
    write("/etc/selinux/config", f"SELINUX={mode}\nSELINUXTYPE=targeted\n")
    for network in handler.network.network:
        address_file(network)
        write("/etc/hostname", f"{network.hostname}\n")
    accounts(handler)
    sh("chroot", ROOT, "ldconfig")
    sh("chroot", ROOT, "systemctl", "set-default", "multi-user.target", stderr=subprocess.DEVNULL)
    sh("chroot", ROOT, "systemctl", "enable", "NetworkManager", *handler.services.enabled)
    if handler.services.disabled:
        sh("chroot", ROOT, "systemctl", "disable", *handler.services.disabled)
    if handler.firewall.enabled is False:
        sh("chroot", ROOT, "systemctl", "disable", "firewalld", check=False, stderr=subprocess.DEVNULL)


def address_file(network):
    """As EL9's Anaconda: a NetworkManager keyfile, bound to the card."""
    mac = network.device.upper()
    if not re.fullmatch(r"([0-9A-F]{2}:){5}[0-9A-F]{2}", mac):
        raise Refused("network --bindto=mac needs --device=<MAC>")
    prefix = sum(bin(int(octet)).count("1") for octet in network.netmask.split("."))
    dns = f"dns={network.nameserver.replace(',', ';')};\n" if network.nameserver else ""
    write("/etc/NetworkManager/system-connections/rekindle-lab.nmconnection",
          f"[connection]\nid=private\nuuid={uuid.uuid4()}\ntype=ethernet\nautoconnect=true\n"
          f"[ethernet]\nmac-address={mac}\n"
          f"[ipv4]\nmethod=manual\naddress1={network.ip}/{prefix},{network.gateway}\n{dns}"
          f"[ipv6]\nmethod=disabled\n", 0o600)


def accounts(handler):
    if not handler.rootpw.lock:
        raise Refused("rootpw without --lock is not carried out")
    sh("chroot", ROOT, "usermod", "-p", "!", "root")
    for key in handler.sshkey.sshUserList:
        file = ROOT / "root/.ssh/authorized_keys"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with file.open("a") as keys:
            keys.write(key.key + "\n")
        file.chmod(0o600)
    for user in handler.user.userList:
        sh("chroot", ROOT, "groupadd", "-g", user.gid, user.name)
        sh("chroot", ROOT, "useradd", "-m", "-s", "/bin/bash", "-u", user.uid, "-g", user.gid, user.name)


def install(handler):
    efi = os.path.isdir("/sys/firmware/efi")
    if efi:
        sh("mount", "-t", "efivarfs", "e", "/sys/firmware/efi/efivars", check=False)
    disk = Disk(handler, efi)
    log(f"disk {disk.device}, {'UEFI' if efi else 'BIOS'}, {disk.label}: {disk.wanted}", "storage")
    disk.partition()
    disk.format()
    packages(handler)
    boot_loader(handler, disk)
    log("boot loader is in")
    settings(handler, disk)
    log("settings are written")
    run_scripts(handler, KS_POST)
    if "inst.nosave=all_ks" not in Path("/proc/cmdline").read_text():
        for name in ("anaconda-ks.cfg", "original-ks.cfg"):
            write(f"/root/{name}", Path(KICKSTART).read_text(), 0o600)
    write("/var/log/anaconda/anaconda.log", Path("/tmp/anaconda.log").read_text(), 0o600)
    sh("sync")
    for name in ("run", "dev", "sys", "proc"):
        sh("umount", "-R", "-l", ROOT / name, check=False)
    for mount, _ in sorted(disk.mounts, reverse=True):
        sh("umount", ROOT / mount.lstrip("/"), check=False)
    log("installation is complete")


def main():
    os.environ.update(PATH="/usr/sbin:/usr/bin:/sbin:/bin", LANG="C.UTF-8", HOME="/root")
    sh("mount", "-t", "tmpfs", "t", "/tmp")
    os.makedirs("/dev/pts", exist_ok=True)
    sh("mount", "-t", "devpts", "p", "/dev/pts", check=False)
    log.__init__()
    arguments = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
    if "inst.syslog" in arguments:
        log.connect(arguments["inst.syslog"])
    log("stand-in for Anaconda, stage 2")
    ROOT.mkdir(parents=True, exist_ok=True)
    handler = None
    try:
        handler = parse(missing_include_is_fatal=False)
        run_scripts(handler, KS_PRE)
        refuse_what_is_not_carried_out(KICKSTART)
        handler = parse(missing_include_is_fatal=True)
        log("kickstart is parsed")
        install(handler)
    except BaseException as error:
        traceback.print_exc()
        log(f"FAILED: {type(error).__name__}: {error}")
        if handler:
            run_scripts(handler, KS_ONERROR)
        # Anaconda sleeps 180 s here.
        time.sleep(5)
    sys.stdout.flush()
    os.sync()
    ctypes.CDLL(None).reboot(0x01234567)


if __name__ == "__main__":
    from pykickstart.constants import KS_SCRIPT_ONERROR as KS_ONERROR
    from pykickstart.constants import KS_SCRIPT_POST as KS_POST
    from pykickstart.constants import KS_SCRIPT_PRE as KS_PRE
    main()
