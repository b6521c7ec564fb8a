"""gate.json: what the gate knows of a run beside its verdict, so that everything can be rendered again.

May not know how anything is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from testbed.errors import InvalidInput
from testbed.gate.places import Layout

NAME = "gate.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class LayoutEntry(_Part):
    """Where the lab's files lie in the repository."""

    lab: str | None = ""
    configs: str = "configs"
    moved: Mapping[str, tuple[str, int]] = {}

    @property
    def layout(self) -> Layout:
        """The same as the renderers take it."""
        return Layout(self.lab, self.configs, self.moved)


class HookEntry(_Part):
    """A command that was run on the verdict."""

    event: str
    argv: tuple[str, ...]
    status: int | None
    seconds: float
    output_tail: str = ""
    problem: str = ""
    told: str = ""


class GateFile(_Part):
    """The whole document."""

    base: str = ""
    head: str = ""
    repository: str = ""
    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mode: str = "enforce"
    inconclusive: str = "fail"
    exit_code: int = 0
    note: str = ""
    comment_id: str = ""
    layout: LayoutEntry = LayoutEntry()
    hooks: tuple[HookEntry, ...] = ()


def read_gate(run: Path) -> GateFile:
    """The gate's record of a run; of a what-if's run, which has none, the default. InvalidInput for another file."""
    path = run / NAME
    if not path.is_file():
        return GateFile()
    try:
        return GateFile.model_validate_json(path.read_bytes())
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(path, 1, 1, f"{where}: {first['msg']}", "a gate.json as `testbed gate` writes it") from None
