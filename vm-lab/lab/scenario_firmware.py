"""Every way that firmware boots from a network, each down to the installer's first words."""

from dataclasses import dataclass, field

from . import net
from .master import Settings
from .session import Lab
from .shell import CHECKOUT, WORK, run, say, wait_for
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
    # The server is away while the installer is fetched.
    interrupted: bool = False


BIOS, UEFI = {"firmware": "bios"}, {"firmware": "uefi"}
WAYS = [
    Way("BIOS, e1000 with iPXE in its ROM", {**BIOS, "card": "e1000"}),
    Way("BIOS, rtl8139 with iPXE in its ROM", {**BIOS, "card": "rtl8139"}),
    Way("BIOS, virtio with iPXE in its ROM", BIOS),
    Way("BIOS, undionly.kpxe by TFTP", {**BIOS, "card": "e1000"}, "undionly.kpxe", ("undionly",)),
    Way("BIOS, while the server is away for a moment", BIOS, console="that did not work, once more in", interrupted=True),
    Way("BIOS, ipxe.pxe by TFTP", {**BIOS, "card": "e1000"}, "ipxe.pxe", ("ipxe-pxe",)),
    Way("BIOS, ipxe.pxe, behind a card that leads nowhere", {**BIOS, "card": "e1000", "spare_card": True}, "ipxe.pxe", ("ipxe-pxe",)),
    Way("BIOS, pxelinux.0 with its installer by TFTP", {**BIOS, "card": "e1000"}, "pxelinux.0", ("pxelinux",)),
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
    lab.phases.begin("PXELINUX and the disk")
    lab.proof.check("C3", "BIOS, pxelinux.0 boots the disk of a node that is not to be installed", lambda: boots_its_disk(lab))


# A boot sector: `lodsb; out 3f8h, al` for each byte of the text behind it, then `hlt`.
BOOT_SECTOR = bytes.fromhex("fc 31c0 8ed8 be167c baf803 ac 84c0 7403 ee ebf8 f4 ebfd")
DISK_SAYS = b"THE-DISK-BOOTS"


def boots_its_disk(lab: Lab) -> tuple[bool, str]:
    """What is on the disk need not be a system: what its first sector says is enough."""
    vm = lab.machine(lab.hardware(**BIOS, card="e1000"))
    sector = (BOOT_SECTOR + DISK_SAYS + b"\r\n\0").ljust(510, b"\0") + b"\x55\xaa"
    with vm.drive(1, "LAB-1", "raw").file.open("r+b") as disk:
        disk.write(sector)
    vm.plug_in()
    name = lab.add(vm)
    lab.master.edit(f'name = "{name}"', f'name = "{name}"\nloader = "pxelinux.0"')
    lab.master.rekindle("node", "disarm", name)
    vm.power_on()
    try:
        wait_for(f"the disk of {vm.name} boots", 600, lambda: DISK_SAYS.decode() in vm.console_text(), every=1)
    finally:
        vm.unplug()
    loads = [event["loader"] for event in lab.master.events() if event["mac"] == vm.mac and event["event"] == "loader-sent"]
    return loads == ["pxelinux"], f"{name} loaded {', '.join(loads)}, and its disk says {DISK_SAYS.decode()}"


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

DEBIAN = "debian-installer-12-netboot-amd64"
INSTALLER = """
[installer.debian12]
folder = "{folder}"
kernel = "linux"
initrd = "initrd.gz"
args = "auto=true priority=critical url={{answers}} interface=auto DEBIAN_FRONTEND=text BOOT_DEBUG=1"
answers = "{answers}"
"""


def foreign(lab: Lab) -> None:
    """Debian's own installer as a node's os, up to its fetch of the answers that were filled in for the node."""
    root = WORK / "debian"
    if not root.exists():
        say("downloading Debian's netboot installer")
        fresh = WORK / "debian.new"
        run("rm", "-rf", fresh)
        fresh.mkdir()
        # apt drops its rights to a user of its own, who must be able to write here.
        fresh.chmod(0o777)
        run("apt-get", "download", DEBIAN, cwd=fresh)
        run("dpkg-deb", "-x", *fresh.glob("*.deb"), fresh / "root")
        fresh.rename(root)
    [kernel] = root.glob("root/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux")
    answers = lab.master.dir / "debian.preseed"
    answers.write_text((CHECKOUT / "docs/debian.preseed").read_text())
    lab.serve(Settings([lab.medium], more=INSTALLER.format(folder=kernel.parent, answers=answers)))
    vm = lab.machine(lab.hardware())

    def fetched():
        vm.plug_in()
        name = lab.add(vm, "--os", "debian12")
        vm.power_on()
        wait_for(f"{name} fetches its answers", 1800, lambda: lab.master.released() == 1, every=1)
        # What its first answer says: it reports that it runs.
        wait_for(f"{name} reports", 1800, lambda: lab.master.nodes()[name]["stage"] == "pre", every=1)
        text = lab.master.rekindle("render", "kickstart", name)
        return f"get_hostname string {name}" in text and vm.disk.is_blank(), f"{name} has its answers, filled in for {vm.mac}"
    lab.phases.begin("Debian's installer")
    lab.proof.check("C3", "Debian's own installer is booted, and fetches the answers of its node", fetched)


def boots(lab: Lab, way: Way, vm: Vm) -> tuple[bool, str]:
    """One machine, from its button to its kickstart."""
    vm.plug_in()
    name = lab.add(vm)
    if way.loader:
        lab.master.edit(f'name = "{name}"', f'name = "{name}"\nloader = "{way.loader}"')
    vm.power_on()
    try:
        if way.interrupted:
            wait_for(f"{name} has its script", 600, lambda: lab.master.nodes()[name]["stage"] == "script", every=0.1)
            lab.master.away(10)
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


STORIES = {"firmware": firmware, "proxy": proxy, "foreign": foreign}
