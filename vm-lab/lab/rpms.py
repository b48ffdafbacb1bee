"""A Debian root taken apart into RPM packages with Enterprise Linux names, and their signatures."""

import os
import re
import stat
import subprocess
from pathlib import Path

from .shell import run

# Debian's package -> Enterprise Linux's. The rest keeps its name.
NAMES = {
    "libc6": "glibc", "libc-bin": "glibc-common", "systemd-sysv": "systemd", "udev": "systemd-udev",
    "openssh-client": "openssh-clients", "network-manager": "NetworkManager", "dbus": "dbus-daemon",
    "dbus-bin": "dbus-daemon", "grub-pc-bin": "grub2-pc", "grub-efi-amd64-bin": "grub2-efi-x64",
    "grub-common": "grub2-tools", "grub2-common": "grub2-tools", "passwd": "shadow-utils",
    "login": "shadow-utils", "procps": "procps-ng", "iproute2": "iproute", "iputils-ping": "iputils",
    "libgcc-s1": "libgcc", "libstdc++6": "libstdc++", "python3.11-minimal": "python3",
    "python3-minimal": "python3", "python3.11": "python3", "libpython3.11-minimal": "python3-libs",
    "libpython3.11-stdlib": "python3-libs", "libpython3-stdlib": "python3-libs", "base-files": "setup",
    "netbase": "setup", "base-passwd": "setup", "media-types": "setup", "libssl3": "openssl-libs",
    "libpam0g": "pam", "libpam-modules": "pam", "libpam-modules-bin": "pam", "libpam-runtime": "pam",
    "libpam-systemd": "systemd-pam", "zlib1g": "zlib", "util-linux-extra": "util-linux",
    "mount": "util-linux", "bsdutils": "util-linux", "mawk": "gawk", "perl-base": "perl-interpreter",
    "openmpi-bin": "openmpi", "openmpi-common": "openmpi",
}

# Debian's own tools: the node is not a Debian.
DROPPED = """debugedit rpm2cpio apt dpkg debconf debian-archive-keyring ucf libapt-pkg6.0 usrmerge libperl5.36
perl-modules-5.36 perl libfile-find-rule-perl libtext-glob-perl libnumber-compare-perl sgml-base xml-core
runit-helper python3-lib2to3 python3-distutils pinentry-curses gnupg-l10n gpg-wks-client
gpg-wks-server""".split()

# Files that belong to no Debian package, by their first words.
OWNED = [
    ("/boot/", "kernel-core"), ("/usr/lib/modules/", "kernel-core"), ("/usr/sbin/pbs_mom", "torque-mom"),
    ("/usr/lib/systemd/system/pbs_mom.service", "torque-mom"), ("/etc/torque/mom/", "torque-mom"),
    ("/usr/bin/pbsnodes", "torque-client"), ("/etc/torque/server_name", "torque"),
    ("/var/lib/torque/", "torque"), ("/usr/lib/systemd/system/sshd.service", "openssh-server"),
    ("/usr/lib/systemd/system/sshd-keygen", "openssh-server"), ("/usr/sbin/grub2-install", "grub2-tools"),
    ("/usr/lib/systemd/system/chronyd.service", "chrony"),
    ("/usr/lib/systemd/system/nftables.service", "nftables"),
    ("/usr/lib/systemd/system/iptables.service", "iptables-services"),
    ("/usr/lib/systemd/system/ip6tables.service", "iptables-services"), ("/usr/lib64/openmpi/", "openmpi"), ("/etc/openmpi", "openmpi"),
]

REQUIRED = {
    "kernel-core": ["systemd", "kmod"], "torque-mom": ["systemd", "python3", "munge"], "torque": [],
    "torque-client": ["torque"], "bash": ["dash"], "iptables-services": ["iptables", "systemd"],
}

SKIPPED = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/lib/dpkg", "/var/cache", "/var/lib/apt", "/var/log",
           "/etc/apt", "/usr/share/doc", "/usr/share/man", "/usr/share/perl", "/usr/share/perl5",
           "/usr/lib/x86_64-linux-gnu/perl/", "/var/tmp", "/usr/share/info", "/usr/share/lintian",
           "/usr/share/bug", "/etc/dpkg", "/var/lib/ucf", "/usr/share/locale")

HEAD = """%define __os_install_post %{nil}
%define __check_files %{nil}
%define _build_id_links none
%define _empty_manifest_terminate_build 0
%define _unpackaged_files_terminate_build 0
%define debug_package %{nil}
%define _binary_payload w1.gzdio
Name: el-shaped
Version: 9
Release: 1
Summary: Packages of the rekindle lab
License: various
AutoReqProv: no
%description
Packages of the rekindle lab.
%prep
%build
%clean
"""


