"""The new system: its packages, boot loader, settings and accounts."""

import os
import re
import subprocess
import uuid
from pathlib import Path

from common import ROOT, Refused, log, sh, write


def bind_kernel_files() -> None:
    """proc, sys, dev and run in the new root."""
    for name in ("proc", "sys", "dev", "run"):
        (ROOT / name).mkdir(exist_ok=True)
        # --bind would hide efivars below /sys.
        sh("mount", "--rbind", f"/{name}", ROOT / name)


def dnf_command(handler, release: int) -> list[str]:
    """dnf as the kickstart wants it. Like Anaconda it does not check signatures of the tree it was
    booted from."""
    chosen = handler.packages
    command = ["dnf", "-y", f"--installroot={ROOT}", f"--releasever={release}", "--setopt=reposdir=/nonexistent",
               "--setopt=keepcache=0", "--setopt=cachedir=/tmp/dnf", "--nogpgcheck"]
    # EL7 has no weak dependencies, nor has its pykickstart the option.
    if release == 7 or chosen.excludeWeakdeps:
        command.append("--setopt=install_weak_deps=0")
    if chosen.excludeDocs:
        command.append("--setopt=tsflags=nodocs")
    command += [f"--repofrompath=anaconda,{handler.url.url}", "--repo=anaconda"]
    for repo in handler.repo.repoList:
        command += [f"--repofrompath={repo.name},{repo.baseurl}", f"--repo={repo.name}"]
        if repo.cost:
            command.append(f"--setopt={repo.name}.cost={repo.cost}")
    return command


def wanted_packages(chosen, efi: bool) -> list[str]:
    """What dnf is asked for."""
    wanted = [] if chosen.nocore else ["@core"]
    wanted += [f"@{group.name}" for group in chosen.groupList if group.name != "core"]
    wanted += [*chosen.packageList, "kernel-core", "grub2-tools", "grub2-efi-x64" if efi else "grub2-pc"]
    wanted += ["efibootmgr"] if efi else []
    return wanted + [word for name in chosen.excludedList for word in ("-x", name)]


def packages(handler, release: int) -> None:
    """A real dnf transaction into the new root."""
    bind_kernel_files()
    chosen = handler.packages
    if chosen.instLangs:
        write("/etc/rpm/macros.image-language-conf", f"%_install_langs {chosen.instLangs}\n")
    wanted = wanted_packages(chosen, os.path.isdir("/sys/firmware/efi"))
    log(f"dnf installs {' '.join(wanted)}", "packaging")
    lines = []
    with subprocess.Popen([*dnf_command(handler, release), "install", *wanted], stdin=subprocess.DEVNULL,
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


def boot_loader(handler, disk) -> None:
    """grub, and its menu of one entry."""
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


def settings(handler, disk, release: int) -> None:
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
    servers = time_servers(handler, release)
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


def time_servers(handler, release: int) -> list[str]:
    """`timezone --ntpservers` up to EL8, `timesource` after it."""
    if release <= 8:
        return list(handler.timezone.ntpservers)
    return [source.ntp_server for source in handler.timesource.dataList() if source.ntp_server]


def address_file(network) -> None:
    """As Anaconda of EL9 and 10: a NetworkManager keyfile, bound to the card. EL7's and EL8's writes
    ifcfg-rh files of the same meaning; Debian's NetworkManager does not read those, so they get the
    keyfile too."""
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


def accounts(handler) -> None:
    """root without a password, and the users."""
    if not handler.rootpw.lock:
        raise Refused("rootpw without --lock is not carried out")
    sh("chroot", ROOT, "usermod", "-p", "!", "root")
    for user in handler.user.userList:
        sh("chroot", ROOT, "groupadd", "-g", user.gid, user.name)
        sh("chroot", ROOT, "useradd", "-m", "-s", "/bin/bash", "-u", user.uid, "-g", user.gid, user.name)
