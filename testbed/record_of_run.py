"""run.json: what went into a run, so that it can be repeated and trusted.

Inputs by hash, versions of everything that acts, facts of the kernel, and the plan.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from testbed import __version__
from testbed.change.model import Change
from testbed.devices.linux import machine_sysctls
from testbed.plan import Plan
from testbed.prepare import Case
from testbed.shadow import interface_names
from topologies.imported import Note

PROGRAMS = {
    "frr": ("vtysh", "--version"),
    "haproxy": ("haproxy", "-v"),
    "iptables": ("iptables", "--version"),
}
LIBRARIES = ("mininet", "pyroute2", "pandas", "numpy", "scipy")


def run_record(
    case: Case,
    plan: Plan,
    created: str,
    notes: Sequence[Note] = (),
    captures: Sequence[Path] = (),
    policy: Path | None = None,
    model: Path | None = None,
) -> dict[str, object]:
    """The document; timings are added when the run is over.  `notes` tell what an imported lab could not honour.

    `captures`, `policy` and `model` are those given in place of the lab's own.
    """
    given = [path.absolute() for path in (*captures, policy, model) if path is not None]
    return {
        "schema": 1,
        "created": created,
        "lab": str(case.lab.folder),
        "change": str(case.change.source),
        "captures": [str(path.absolute()) for path in captures],
        "policy": str(policy.absolute()) if policy else None,
        "model": str(model.absolute()) if model else None,
        "inputs": {**input_digests(case), **{str(path): digest(path) for path in given}},
        "versions": _versions(),
        "kernel": {"release": platform.release(), "machine": platform.machine(), "processors": os.cpu_count()},
        "plan": {
            "baseline": plan.baseline,
            "treatment": plan.treatment,
            "restored": plan.restored,
            "pairs": plan.pairs,
            "budget_s": plan.budget_s,
            "seed": plan.seed,
            "speed": case.schedule.speed,
            "load": case.manner.load,
            "mode": case.manner.mode.value,
            "window_seconds": round(case.duration_ns / 1e9, 3),
        },
        "flows": {
            "replayed": len(case.flows),
            "left_out": case.placed.reasons,
            "sampled": [share.to_json() for share in case.sampled],
        },
        "skipped_packets": dict(case.skipped),
        "notes": [str(note) for note in notes],
        "interfaces": interface_names(case.lab.topology),
        "settings_left_alone": {
            node: names
            for node, files in case.configs.items()
            if (names := machine_sysctls(files.get("sysctl.conf", b"")))
        },
    }


def input_digests(case: Case) -> dict[str, str]:
    """Every file of the lab and of the change, by blake2b."""
    roots = (case.lab.folder, case.change.source)
    files = {
        path
        for root in roots
        for path in ([root] if root.is_file() else root.rglob("*"))
        if path.is_file() and "changes" not in path.relative_to(root).parts
    }
    return {str(path): digest(path) for path in sorted(files)}


def digest(path: Path) -> str:
    """A file's blake2b of 16 octets, in hexadecimal."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def _versions() -> dict[str, str]:
    found = {"testbed": __version__, "python": sys.version.split()[0]}
    found.update({name: version(name) for name in LIBRARIES})
    for name, argv in PROGRAMS.items():
        try:
            said = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False).stdout
        except OSError:
            said = ""
        number = re.search(r"\d+\.\d+(\.\d+)?", said)
        found[name] = number[0] if number else "absent"
    return found


def change_diff(change: Change) -> str:
    """The change's files as one unified diff, paths as the lab has them."""
    pieces: list[str] = []
    for node, file in sorted({*change.before, *change.after}):
        old, new = (
            side.get((node, file), b"").decode(errors="replace").splitlines(keepends=True)
            for side in (change.before, change.after)
        )
        path = f"configs/{node}/{file}"
        pieces += difflib.unified_diff(old, new, f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in pieces)
