"""A Mininet topology read by a child process, as only Mininet can build a Topo and only Python can run the user's file.

The user's file is the user's own Python and runs with the user's rights, started without a shell, with a time limit.
This file may not know what becomes of the topology.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from topologies.located import InvalidLab, Strict

PROGRAM = Path(__file__).parent / "child-programs" / "read_mininet.py"
SECONDS = 30.0
LARGEST_ANSWER_OCTETS = 64 * 1024 * 1024


class ReadNode(Strict):
    """A node of the Topo: `class_name` is the class that it asks for, `forwards` whether that class routes."""

    name: str
    switch: bool
    class_name: str | None = Field(alias="class")
    forwards: bool
    line: int
    options: Mapping[str, Any]


class ReadEnd(Strict):
    """A node's end of a link, with Mininet's port number."""

    node: str
    port: int


class ReadLink(Strict):
    """A link of the Topo."""

    ends: tuple[ReadEnd, ReadEnd]
    options: Mapping[str, Any]


class ReadTopo(Strict):
    """A Topo as data: hosts first, in the order in which Mininet gives addresses."""

    class_name: str = Field(alias="class")
    line: int
    nodes: tuple[ReadNode, ...]
    links: tuple[ReadLink, ...]


def read_topo(path: Path | None, shown: Path, name: str, args: list[Any], kwargs: dict[str, Any]) -> ReadTopo:
    """Build the Topo `name` of a file (None: Mininet's own); InvalidLab with the file's line when that fails.

    `shown` is the path that errors name.
    """
    words = json.dumps({"args": args, "kwargs": kwargs})
    argv = [sys.executable, "-I", str(PROGRAM), str(path.resolve()) if path else "", name, words]
    child = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        answer, told = child.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise InvalidLab(shown, 1, 1, f"a file that runs for more than {SECONDS:g} s", "a Topo at once") from None
    finally:
        _end(child)
    try:
        content = json.loads(answer[:LARGEST_ANSWER_OCTETS])
        problem = content.get("problem")
        if problem is None:
            return ReadTopo.model_validate(content["ok"])
    except (ValueError, LookupError, AttributeError, ValidationError):
        said = " ".join(told.decode(errors="replace").split())[-200:]
        found = f"a file that ended with status {child.returncode}" + (f" ({said})" if said else "")
        raise InvalidLab(shown, 1, 1, found, "a file that defines a Topo") from None
    raise InvalidLab(shown, int(problem["line"]), 1, str(problem["found"]), str(problem["expected"]))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End whatever the file started in its session, which is ours; wait for the child itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