def split(root: Path, into: Path, work: Path, kernel: str, log: Path) -> None:
    """Makes an RPM of each Debian package of the root."""
    work.mkdir(parents=True, exist_ok=True)
    into.mkdir(parents=True)
    debian = installed(root)
    files = owned_files(root, debian)
    unowned(root, files)
    sources: dict[str, list[str]] = {name: [] for name in files}
    for package in debian:
        if package not in DROPPED:
            sources.setdefault(NAMES.get(package, package), []).append(package)
    spec = [HEAD]
    for name in sorted(sources):
        needs = sorted(requirements(name, sources[name], debian))
        version = debian[sources[name][0]].version if sources[name] else "1.0"
        if name == "kernel-core":
            version = kernel.split("-")[0]
        spec.append(subpackage(name, version, needs))
        listing = work / f"{name}.files"
        listing.write_text("".join(manifest(root, name, files.get(name, set()))))
        spec.append(f"%files -n {name} -f {listing}")
    build("\n".join(spec), root, into, work, log)


def extras(into: Path, work: Path, log: Path) -> None:
    """For the cluster's own repository: good packages, and one that nobody signed."""
    root = work / "extras"
    spec = [HEAD]
    for name in ("rekindle-lab-hello", "rekindle-lab-late", "rekindle-lab-unsigned"):
        file = root / f"usr/share/{name}/hello"
        file.parent.mkdir(parents=True)
        file.write_text("hello from the master's repository\n")
        spec.append(subpackage(name, "1.0", ["filesystem"]))
        spec.append(f"%files -n {name}\n/usr/share/{name}")
    into.mkdir(parents=True)
    build("\n".join(spec), root, into, work, log)


class Signer:
    """A package-signing key made for this build."""

    def __init__(self, home: Path, public: Path):
        self.home = home
        home.mkdir(mode=0o700)
        run("gpg", "--homedir", home, "--batch", "--passphrase", "", "--quick-generate-key",
            "rekindle lab <lab@localhost>", "rsa2048", "sign", "never")
        exported = run("gpg", "--homedir", home, "--armor", "--export").stdout
        public.write_text(exported)

    def sign(self, folder: Path, log: Path, leave: list[str] = []) -> None:
        """Signs every package of the folder but those named."""
        packages = [file for file in sorted(folder.glob("*.rpm"))
                    if not any(file.name.startswith(name) for name in leave)]
        # Each call of rpmsign holds one lock and one process; two at once use both cores.
        halves = [packages[0::2], packages[1::2]]
        command = ["rpmsign", "--define", "__gpg /usr/bin/gpg", "--define", "_gpg_name rekindle lab", "--define", f"_gpg_path {self.home}",
                   "--addsign"]
        with log.open("ab") as out:
            running = [subprocess.Popen([*command, *map(str, half)], stdin=subprocess.DEVNULL, stdout=out,
                                        stderr=out) for half in halves if half]
            if any([process.wait() for process in running]):
                from .shell import LabError
                raise LabError(f"rpmsign failed; its output is in {log}")


    def end(self) -> None:
        """Ends the agent that gpg started."""
        run("gpgconf", "--homedir", self.home, "--kill", "all")


class Package:
    """What dpkg knows of a package."""

    def __init__(self, version: str, depends: str):
        version = re.sub(r"[^A-Za-z0-9.+~]", ".", version.split(":")[-1].rsplit("-", 1)[0])
        self.version = version or "1"
        self.depends = depends
        self.provided: dict[str, str] = {}


def installed(root: Path) -> dict[str, Package]:
    """All installed packages of the root."""
    form = "${Package}\t${Version}\t${Depends}, ${Pre-Depends}\t${Provides}\n"
    packages, provided = {}, {}
    for line in run("chroot", root, "dpkg-query", "-W", "-f", form).stdout.splitlines():
        name, version, depends, provides = line.split("\t")
        packages[name] = Package(version, depends)
        for virtual in re.findall(r"[a-z0-9][a-z0-9.+-]+", re.sub(r"\([^)]*\)", "", provides)):
            provided.setdefault(virtual, name)
    for package in packages.values():
        package.provided = provided
    return packages


def canonical(root: Path, path: str) -> str:
    """/bin/x and /usr/bin/x are one file on a merged /usr."""
    first, _, rest = path.lstrip("/").partition("/")
    if rest and (root / first).is_symlink():
        return "/" + os.readlink(root / first).lstrip("/") + "/" + rest
    return path


def owned_files(root: Path, debian: dict[str, Package]) -> dict[str, set[str]]:
    """RPM name -> its files."""
    files: dict[str, set[str]] = {name: set() for _, name in OWNED}
    taken: set[str] = set()
    for package in sorted(debian, key=lambda name: name not in DROPPED):
        name = NAMES.get(package, package)
        for path in run("chroot", root, "dpkg", "-L", package).stdout.splitlines():
            if not path.startswith("/"):
                continue
            path = canonical(root, path)
            file = str(root) + path
            if not os.path.lexists(file) or path in taken:
                continue
            if stat.S_ISDIR(os.lstat(file).st_mode):
                # Folders are `filesystem`'s, but that knows no users yet.
                if package not in DROPPED and not is_roots(file):
                    taken.add(path)
                    files.setdefault(name, set()).add(f"%dir {path}")
                continue
            # Links at the root (/lib, /sbin) are everybody's: `filesystem` has them.
            if path.count("/") == 1 or any(path.startswith(first) for first, _ in OWNED):
                continue
            taken.add(path)
            if package not in DROPPED:
                files.setdefault(name, set()).add(path)
    files["-taken"] = taken
    return files


