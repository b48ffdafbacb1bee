"""Running programs, saying what happens, failing in one line."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

LAB = Path(__file__).resolve().parent.parent
CHECKOUT = LAB.parent
WORK = LAB / ".work"

# Two labs run side by side under two names: namespaces and files of a run carry it.
NAME = os.environ.get("REKINDLE_LAB_NAME", "rklab")
if not re.fullmatch(r"[a-z0-9]{1,20}", NAME):
    sys.exit(f"vm-lab: REKINDLE_LAB_NAME is {NAME!r}; use up to 20 small letters and digits")
RUN = WORK / ("run" if NAME == "rklab" else f"run-{NAME}")

_started = time.monotonic()


class LabError(Exception):
    """What went wrong, where, and what to do: one line for the user."""


def say(text: str) -> None:
    """One progress line with the time since start."""
    print(f"[{time.monotonic() - _started:6.1f}s] {text}", flush=True)


def run(*command, cwd=None, env=None, input=None, log: Path | None = None, check=True, timeout=None):
    """Runs a program to its end. Output goes to `log`, or is returned."""
    words = [str(word) for word in command]
    stdin = None if input is not None else subprocess.DEVNULL
    try:
        if log:
            with log.open("ab") as out:
                done = subprocess.run(words, cwd=cwd, env=env, input=input, stdin=stdin, stdout=out,
                                      stderr=subprocess.STDOUT, timeout=timeout)
        else:
            done = subprocess.run(words, cwd=cwd, env=env, input=input, stdin=stdin,
                                  capture_output=True, text=input is None or isinstance(input, str),
                                  timeout=timeout)
    except FileNotFoundError as missing:
        raise LabError(f"`{words[0]}` is not installed; run ./vm-lab/up, which installs it") from missing
    except subprocess.TimeoutExpired as late:
        if check:
            raise LabError(f"`{shlex.join(words)[:120]}` did not end within {timeout} s") from late
        return subprocess.CompletedProcess(words, 124, "", "timeout")
    if check and done.returncode:
        where = f"; its output is in {log}" if log else f": {last_line(done)}"
        raise LabError(f"`{shlex.join(words)[:120]}` failed ({done.returncode}){where}")
    return done


def last_line(done) -> str:
    """The last thing a failed program said."""
    text = (done.stderr or "") + (done.stdout or "")
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def wait_for(what: str, seconds: float, probe, every: float = 0.5):
    """Waits until `probe()` gives something, or fails naming `what` it waited for."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


def main_guard(main) -> None:
    """Ends the process with one line instead of a traceback."""
    try:
        sys.exit(main())
    except LabError as error:
        print(f"vm-lab: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        print("vm-lab: interrupted", file=sys.stderr, flush=True)
        sys.exit(130)
