"""Network namespaces: the private switch, the master between it and the uplink, and an observer.

    inet 172.31.0.1 --- eth0 172.31.0.2 [master] eth1 192.168.10.1 --- [switch br0] --- VMs
                                                                           |
                                                    observer 192.168.10.250 and 10.99.0.9
"""

import contextlib
import os
import signal
import subprocess
import time

from .shell import LAB, NAME, run

MASTER, SWITCH, INET, OBSERVER = (f"{NAME}-{name}" for name in ("master", "switch", "inet", "observer"))
SUBNET = "192.168.10"
MASTER_IP = f"{SUBNET}.1"
UPLINK_IP, INET_IP = "172.31.0.2", "172.31.0.1"
FRIEND_IP, STRANGER_IP = f"{SUBNET}.250", "10.99.0.9"


def up() -> None:
    """Makes all namespaces and wires."""
    down()
    for name in (MASTER, SWITCH, INET, OBSERVER):
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
    run("ip", "-n", SWITCH, "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0",
        "mcast_snooping", "0")
    run("ip", "-n", SWITCH, "link", "set", "br0", "up")
    for name, port in ((MASTER, "m"), (OBSERVER, "o")):
        run("ip", "link", "add", "name", port, "netns", SWITCH, "type", "veth", "peer", "name", "eth1", "netns", name)
        run("ip", "-n", SWITCH, "link", "set", "dev", port, "master", "br0", "up")
        run("ip", "-n", name, "link", "set", "eth1", "up")
    run("ip", "link", "add", "name", "eth0", "netns", MASTER, "type", "veth", "peer", "name", "eth0", "netns", INET)
    for name, address, device in ((MASTER, f"{MASTER_IP}/24", "eth1"), (MASTER, f"{UPLINK_IP}/24", "eth0"),
                                  (INET, f"{INET_IP}/24", "eth0"), (OBSERVER, f"{FRIEND_IP}/24", "eth1"),
                                  (OBSERVER, f"{STRANGER_IP}/24", "eth1")):
        run("ip", "-n", name, "addr", "add", address, "dev", device)
        run("ip", "-n", name, "link", "set", device, "up")
    run("ip", "-n", MASTER, "route", "add", "default", "via", INET_IP)
    # A host out there that knows the way to the private network, to try it.
    run("ip", "-n", INET, "route", "add", f"{SUBNET}.0/24", "via", UPLINK_IP)
    # A master forwards and filters; here it lets nobody through.
    run(*inside(MASTER), "nft", "-f", LAB / "master.nft")
    run(*inside(MASTER), "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    # Packet sockets and emulated cards must see whole checksums.
    for name in (MASTER, OBSERVER, INET):
        for device in ("eth0", "eth1"):
            run(*inside(name), "ethtool", "-K", device, "tx", "off", check=False)


def tap(name: str) -> None:
    """A port of the switch for a VM."""
    run("ip", "-n", SWITCH, "tuntap", "add", name, "mode", "tap")
    run("ip", "-n", SWITCH, "link", "set", "dev", name, "master", "br0", "up")


def down() -> None:
    """Removes everything, whatever is there of it. What still runs in a namespace of ours is ours."""
    names = existing()
    for word in (signal.SIGTERM, signal.SIGKILL):
        for pid in inhabitants(names):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, word)
        for _ in range(50):
            if not inhabitants(names):
                break
            time.sleep(0.1)
    for name in names:
        run("ip", "netns", "del", name, check=False)


def inhabitants(names: list[str]) -> list[int]:
    """The processes that run in these namespaces."""
    return [int(pid) for name in names for pid in run("ip", "netns", "pids", name, check=False).stdout.split()]


def existing() -> list[str]:
    """Our namespaces that exist now."""
    listed = run("ip", "netns", "list", check=False).stdout
    return [line.split()[0] for line in listed.splitlines() if line.startswith(f"{NAME}-")]


def inside(name: str) -> list[str]:
    """The words before a command that is to run in a namespace."""
    return ["ip", "netns", "exec", name]


def start(name: str, *command, log) -> subprocess.Popen:
    """Starts a program in a namespace; `ip netns exec` becomes it, so the pid is its own."""
    words = inside(name) + [str(word) for word in command]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                            start_new_session=True)
