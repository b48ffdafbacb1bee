"""What is kept of a run: the JSON for scripts, the logs when something failed."""

import json
import time
from pathlib import Path

from .proof import Proof


class Phases:
    """How long each part took, measured."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._name, self._since = None, 0.0

    def begin(self, name: str | None) -> None:
        """Ends the current phase and begins the next."""
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = round(now - self._since, 1)
        self._name, self._since = name, now


def write_json(file: Path, proof: Proof, phases: Phases, about: dict) -> None:
    """Every row with its evidence, every phase with its seconds."""
    rows = [{"id": row.id, "what": row.what, "holds": row.holds, "evidence": row.evidence} for row in proof.rows]
    file.write_text(json.dumps({**about, "holds": proof.holds(), "rows": rows, "seconds": phases.seconds}, indent=2) + "\n")
