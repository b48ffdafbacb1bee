"""The EL-shaped test distribution: an install tree that Anaconda's ways fit, made of Debian's files.

Real: kernel, rpm packages and their transaction, dnf, createrepo_c, package signatures, grub, OpenMPI.
Stand-ins, and named so: the installer (distro/boot/installer), pbs_mom, torque's files.
Built once, kept under .work/ by a hash of everything it is made from. What differs between releases,
and the installer itself, is added by releases.py.
"""

import fcntl
import hashlib
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from . import rpms
from .shell import LAB, WORK, LabError, run, say

SUITE = "bookworm"
RECIPE = LAB / "distro"
BOOT = RECIPE / "boot"

# What the installed system is made of.
PACKAGES = """systemd-sysv dbus udev kmod openssh-server openssh-client iproute2 iputils-ping chrony
network-manager grub-pc-bin grub-efi-amd64-bin grub2-common e2fsprogs xfsprogs dosfstools efibootmgr
less procps curl netbase passwd util-linux libpam-systemd nftables munge dnf rpm tzdata hostname
tar fdisk lvm2 mdadm smartmontools iptables rsyslog openmpi-bin""".split()

# What the installer loads: disks, cards and file systems of old and virtual machines.
INSTALLER_MODULES = """crc32c_generic crc32c_intel libcrc32c virtio_pci virtio_net e1000 e1000e 8139too
8139cp e100 pcnet32 ne2k_pci r8169 vmxnet3 af_packet virtio_blk virtio_scsi ahci ata_piix sd_mod nvme
loop squashfs overlay ext4 vfat nls_cp437 nls_ascii nls_iso8859_1 xfs efivarfs dm_mod raid1 linear edd""".split()

# What the installed system loads besides: its firewall, a master's, and a card that leads to a namespace.
TARGET_MODULES = INSTALLER_MODULES + """nf_tables nft_ct nft_limit nft_log nft_reject_inet nf_log_syslog
nf_conntrack nft_nat nft_masq nft_chain_nat veth nft_compat ip_tables ip6_tables xt_conntrack xt_limit xt_LOG xt_tcpudp ip6t_rt""".split()

# Not in Anaconda's environment, so not here: a %pre that needs them must fail in the lab.
ABSENT = "base64 nproc timeout shuf nohup install truncate sha512sum whoami ssh-keygen openssl".split()


@dataclass(frozen=True)
class Distro:
    """A built distribution."""

    dir: Path

    tree = property(lambda self: self.dir / "tree")
    repo = property(lambda self: self.dir / "repo")
    # A package that is not in the repository yet.
    late = property(lambda self: next(self.dir.glob("late/*.rpm")))
    key = property(lambda self: self.dir / "RPM-GPG-KEY-lab")
    kernel = property(lambda self: self.dir / "tree/images/pxeboot/vmlinuz")
    # What an initrd is made of, but for its init.
    early = property(lambda self: self.dir / "early")
    probe = property(lambda self: self.dir / "probe.img")