def unowned(root: Path, files: dict[str, set[str]]) -> None:
    """Files of no package go where OWNED says, or to `setup`; directories to `filesystem`."""
    taken = files.pop("-taken")
    folders: set[str] = set()
    for where, names, found in os.walk(root):
        base = where[len(str(root)):] or "/"
        if base != "/" and base not in taken:
            folders.add(base)
        for name in list(names):
            path = f"{base.rstrip('/')}/{name}"
            if os.path.islink(str(root) + path):
                found.append(name)
                names.remove(name)
            elif path.startswith(SKIPPED):
                names.remove(name)
                if path.count("/") <= 2:
                    folders.add(path)
        for name in found:
            path = f"{base.rstrip('/')}/{name}"
            if path in taken or path.endswith(".pyc") or path.startswith(SKIPPED) or is_local(path):
                continue
            owner = next((rpm for first, rpm in OWNED if path.startswith(first)), "setup")
            files.setdefault("filesystem" if base == "/" else owner, set()).add(path)
    files.setdefault("filesystem", set()).update(f"%dir {folder}" for folder in folders)


def is_roots(file: str) -> bool:
    """Whether user and group are root."""
    info = os.lstat(file)
    return info.st_uid == info.st_gid == 0


def is_local(path: str) -> bool:
    """Files that every machine makes for itself."""
    return bool(re.match(r"/etc/(ssh/ssh_host_|machine-id|resolv.conf|hostname|munge/munge.key)", path))


def requirements(name: str, sources: list[str], debian: dict[str, Package]) -> set[str]:
    """What an RPM needs: Debian's Depends under the other names."""
    if name == "filesystem":
        return set()
    if name == "setup":
        return {"filesystem"}
    needs = {"filesystem", "setup", *REQUIRED.get(name, [])}
    for source in sources:
        for alternatives in debian[source].depends.split(","):
            for one in alternatives.split("|"):
                one = re.sub(r"\([^)]*\)|:any", "", one).strip()
                one = one if one in debian else debian[source].provided.get(one, "")
                if one in debian:
                    if one not in DROPPED:
                        needs.add(NAMES.get(one, one))
                    break
    return needs - {name}


def subpackage(name: str, version: str, needs: list[str]) -> str:
    """The preamble of a subpackage."""
    lines = [f"%package -n {name}", f"Summary: {name} of the rekindle lab", f"Version: {version}",
             "Release: 1.el9", "AutoReqProv: no"]
    if name == "filesystem":
        lines.append("Provides: /bin/sh")
    lines += [f"Requires: {need}" for need in needs]
    return "\n".join([*lines, f"%description -n {name}", f"{name}, made for the rekindle lab."])


def manifest(root: Path, name: str, files: set[str]):
    """The lines of a %files list, with mode and owner as the root has them."""
    users, groups = (owners(root / "etc" / file) for file in ("passwd", "group"))
    for path in sorted(files):
        folder = path.startswith("%dir ")
        path = path.removeprefix("%dir ")
        info = os.lstat(str(root) + path)
        quoted = '"' + path.replace("%", "%%") + '"' if re.search(r"[\s\[\]*?%{}$]", path) else path
        if folder:
            yield f"%dir %attr({info.st_mode & 0o7777:o},{users[info.st_uid]},{groups[info.st_gid]}) {quoted}\n"
        elif stat.S_ISLNK(info.st_mode):
            yield quoted + "\n"
        elif stat.S_ISREG(info.st_mode):
            config = "%config(noreplace) " if path.startswith("/etc/") else ""
            yield f"{config}%attr({info.st_mode & 0o7777:o},{users[info.st_uid]},{groups[info.st_gid]}) {quoted}\n"


def owners(file: Path) -> dict[int, str]:
    """Number -> name: rpm takes a number for a name, finds nobody of that name, and gives the file to root."""
    lines = [line.split(":") for line in file.read_text().splitlines()]
    return {int(fields[2]): fields[0] for fields in lines}


def build(spec: str, root: Path, into: Path, work: Path, log: Path) -> None:
    """Runs rpmbuild over a file system that is already laid out."""
    file = work / f"{root.name}.spec"
    file.write_text(spec + "\n")
    define = [("_topdir", work / "top"), ("_rpmdir", into), ("clean_buildroot", "0"),
              ("_rpmfilename", "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm")]
    options = [word for key, value in define for word in ("--define", f"{key} {value}")]
    run("rpmbuild", "-bb", "--target", "x86_64", "--buildroot", root, *options, "--noclean", file, log=log)
