"""Stories of machines that are refused, that their owner adds something to, and that come in pairs."""

from . import proof as proving
from .installing import install, installed_row, reinstall
from .master import Settings
from .session import Lab, words_of
from .shell import run, say, wait_for
from .vm import Vm


def refused_row(lab: Lab, vm: Vm, name: str, reason: str) -> None:
    """%pre refuses a machine: the master knows why, the machine is off, its disks are as before."""
    blank = [drive for drive in vm.drives if drive.is_blank()]

    def refused():
        vm.power_on()
        lab.follow([name], until="failed", fatal=("held",))
        said = words_of(lab.master.nodes()[name])
        wait_for(f"{vm.name} switches itself off", 1800, lambda: not vm.is_on(), every=1)
        still = all(drive.is_blank() for drive in blank)
        return reason in said and still, f"failed: {said}; it is off; {len(blank)} blank disks still blank: {still}"
    lab.proof.check("safe", f"{name} is refused, says why, and switches itself off", refused)


def small_memory(lab: Lab) -> None:
    """768 MiB of memory: %pre says what is missing and switches off; never a prompt."""
    lab.serve(Settings([lab.medium]))
    vm = lab.machine(lab.hardware(memory_mib=768))
    vm.plug_in()
    lab.phases.begin("refused")
    refused_row(lab, vm, lab.add(vm), "MiB of memory, " + lab.medium.os + " needs ")


def refusals(lab: Lab) -> None:
    """Both refusals that need no installation, for CI: too little memory, and a CPU that is too old."""
    lab.serve(Settings([lab.release(9)]))
    old, small = lab.machine(lab.hardware(cpu="core2duo")), lab.machine(lab.hardware(memory_mib=768))
    for vm in (old, small):
        vm.plug_in()
    lab.phases.begin("refused")
    held_row(lab, old, lab.add(old))
    old.power_off()
    refused_row(lab, small, lab.add(small), "MiB of memory, el9 needs ")


def old_cpu(lab: Lab) -> None:
    """A CPU of 2006 is to get el9: held before a kernel is loaded; with fallback = "el8" it goes on by itself."""
    old, new = lab.release(8), lab.release(9)
    lab.serve(Settings([new, old]))
    vm = lab.machine(lab.hardware(cpu="core2duo"))
    vm.plug_in()
    name = lab.add(vm)
    lab.phases.begin("held")
    held_row(lab, vm, name)
    if not lab.proof.holds():
        return
    lab.phases.begin("fallback")
    say("the owner writes fallback = \"el8\" into cluster.toml; the machine still waits")
    lab.master.edit("[os.el9]\n", "[os.el9]\nfallback = \"el8\"\n")
    lab.medium = old
    wait_for(f"{name} goes on", 1800, lambda: lab.master.nodes()[name]["stage"] != "held", every=1)
    installed_row(lab, [name])
    proving.service_rows(lab.proof, lab.master, lab.master.nodes()[name]["ip"], name, old)


def held_row(lab: Lab, vm: Vm, name: str) -> None:
    """It waits, the screen says why, and no kernel came over the wire."""
    def held():
        vm.power_on()
        lab.follow([name], until="held", fatal=("failed",))
        why = "this CPU has no SSE4.2: el9 cannot run on it"
        wait_for("the screen says why", 1800, lambda: why in " ".join(vm.console_text().split()), every=1)
        kernel = b"vmlinuz" in vm.pcap.read_bytes()
        good = why in words_of(lab.master.nodes()[name]) and vm.disk.is_blank() and not kernel
        return good, f"{words_of(lab.master.nodes()[name])}; a kernel was asked for: {kernel}; disk blank: {vm.disk.is_blank()}"
    lab.proof.check("safe", f"{name} is held before any kernel is loaded, and its screen says why", held)


SNIPPETS = {
    "all.packages": "lvm2\nrekindle-lab-hello\n",
    "all.pre": "echo SNIPPET-ALL-PRE-RAN >/dev/console\n",
    "role-compute.post": "echo \"role of $(hostname -s 2>/dev/null || cat /etc/hostname)\" >/etc/lab-role\nrpm -q lvm2\n",
}


