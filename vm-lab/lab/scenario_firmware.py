"""Every way that firmware boots from a network, each down to the installer's first words."""

from dataclasses import dataclass, field

from . import net
from .master import Settings
from .session import Lab
from .shell import wait_for
from .vm import Vm

# The installer's kernel runs, has found its card, and has its kickstart.
RUNS = ("kickstart", "pre", "disk", "packages", "post", "installed")


@dataclass
class Way:
    """A kind of firmware, what it is told to load, and what must have been loaded."""

    what: str
    hardware: dict = field(default_factory=dict)
    # `loader` of cluster.toml.
    loader: str = ""
    # Loaders as the journal calls them.
    loads: tuple[str, ...] = ()
    # What the console must show, and what must have gone over the wire.
    console: str = ""
    wire: bytes = b""


BIOS, UEFI = {"firmware": "bios"}, {"firmware": "uefi"}
WAYS = [
    Way("BIOS, e1000 with iPXE in its ROM", {**BIOS, "card": "e1000"}),
    Way("BIOS, rtl8139 with iPXE in its ROM", {**BIOS, "card": "rtl8139"}),
    Way("BIOS, virtio with iPXE in its ROM", BIOS),
    Way("BIOS, undionly.kpxe by TFTP", {**BIOS, "card": "e1000"}, "undionly.kpxe", ("undionly",)),
    Way("BIOS, ipxe.pxe by TFTP", {**BIOS, "card": "e1000"}, "ipxe.pxe", ("ipxe-pxe",)),
    Way("UEFI's own PXE, snponly.efi", UEFI, "", ("snponly-x64",)),
    Way("UEFI's own PXE, ipxe.efi", UEFI, "ipxe.efi", ("ipxe-x64",)),
    Way("UEFI's own HTTP boot, snponly.efi", {**UEFI, "http_boot": True}, "", ("snponly-x64",),
        wire=b"GET /boot/snponly.efi HTTP/1.1"),
    Way("UEFI with Secure Boot: shim, GRUB and signed kernel by TFTP", {**UEFI, "secure_boot": True}, "shimx64.efi", ("shim",),
        console="Secure boot enabled"),
]


def firmware(lab: Lab) -> None:
    """BIOS with three cards, UEFI, HTTP boot and Secure Boot, by each loader that there is, down to the installer."""
    lab.serve(Settings([lab.medium]))
    for way in WAYS:
        lab.phases.begin(way.what)
        lab.proof.check("C3", way.what, lambda way=way: boots(lab, way, lab.machine(lab.hardware(**way.hardware))))


# The machines' addresses are reserved, as their owner does it on the router.
UDHCPD = """\
start 192.168.10.240
end 192.168.10.245
interface eth1
lease_file {dir}/udhcpd.leases
pidfile {dir}/udhcpd.pid
opt subnet 255.255.255.0
opt router 192.168.10.250
"""


def proxy(lab: Lab) -> None:
    """`dhcp = "proxy"`: another DHCP server stays and gives the addresses, BIOS and UEFI are told what to boot."""
    lab.serve(Settings([lab.medium], dhcp="proxy"))
    ways = [Way("BIOS, beside another DHCP server", BIOS),
            Way("BIOS, undionly.kpxe by TFTP, beside another DHCP server", {**BIOS, "card": "e1000"}, "undionly.kpxe", ("undionly",)),
            Way("UEFI's own PXE, beside another DHCP server", UEFI, "", ("snponly-x64",))]
    vms = [lab.machine(lab.hardware(**way.hardware)) for way in ways]
    directory = lab.master.dir
    (directory / "udhcpd.leases").touch()
    # `node add` gives them the first addresses of `workers`, in this order.
    leases = "".join(f"static_lease {vm.mac} {net.SUBNET}.{10 + place}\n" for place, vm in enumerate(vms))
    (directory / "udhcpd.conf").write_text(UDHCPD.format(dir=directory) + leases)
    log = (directory / "udhcpd.log").open("ab")
    other = net.start(net.OBSERVER, "busybox", "udhcpd", "-f", directory / "udhcpd.conf", log=log)
    try:
        for way, vm in zip(ways, vms):
            lab.phases.begin(way.what)
            lab.proof.check("C3", way.what, lambda way=way, vm=vm: boots(lab, way, vm))
    finally:
        other.terminate()
        other.wait()

def boots(lab: Lab, way: Way, vm: Vm) -> tuple[bool, str]:
    """One machine, from its button to its kickstart."""
    vm.plug_in()
    name = lab.add(vm)
    if way.loader:
        lab.master.edit(f'name = "{name}"', f'name = "{name}"\nloader = "{way.loader}"')
    vm.power_on()
    try:
        stage = wait_for(f"the installer runs on {vm.name}", 1800, lambda: lab.master.nodes()[name]["stage"] in RUNS
                         and lab.master.nodes()[name]["stage"], every=1)
        if way.console:
            wait_for(f"its console shows {way.console!r}", 600, lambda: way.console in vm.console_text(), every=1)
    finally:
        vm.unplug()
        lab.master.rekindle("node", "disarm", name)
    events = [event for event in lab.master.events() if event["mac"] == vm.mac]
    loads = [event["loader"] for event in events if event["event"] == "loader-sent"]
    on_wire = way.wire in vm.pcap.read_bytes()
    good = tuple(dict.fromkeys(loads)) == way.loads and on_wire
    return good, f"{name} is at {stage}; loaded {', '.join(loads) or 'nothing'} before it" + (
        f"; {way.wire.decode()}: {on_wire}" if way.wire else "")


STORIES = {"firmware": firmware, "proxy": proxy}