def fingerprint() -> str:
    """Changes whenever something changes that the distribution is made from."""
    digest = hashlib.sha256()
    recipe = [file for file in RECIPE.rglob("*") if BOOT not in file.parents]
    for file in sorted([*recipe, Path(__file__), Path(rpms.__file__)]):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def build() -> Distro:
    """Builds the distribution, or finds it built. Of two labs in one checkout, the second waits."""
    with (WORK / "distro.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        dir = WORK / "distro" / fingerprint()
        if not (dir / "complete").exists():
            for old in (WORK / "distro").glob("*"):
                # Younger ones may be served to a lab that runs.
                if time.time() - old.stat().st_mtime > 86400:
                    remove(old)
            if dir.exists():
                remove(dir)
            dir.mkdir(parents=True)
            make(dir)
        return Distro(dir)


def remove(dir: Path) -> None:
    """Removes a build, also one that was interrupted: its root may still have /dev and /sys mounted."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{dir}/")), reverse=True):
        run("umount", mount)
    shutil.rmtree(dir)


def make(dir: Path) -> None:
    """All of it."""
    log = dir / "build.log"
    say("building the EL-shaped test distribution (once, some minutes)")
    target, stage2 = dir / "target", dir / "stage2"
    root(target, log)
    kernel = fetch_kernel(dir, log)
    say("  installer environment (stage 2)")
    run("cp", "-a", target, stage2)
    make_stage2(stage2, log)
    say("  the node's own files")
    furnish(target, kernel, dir)
    say("  packages: Debian's files under Enterprise Linux names, signed")
    signer = rpms.Signer(dir / "gnupg", dir / "RPM-GPG-KEY-lab")
    rpms.split(target, dir / "tree/Packages", dir / "rpmbuild", kernel.version, log)
    rpms.extras(dir / "repo", dir / "rpmbuild", log)
    signer.sign(dir / "tree/Packages", log)
    signer.sign(dir / "repo", log, leave=["rekindle-lab-unsigned"])
    signer.end()
    (dir / "late").mkdir()
    for late in (dir / "repo").glob("rekindle-lab-late-*"):
        late.rename(dir / "late" / late.name)
    run("createrepo_c", "-q", "-g", RECIPE / "comps.xml", dir / "tree", log=log)
    run("createrepo_c", "-q", dir / "repo", log=log)
    say("  boot images")
    images(dir, kernel, stage2, log)
    signed_loaders(dir, log)
    for done in (target, stage2, dir / "rpmbuild", dir / "kernel", dir / "signed"):
        shutil.rmtree(done)
    (dir / "complete").touch()


def root(target: Path, log: Path) -> None:
    """A Debian root that is taken apart into packages afterwards."""
    say("  a root file system of Debian packages")
    drop = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "i18n")]
    run("mmdebstrap", "--variant=minbase", "--mode=root", '--aptopt=APT::Install-Recommends "false"',
        *drop, f"--include={','.join(PACKAGES)}", SUITE, target, log=log)
    shutil.rmtree(target / "var/cache/apt", ignore_errors=True)
    shutil.rmtree(target / "var/lib/apt/lists", ignore_errors=True)


@dataclass(frozen=True)
class Kernel:
    """Debian's generic kernel, unpacked. (The cloud kernel has no drivers of real machines.)"""

    root: Path
    version: str

    modules = property(lambda self: self.root / "lib/modules" / self.version)
    image = property(lambda self: self.root / f"boot/vmlinuz-{self.version}")


def fetch_kernel(dir: Path, log: Path) -> Kernel:
    """Downloads the kernel package that linux-image-amd64 stands for."""
    say("  kernel")
    depends = run("apt-cache", "depends", "linux-image-amd64").stdout
    found = re.search(r"Depends: linux-image-(\S+-amd64)$", depends, re.M)
    if not found:
        raise LabError("apt knows no kernel behind linux-image-amd64; run apt-get update")
    version = found.group(1)
    into = dir / "kernel"
    into.mkdir()
    # apt drops its rights to a user of its own, who must be able to write here.
    into.chmod(0o777)
    run("apt-get", "download", f"linux-image-{version}", cwd=into, log=log)
    [package] = into.glob("*.deb")
    run("dpkg-deb", "-x", package, into / "root", log=log)
    run("depmod", "-b", into / "root", version, log=log)
    return Kernel(into / "root", version)


def signed_loaders(dir: Path, log: Path) -> None:
    """Debian's shim and GRUB where a DVD of Enterprise Linux has its own: Debian signed the kernel, too."""
    into = dir / "signed"
    into.mkdir()
    into.chmod(0o777)
    run("apt-get", "download", "shim-signed", "grub-efi-amd64-signed", cwd=into, log=log)
    for package in into.glob("*.deb"):
        run("dpkg-deb", "-x", package, into / "root", log=log)
    boot = dir / "tree/EFI/BOOT"
    boot.mkdir(parents=True)
    shutil.copy(into / "root/usr/lib/shim/shimx64.efi.signed", boot / "BOOTX64.EFI")
    shutil.copy(into / "root/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed", boot / "grubx64.efi")


def copy_modules(kernel: Kernel, into: Path, names: list[str]) -> None:
    """Copies modules with all they depend on."""
    depends = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        file, needs = line.split(":")
        depends[Path(file).name.split(".ko")[0].replace("-", "_")] = [file, *needs.split()]
    dest = into / "lib/modules" / kernel.version
    dest.mkdir(parents=True, exist_ok=True)
    builtin = (kernel.modules / "modules.builtin").read_text()
    for name in names:
        files = depends.get(name.replace("-", "_"))
        if not files:
            if not re.search(rf"/{name.replace('_', '[_-]')}\.ko", builtin):
                say(f"  (this kernel has no module {name})")
            continue
        for file in files:
            (dest / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(kernel.modules / file, dest / file)
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        shutil.copy(kernel.modules / name, dest)
    run("depmod", "-b", into, kernel.version)


def make_stage2(stage2: Path, log: Path) -> None:
    """Anaconda's environment, as far as the stand-in installer needs one."""
    run("python3", "-m", "pip", "install", "-q", "--no-compile", "--root-user-action=ignore",
        "--target", stage2 / "usr/lib/python3/dist-packages", "pykickstart==3.78", log=log)
    # There is no udev here: LVM makes its device nodes itself.
    (stage2 / "etc/lvm/lvmlocal.conf").write_text(
        "devices { obtain_device_list_from_udev = 0\n external_device_info_source = \"none\" }\n"
        "activation { udev_sync = 0\n udev_rules = 0 }\n")
    for name in ABSENT:
        for folder in ("usr/bin", "usr/sbin"):
            (stage2 / folder / name).unlink(missing_ok=True)
    # Without byte code the parser takes four times as long under emulation.
    run("chroot", stage2, "python3", "-m", "compileall", "-q", "/usr/lib/python3/dist-packages",
        "/usr/lib/python3.11", log=log, check=False)


def furnish(target: Path, kernel: Kernel, dir: Path) -> None:
    """Gives the node what Enterprise Linux has and Debian has elsewhere, and the stand-ins."""
    for file in (RECIPE / "target").rglob("*"):
        if file.is_file():
            to = target / file.relative_to(RECIPE / "target")
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, to)
            to.chmod(0o755 if file.read_bytes().startswith(b"#!") else 0o644)
    (target / "usr/sbin/grub2-install").symlink_to("grub-install")
    # OpenMPI's programs and settings are where Enterprise Linux has them, and nowhere else.
    for name in ("mpirun", "mpiexec"):
        (target / "usr/bin" / name).unlink()
    mpi = target / "usr/lib64/openmpi/bin"
    mpi.mkdir(parents=True)
    (mpi / "mpirun").symlink_to("/usr/bin/mpirun.openmpi")
    (mpi / "orted").symlink_to("/usr/bin/orted")
    (target / "etc/openmpi").rename(target / "etc/openmpi-x86_64")
    (target / "etc/openmpi").symlink_to("openmpi-x86_64")
    (target / "var/lib/torque").mkdir()
    (target / "var/lib/torque/server_name").symlink_to("/etc/torque/server_name")
    (target / "etc/sysconfig").mkdir(exist_ok=True)
    (target / "etc/yum.repos.d").mkdir(exist_ok=True)
    # Debian's unit of sshd would run beside Enterprise Linux's.
    for name in ("ssh.service", "ssh.socket", "ssh@.service", "nftables.service", "chrony.service"):
        if not (RECIPE / "target/usr/lib/systemd/system" / name).exists():
            (target / "usr/lib/systemd/system" / name).unlink(missing_ok=True)
    # What Debian's packages switched on is off again: what runs on a node is the kickstart's to say.
    units = target / "etc/systemd/system"
    for kind in ("multi-user", "timers", "sysinit", "sockets"):
        shutil.rmtree(units / f"{kind}.target.wants", ignore_errors=True)
    for link in [file for file in units.iterdir() if file.is_symlink()]:
        link.unlink()
    for key in (target / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for name in ("munge.key",):
        (target / "etc/munge" / name).unlink(missing_ok=True)
    # systemctl would hand these to Debian's update-rc.d.
    shutil.rmtree(target / "etc/init.d", ignore_errors=True)
    copy_modules(kernel, target / "usr", TARGET_MODULES)
    boot = target / "boot"
    shutil.copy(kernel.image, boot / f"vmlinuz-{kernel.version}")
    early = dir / "early"
    copy_modules(kernel, early, INSTALLER_MODULES)
    initramfs(early, RECIPE / "sysroot-init.sh", boot / f"initramfs-{kernel.version}.img")


def initramfs(root: Path, init: Path, image: Path) -> None:
    """Packs busybox, an init script and the folder into an initramfs."""
    for folder in ("bin", "proc", "sys", "dev", "run", "sysroot", "newroot", "etc", "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    shutil.copy(init, root / "init")
    (root / "init").chmod(0o755)
    image.parent.mkdir(parents=True, exist_ok=True)
    names = run("find", ".", cwd=root).stdout
    run("sh", "-c", f"cpio -o -H newc --quiet | gzip -1 > '{image}'", cwd=root, input=names)


def images(dir: Path, kernel: Kernel, stage2: Path, log: Path) -> None:
    """images/ of the tree, and the smallest Linux for the question whether KVM works."""
    boot = dir / "tree/images/pxeboot"
    boot.mkdir(parents=True)
    shutil.copy(kernel.image, boot / "vmlinuz")
    (dir / "early/modules").write_text("\n".join(INSTALLER_MODULES) + "\n")
    initramfs(dir / "tiny", RECIPE / "probe-init.sh", dir / "probe.img")
    shutil.rmtree(dir / "tiny")
    skip = """var/lib/dpkg usr/share/doc usr/share/locale usr/share/man usr/share/zoneinfo usr/lib/modules
        usr/lib/x86_64-linux-gnu/perl usr/lib/x86_64-linux-gnu/perl-base usr/share/perl boot""".split()
    run("mksquashfs", stage2, dir / "tree/images/install.img", "-noappend", "-comp", "zstd",
        "-Xcompression-level", "6", "-no-progress", "-quiet", "-e", *skip, log=log)
