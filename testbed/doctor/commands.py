"""Run a program and look at what it says.  It knows no capability."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

SECONDS = 15.0
LONGEST = 70
SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class Said:
    """How a program ended and all it said; `status` is None when it is not there or did not end."""

    status: int | None
    text: str

    def first_line(self) -> str:
        """The first line with anything in it, without what stands before every such line, short enough for a table."""
        line = next((line.strip() for line in self.text.splitlines() if line.strip()), "said nothing")
        line = re.sub(r"^\d{4}-\d\d-\d\dT\S+Z\|\d+\|\w+\|\w+\||^RTNETLINK answers: |^Error: ", "", line)
        return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def ask(argv: Sequence[str], given: str = "") -> Said:
    """Run it to its end, its output and errors together, in plain English."""
    if shutil.which(argv[0]) is None:
        return Said(None, f"{argv[0]}: not installed")
    try:
        done = subprocess.run(
            argv,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Said(None, str(problem))
    return Said(done.returncode, done.stdout)


def superuser_only() -> str:
    """The system directories that an ordinary user's PATH lacks and an installed program lies in; empty if none."""
    present = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(place for place in SYSTEM if place not in present)