def snippets(lab: Lab) -> None:
    """Files of kickstart.d: packages, a %pre and a role's %post take effect."""
    lab.serve(Settings([lab.medium]))
    vm = lab.machine(lab.hardware())
    vm.plug_in()
    name = lab.add(vm, "--role", "compute")
    folder = lab.master.config.parent / "kickstart.d"
    folder.mkdir()
    for file, text in SNIPPETS.items():
        (folder / file).write_text(text)
    lab.phases.begin("install")
    vm.power_on()
    installed_row(lab, [name])
    if not lab.proof.holds():
        return
    ip = lab.master.nodes()[name]["ip"]

    def there():
        found = lab.master.ask(ip, "rpm -q lvm2 rekindle-lab-hello; cat /etc/lab-role; cat /var/log/rekindle-snippet.log")
        return "not installed" not in found and "role of " in found and found.count("lvm2-") == 2, found
    lab.proof.check("C2", f"{name}: packages and the role's %post took effect", there)

    def before_the_disk():
        text = vm.console_text()
        marker, disk = text.find("SNIPPET-ALL-PRE-RAN"), text.find("disk is ready")
        return 0 <= marker < disk, "it ran before the disk was written"
    lab.proof.check("C2", f"{name}: the %pre of all nodes ran first", before_the_disk)


def pair(lab: Lab) -> None:
    """Two nodes, ssh both ways as a user; one is installed again; both ways, no question, no warning."""
    lab.serve(Settings([lab.medium]))
    one, two = install(lab, *[lab.machine(lab.hardware()) for _ in range(2)])
    if not lab.proof.holds():
        return
    both_ways(lab, one, two)
    lab.phases.begin("push")
    push_rows(lab, one, two)
    lab.phases.begin("reinstall")
    lab.proof.check("C3", f"{two} is installed again", lambda: reinstall(lab, two))
    both_ways(lab, one, two)


def push_rows(lab: Lab, one: str, two: str) -> None:
    """What the owner changes later reaches nodes that are installed: shown first, then written, then nothing is left."""
    proof, master = lab.proof, lab.master
    ip = {name: master.nodes()[name]["ip"] for name in (one, two)}

    def answer(done, code: int, *words: str):
        text = done.stdout + done.stderr
        return done.returncode == code and all(word in text for word in words), f"exit code {done.returncode}: {text[-200:]}"
    proof.check("C2", "push: new nodes have every byte that they should have",
                lambda: answer(master.push("--dry-run"), 0, f"{one}: nothing differs", f"{two}: nothing differs"))

    say(f"another node and another admin's key are written into cluster.toml; on {two} somebody takes the firewall away")
    key = master.dir / "second_ed25519"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "second@master", "-f", key)
    master.edit("admin_keys = [", f'admin_keys = ["{key.with_suffix(".pub").read_text().strip()}", ')
    master.rekindle("node", "add", "login1", "--mac", "52:54:00:aa:cc:01")
    master.ask(ip[two], "for file in /etc/sysconfig/nftables.conf /etc/sysconfig/ip*tables; do "
               "if [ -f $file ]; then : >$file; fi; done; systemctl restart nftables || systemctl restart iptables ip6tables")

    def shown():
        holds, said = answer(master.push("--dry-run"), 1, "login1", "second@master", "policy", f"{one}: ", f"{two}: ")
        still = master.ssh(ip[one], "grep login1 /etc/hosts").returncode == 1
        return holds and still, f"nothing was written: {still}; {said}"
    proof.check("C2", "push --dry-run: shows what differs and writes nothing", shown)
    proof.check("C2", "push --yes: writes it", lambda: answer(master.push("--yes"), 0, f"{one}: ", f"{two}: ", "files written"))

    def arrived():
        found = [master.ask(ip[name], "getent hosts login1; id -un", key=key) for name in (one, two)]
        return all("login1" in text and "root" in text for text in found), " ".join(found)
    proof.check("C2", "the new name is known, the new key opens", arrived)
    proving.firewall_rows(proof, master, ip[two], two, lab.medium)
    proof.check("C2", "push: nothing is left to do", lambda: answer(master.push(), 0, f"{one}: nothing differs"))


def both_ways(lab: Lab, one: str, two: str) -> None:
    """There and back, begun from each."""
    proving.pair_rows(lab.proof, lab.master, one, two)
    proving.pair_rows(lab.proof, lab.master, two, one)


STORIES = {"small-memory": small_memory, "refusals": refusals, "old-cpu": old_cpu, "snippets": snippets, "pair": pair}
