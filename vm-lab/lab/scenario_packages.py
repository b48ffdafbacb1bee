"""The owner's packages: added after a node was installed, with what they need, and refused when somebody changed them."""

from pathlib import Path

from .installing import install
from .master import Settings
from .proof import REPO_EXPIRES
from .session import Lab
from .shell import run, say

SPEC = """\
Name: {name}
Version: 1.0
Release: 1
Summary: A package of the owner's
License: MIT
BuildArch: noarch
{more}
%description
A package of the owner's.
%install
mkdir -p %{{buildroot}}/usr/share/{name}
echo hello >%{{buildroot}}/usr/share/{name}/hello
%files
/usr/share/{name}
"""
# A module with one package, as libmodulemd writes it.
MODULES = """\
---
document: modulemd
version: 2
data:
  name: lab
  stream: new
  version: 1
  context: deadbeef
  arch: x86_64
  summary: A module
  description: A module.
  license:
    module:
    - MIT
  profiles:
    default:
      rpms:
      - lab-modular
  artifacts:
    rpms:
    - lab-modular-0:1.0-1.noarch
...
---
document: modulemd-defaults
version: 1
data:
  module: lab
  stream: new
  profiles:
    new: [default]
...
"""


def packages(lab: Lab) -> None:
    """`rekindle repo add` after a node was installed: with dependencies and modules; what somebody changed is refused."""
    lab.serve(Settings([lab.medium]))
    shelf = Shelf(lab)
    lab.master.rekindle("repo", "add", str(lab.medium.built.late))
    [name] = install(lab, lab.machine(lab.hardware()))
    if not lab.proof.holds():
        return
    lab.phases.begin("packages")
    ip = lab.master.nodes()[name]["ip"]

    def asks_nobody():
        found = lab.master.ask(ip, "grep -h gpgcheck /etc/yum.repos.d/rekindle.repo | sort | uniq -c; "
                               "dnf -q repoquery --repo rekindle-cluster rekindle-lab-late </dev/null", timeout=900)
        return "1 repo_gpgcheck=1" in found and "rekindle-lab-late-" in found and "Is this ok" not in found, found
    lab.proof.check("S7", f"{name}: the index's signature is checked from the first start, without a question", asks_nobody)

    def wanted(packages: str, more: str = ""):
        # No cache is cleaned: what the master got is there within a minute.
        return lab.master.ssh(ip, f"sleep {REPO_EXPIRES + 1}; dnf -y {more} install {packages} 2>&1 | tail -n 20; rpm -q {packages}; "
                              f"rpm -qi {packages} | grep ^Signature", timeout=900).stdout

    def added():
        shelf.fill("lab-library", "lab-tool")
        said = lab.master.rekindle("repo", "add", str(shelf.folder))
        found = wanted("lab-tool") + lab.master.ask(ip, "rpm -q lab-library")
        good = "lab-tool-1.0-1.noarch.rpm" in said and "not installed" not in found and found.count("lab-library-1.0-1") >= 1
        return good and "RSA/SHA256" in found, found
    lab.proof.check("S8", f"{name}: a package and what it needs, added by the owner and signed by the cluster, are installed", added)

    def modular():
        shelf.fill("lab-modular")
        (shelf.folder / "modules.yaml").write_text(MODULES)
        lab.master.rekindle("repo", "add", str(shelf.folder))
        found = wanted("lab-modular", "--setopt=rekindle-cluster.module_hotfixes=0 --setopt=module_platform_id=platform:el9")
        module = lab.master.ask(ip, "dnf -q --setopt=module_platform_id=platform:el9 module list lab 2>&1; true", timeout=900)
        return "not installed" not in found and "lab  new" in " ".join(module.split(" ")), f"{found} {module}"
    lab.proof.check("S8", f"{name}: a package of a module comes with the module's metadata", modular)

    def changed_package():
        shelf.fill("lab-other")
        lab.master.rekindle("repo", "add", str(shelf.folder))
        somebody_changes(lab.master.repo / "lab-other-1.0-1.noarch.rpm", -1)
        found = wanted("lab-other")
        return "lab-other is not installed" in found and "hecksum" in found, found
    lab.proof.check("S7", f"{name}: a package that somebody changed is refused", changed_package)

    def changed_index():
        # A whole package, signed by nobody, and an index that is right about it.
        shelf.fill("lab-foreign")
        run("cp", *shelf.folder.glob("*.rpm"), lab.master.repo)
        run("createrepo_c", "-q", "--update", lab.master.repo)
        found = wanted("lab-foreign")
        return "lab-foreign is not installed" in found and "GPG" in found, found
    lab.proof.check("S7", f"{name}: an index that somebody changed is refused", changed_index)

    def mended():
        say("the owner vouches for it")
        lab.master.rekindle("repo", "add", str(shelf.folder))
        found = wanted("lab-foreign")
        return "not installed" not in found and "RSA/SHA256" in found, found
    lab.proof.check("S8", f"{name}: the owner adds the same package, and it is installed", mended)


def somebody_changes(file: Path, at: int) -> None:
    """One bit of a file is another one, in the file that is served only."""
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.unlink()
    file.write_bytes(content)


class Shelf:
    """Packages as an owner builds them: nobody signed them."""

    NEEDS = {"lab-tool": "Requires: lab-library", "lab-modular": "ModularityLabel: lab:new:1:deadbeef"}

    def __init__(self, lab: Lab) -> None:
        self.dir = lab.master.dir / "shelf"
        self.folder = self.dir / "noarch"

    def fill(self, *names: str) -> None:
        """Builds these; others go."""
        run("rm", "-rf", self.dir)
        self.dir.mkdir()
        for name in names:
            spec = self.dir / f"{name}.spec"
            spec.write_text(SPEC.format(name=name, more=self.NEEDS.get(name, "")))
            run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {self.dir}/work", "--define", f"_rpmdir {self.dir}",
                "--define", "_binary_payload w1.gzdio", spec)


STORIES = {"packages": packages}
