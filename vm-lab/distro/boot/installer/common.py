"""What all parts of the stand-in installer share: its log, running programs, the new system's files."""

import shlex
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path("/mnt/sysimage")


class Refused(Exception):
    """The kickstart asks for something that this stand-in does not do."""


class Log:
    """Lines for the console and, as Anaconda's inst.syslog has it, for a TCP syslog server."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.file = None

    def open(self) -> None:
        """/tmp/anaconda.log, once /tmp is there."""
        self.file = open("/tmp/anaconda.log", "a", buffering=1)

    def connect(self, target: str) -> None:
        """Tells a log server everything from now on."""
        host, port = target.rsplit(":", 1)
        try:
            self.socket = socket.create_connection((host, int(port)), timeout=10)
        except OSError as error:
            self(f"no log server at {target}: {error}")

    def __call__(self, text: str, program: str = "anaconda") -> None:
        uptime = Path("/proc/uptime").read_text().split()[0]
        print(f"installer {uptime} {text}", flush=True)
        if self.file:
            self.file.write(f"{program}: {text}\n")
        if self.socket:
            stamp = time.strftime("%b %e %H:%M:%S", time.gmtime())
            try:
                self.socket.sendall(f"<14>{stamp} installer {program}: {text}\n".encode())
            except OSError:
                self.socket = None


log = Log()


def sh(*command, check: bool = True, **more) -> subprocess.CompletedProcess:
    """Runs a program to its end."""
    done = subprocess.run([str(word) for word in command], **more)
    if check and done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))} failed with {done.returncode}")
    return done


def out(*command, check: bool = True) -> str:
    """Runs a program and gives what it prints."""
    return sh(*command, check=check, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Writes a file of the new system."""
    file = ROOT / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
