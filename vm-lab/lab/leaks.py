"""Where secrets may be, searched byte by byte: on a node's whole disk, and in all that nodes are served.

On a node: munge's key once, in its file. The token of its installation, and the private keys of the
master, nowhere, deleted files included. Served to everybody: none of them.
"""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from . import net
from .master import Master
from .proof import token_of
from .shell import run
from .vm import Drive

if TYPE_CHECKING:
    from .session import Lab

CHUNK = 16 << 20
# What the master's private keys are kept in.
PRIVATE = ("host_ca", "root_ed25519")


def of_private_key(file: Path) -> dict[str, bytes]:
    """What gives an OpenSSH ed25519 key away: its seed, and the lines of its file that hold the seed."""
    lines = [line for line in file.read_text().split() if line and "-----" not in line and line not in
             ("BEGIN", "END", "OPENSSH", "PRIVATE", "KEY")]
    width, blob = len(lines[0]), base64.b64decode("".join(lines))
    # openssh-key-v1 (PROTOCOL.key): the key pair is a string of 64 bytes, seed before public half.
    at = blob.rindex(b"\x00\x00\x00\x40") + 4
    first, last = at * 4 // 3 // width, (at + 31) * 4 // 3 // width
    needles = {f"{file.name}'s seed": blob[at:at + 32]}
    needles.update({f"{file.name}, line {number + 1}": lines[number].encode() for number in range(first, last + 1)})
    return needles


def of_master(master: Master) -> dict[str, bytes]:
    """What must not leave the master."""
    secrets = master.state / "secrets"
    needles = {"token.key": (secrets / "token.key").read_bytes()}
    for name in PRIVATE:
        needles.update(of_private_key(secrets / name))
    return needles


def munge_key(master: Master) -> bytes:
    """The beginning of munge's key: all of it may lie in two pieces on a disk."""
    return (master.state / "secrets/munge.key").read_bytes()[:64]


def pieces(file: Path, overlap: int) -> Iterator[tuple[int, int, bytes]]:
    """The data of a sparse file piece by piece: where it begins, how many bytes are its own, and those
    with `overlap` bytes of the next."""
    with file.open("rb") as source:
        number, at, size = source.fileno(), 0, file.stat().st_size
        while at < size:
            try:
                begin = os.lseek(number, at, os.SEEK_DATA)
            except OSError:
                return  # only a hole is left
            at = os.lseek(number, begin, os.SEEK_HOLE)
            for start in range(begin, at, CHUNK):
                own = min(CHUNK, at - start)
                # pread: what the file object holds in its buffer belongs to another place after lseek.
                yield start, own, os.pread(number, own + overlap, start)


def search(file: Path, needles: dict[str, bytes]) -> dict[str, list[int]]:
    """Where each is in the file."""
    found: dict[str, list[int]] = {name: [] for name in needles}
    for start, own, piece in pieces(file, max(map(len, needles.values())) - 1):
        for name, needle in needles.items():
            at = piece.find(needle)
            while 0 <= at < own:
                found[name].append(start + at)
                at = piece.find(needle, at + 1)
    return {name: places for name, places in found.items() if places}


def raw_of(drive: Drive) -> Path:
    """The disk as its machine sees it."""
    if drive.form == "raw":
        return drive.file
    raw = drive.file.with_suffix(".search.raw")
    run("qemu-img", "convert", "-O", "raw", drive.file, raw)
    return raw


def disk_rows(lab: "Lab", name: str) -> None:
    """The disk of an installed node that is switched off."""
    vm, master = lab.names[name], lab.master
    needles = {**of_master(master), "token": token_of(vm.pcap).encode(), "munge.key": munge_key(master)}
    # Not a secret, and there for certain: a search that misses it proves nothing.
    public = (master.state / "secrets/host_ca.pub").read_text().split()[1].encode()

    def searched():
        raw = raw_of(vm.disk)
        found = search(raw, {**needles, "public": public})
        keys, seen = (len(found.pop(name, [])) for name in ("munge.key", "public"))
        good = not found and seen and keys == (1 if lab.medium.has_torque else 0)
        if good and raw != vm.disk.file:
            raw.unlink()
        places = "; ".join(f"{name} at {', '.join(map(str, where))}" for name, where in found.items())
        return good, (f"searched for {len(needles)} secrets; munge's key is there {keys} times, the authority's public "
                      f"key {seen} times; others: {places or 'none'}")
    lab.proof.check("C2", f"{name}: no secret on its whole disk, deleted files included, but munge's key", searched)


def served_row(lab: "Lab", name: str) -> None:
    """Trees, repositories, keys, loaders and scripts, and what guesses get."""
    master, medium, vm = lab.master, lab.medium, lab.names[name]
    token = token_of(vm.pcap)
    needles = {**of_master(master), "token": token.encode(), "munge.key": munge_key(master)}

    def served():
        files = [file for folder in (medium.tree, medium.repo) if folder for file in sorted(folder.rglob("*"))
                 if file.is_file()] + medium.keys
        leaks = [f"{file}: {hit}" for file in files for hit in search(file, needles)]
        answers = {path: get(path) for path in urls(medium.os, vm.mac, token)}
        leaks += [f"{path}: {hit}" for path, body in answers.items() for hit, needle in needles.items() if needle in body]
        return not leaks, f"{len(files)} files, {len(answers)} addresses searched for {len(needles)} secrets; leaks: {leaks or 'none'}"
    lab.proof.check("C2", f"{name}: nothing that is served to anybody holds a secret", served)


def urls(os_name: str, mac: str, token: str) -> list[str]:
    """What a neighbour would try: what is served, what once was, and what might be."""
    dashes = mac.replace(":", "-")
    secret = "../" * 8 + "secrets/host_ca"
    return [f"/ipxe/{dashes}", f"/ipxe/{dashes}/v2/80861000", "/boot/undionly.kpxe", "/boot/snponly.efi",
            f"/keys/{os_name}/key1.asc", f"/tree/{os_name}/.treeinfo", f"/repo/{os_name}/repodata/repomd.xml",
            f"/node/{token}/ks", f"/node/{token}/secret/munge.key", f"/tree/{os_name}/{secret}",
            f"/repo/{os_name}/{secret}", f"/keys/{os_name}/{secret}", f"/boot/{secret}",
            f"/tree/{os_name}/%2e%2e/%2e%2e/state/secrets/host_ca", "/secrets/host_ca", "/state/secrets/munge.key",
            "/cluster.toml", "/", "/journal"]


def get(path: str) -> bytes:
    """What a host of the private network gets."""
    done = run(*net.inside(net.OBSERVER), "curl", "-s", "-m", "60", "--path-as-is", "--interface", net.FRIEND_IP,
               "-o", "-", f"http://{net.MASTER_IP}{path}", check=False, input=b"")
    return done.stdout
