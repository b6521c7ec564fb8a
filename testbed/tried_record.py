"""What a verdict is about, kept with the run: the lab and the change as they were, the policy, and the files of blame.

Written as `tried.json` and `inputs/`, so that a run can be judged again where lab and change are gone or have become
others.  It knows no judge.  Of the lab's config files only those are kept that blame reads: no key, no certificate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pandas as pd
from pydantic import Base64Bytes, BaseModel, ConfigDict, TypeAdapter

from testbed.attribution.scene import INCLUDED, READ
from testbed.change.model import Change, CommandChange, Expected, Line, LinkChange
from testbed.errors import InvalidInput
from testbed.expectations.model import Expectations
from testbed.policy import Policy
from testbed.prepare import Case
from testbed.store import RunDirectory
from testbed.stored import read_document
from topologies.load import Lab
from topologies.model import Topology

NAME = "tried.json"
FOLDER = "inputs"
EXPECTED = "the record that a run writes of its lab and change"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _ConfigFile(_Part):
    node: str
    file: str
    content: Base64Bytes


class _Change(_Part):
    name: str
    source: str
    before: tuple[_ConfigFile, ...]
    after: tuple[_ConfigFile, ...]
    links: tuple[LinkChange, ...]
    commands: tuple[CommandChange, ...]
    lines: tuple[Line, ...]
    expected: Expected | None


class _Lab(_Part):
    folder: str
    name: str
    topology: Topology


class _File(_Part):
    version: Literal[1]
    lab: _Lab
    change: _Change
    policy: Policy
    expectations: Expectations


@dataclass(frozen=True, slots=True)
class TriedRecord:
    """A run's lab, change, policy, expectations and flows; the lab's config files are those kept with the run."""

    lab: Lab
    change: Change
    policy: Policy
    expectations: Expectations
    flows: pd.DataFrame


def write_tried(run: RunDirectory, case: Case) -> Path:
    """Put `tried.json` and the files that blame reads into the run directory."""
    for node in case.lab.topology.nodes:
        for file in _kept(node.configs):
            target = run.path / FOLDER / node.name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            run.write_bytes(f"{FOLDER}/{node.name}/{file}", case.configs[node.name][file])
    change = case.change
    nodes = tuple(
        replace(node, configs={file: Path(FOLDER, node.name, file) for file in _kept(node.configs)})
        for node in case.lab.topology.nodes
    )
    topology = replace(case.lab.topology, nodes=nodes)
    return run.write_json(
        NAME,
        {
            "version": 1,
            "lab": {"folder": str(case.lab.folder), "name": case.lab.name, "topology": _dumped(Topology, topology)},
            "change": {
                "name": change.name,
                "source": str(change.source),
                "before": _files(change.before),
                "after": _files(change.after),
                "links": _dumped(tuple[LinkChange, ...], change.links),
                "commands": _dumped(tuple[CommandChange, ...], change.commands),
                "lines": _dumped(tuple[Line, ...], change.lines),
                "expected": None if change.expected is None else change.expected.model_dump(mode="json"),
            },
            "policy": _dumped(Policy, case.policy),
            "expectations": _dumped(Expectations, case.expectations),
        },
    )


def read_tried(run: RunDirectory, flows: pd.DataFrame) -> TriedRecord:
    """Read it back, with the run's flows; InvalidInput when the run has none, or something else."""
    path = run.path / NAME
    try:
        file = read_document(path, _File, EXPECTED)
    except FileNotFoundError:
        raise InvalidInput(run.path, 1, 1, f"no {NAME}", "a run that keeps what it was about (make it anew)") from None
    nodes = tuple(
        replace(node, configs={name: _within(run, path, node.name, name) for name in node.configs})
        for node in file.lab.topology.nodes
    )
    written = file.change
    change = Change(
        name=written.name,
        source=Path(written.source),
        before={(one.node, one.file): one.content for one in written.before},
        after={(one.node, one.file): one.content for one in written.after},
        links=written.links,
        commands=written.commands,
        lines=written.lines,
        expected=written.expected,
    )
    lab = Lab(Path(file.lab.folder), file.lab.name, replace(file.lab.topology, nodes=nodes))
    return TriedRecord(lab, change, file.policy, file.expectations, flows)


def _kept(configs: Iterable[str]) -> list[str]:
    return [file for file in configs if file in READ or file.startswith(INCLUDED)]


def _within(run: RunDirectory, path: Path, node: str, file: str) -> Path:
    """Where a kept file lies; a record from elsewhere may name any."""
    parts = PurePosixPath(node, file)
    found = run.path / FOLDER / parts
    if parts.is_absolute() or ".." in parts.parts or not found.is_file():
        raise InvalidInput(path, 1, 1, f"the file {FOLDER}/{parts}, which is not in the run directory", EXPECTED)
    return found


def _files(content: Mapping[tuple[str, str], bytes]) -> list[dict[str, object]]:
    return [
        _ConfigFile.model_construct(node=node, file=file, content=octets).model_dump(mode="json")
        for (node, file), octets in content.items()
    ]


def _dumped(kind: Any, value: object) -> object:
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    return json.loads(adapter.dump_json(value))
