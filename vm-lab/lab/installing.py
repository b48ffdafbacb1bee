"""The usual story: an unknown machine waits, is added, installs itself, and the result is proven."""


from . import leaks, power_cuts, proof as proving
from .master import Settings
from .session import Lab
from .shell import say, wait_for
from .vm import Vm

# What EL8 wants is more than an old machine of the lab has; its stand-in installer gets along.
OLD_MEMORY_MIB, OLD_FLOOR_MIB = 1024, 800


def story(lab: Lab) -> None:
    """The main job."""
    options, medium = lab.options, lab.medium
    floor = {medium.os: f"min_ram_mib = {OLD_FLOOR_MIB}"} if options.old else {}
    tries = {"tries": power_cuts.TRIES} if options.points else {}
    lab.serve(Settings([medium], of_os=floor, **tries))
    hardware = old_hardware(lab) if options.old else lab.hardware()
    vms = [lab.machine(hardware) for _ in range(options.nodes)]
    for vm in vms:
        vm.plug_in()
    first, rest = vms[0], vms[1:]
    unknown_waits(lab, first)
    lab.phases.begin("install")
    say("it is added by its MAC" + (", the others are added before they are powered on" if rest else ""))
    names = [lab.add(vm) for vm in vms]
    for vm in rest:
        vm.power_on()
    if options.points:
        first.power_off()
        power_cuts.one_permission(lab, first, names[0], power_cuts.chosen(options.points))
    else:
        installed_row(lab, names)
    if not lab.proof.holds():
        return
    lab.phases.begin("proof")
    for name in names:
        node_rows(lab, name)
    if len(vms) > 1:
        proving.pair_rows(lab.proof, lab.master, names[0], names[1])
    proving.uplink_rows(lab.proof)
    lab.phases.begin("power cycle")
    say("the plug is pulled and put back")
    proving.power_cycle_row(lab, names[0], while_off=lambda: leaks.disk_rows(lab, names[0]))
    if options.reinstall:
        lab.phases.begin("reinstall")
        lab.proof.check("C3", "node reinstall installs again", lambda: reinstall(lab, names[0]))


def old_hardware(lab: Lab):
    """x86-64-v1 of about 2006: SSSE3 at the most."""
    cpu = "host" if lab.accel == "kvm" else "core2duo"
    return lab.hardware(cpu=cpu, old_devices=True, memory_mib=OLD_MEMORY_MIB)


def unknown_waits(lab: Lab, vm: Vm) -> None:
    """A machine that nobody added."""
    lab.phases.begin("unknown machine waits")
    say("a blank machine that nobody knows is powered on")
    vm.power_on()

    def waits():
        wait_for(f"{vm.mac} is listed as waiting", 1800, lambda: vm.mac in lab.master.waiting(), every=1)
        wait_for(f"{vm.name} shows the hold screen", 1800, lambda: vm.mac in vm.console_text()
                 and "this machine waits" in vm.console_text(), every=1)
        return vm.disk.is_blank(), "it is listed, its screen says that it waits, its disk is untouched"
    lab.proof.check("C4", "an unknown machine is listed, waits, and its disk is not touched", waits)


def install(lab: Lab, *vms: Vm) -> list[str]:
    """Adds, plugs in and powers on; proves that they end as nodes."""
    lab.phases.begin("install")
    for vm in vms:
        vm.plug_in()
    names = [lab.add(vm) for vm in vms]
    for vm in vms:
        vm.power_on()
    installed_row(lab, names)
    return names


def installed_row(lab: Lab, names: list[str]) -> None:
    """From blank disks to nodes."""
    def installed():
        before = lab.master.released()
        lab.follow(names)
        released = lab.master.released() - before
        return released == len(names), f"{released} kickstarts were released to {len(names)} machines, no key was pressed"
    lab.proof.check("C3", f"blank disk to ready, unattended ({lab.options.firmware}, {lab.medium.os})", installed)


def node_rows(lab: Lab, name: str) -> None:
    """Everything about one node."""
    proving.kickstart_row(lab, name)
    proving.node_rows(lab, name)
    leaks.served_row(lab, name)


def reinstall(lab: Lab, name: str) -> tuple[bool, str]:
    """Arms an installed node again and cycles its power."""
    say(f"{name} is armed again and its power is cycled")
    ip = lab.master.nodes()[name]["ip"]
    lab.master.ask(ip, "touch /root/from-the-first-life && sync")
    lab.master.rekindle("node", "reinstall", name)
    lab.cycle(lab.names[name])
    lab.follow([name])
    left = lab.master.ssh(ip, "ls /root/from-the-first-life")
    return left.returncode != 0, f"it is ready again, ssh raised no alarm, nothing of its first life is left ({left.stderr.strip()})"
