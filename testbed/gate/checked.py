"""The static gate: what is staged, or another revision, read and held against the daemons' checkers; no replay.

It writes the lab's newer files into a folder of its own. May not know how a complaint is shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path, PurePosixPath

from testbed.devices.base import Device
from testbed.errors import InvalidInput
from testbed.expectations.file import NAME as EXPECT
from testbed.expectations.file import read_expectations
from testbed.gate.places import Layout
from testbed.gate.repository import Blob, Repository
from testbed.gate.revisions import Writer, below, changed_paths, lab_folders, lab_named, relative
from testbed.gate.static import Objection, objections
from testbed.policy import read_policy
from testbed.prepare import open_lab
from testbed.sandbox import Sandbox
from topologies.load import LAB_FILE


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at; objections name files by their paths in the repository."""

    labs: tuple[str, ...]
    nodes: tuple[str, ...]
    objections: tuple[Objection, ...]


def checked(
    repository: Repository, base: str, head: str, lab: str | None, work: Path, devices: Mapping[str, Device]
) -> Checked:
    """Check every lab below which something changed, or the one named; InvalidInput for a lab or policy that is wrong.

    `work` is an empty folder. Raises Unsupported where this machine lacks what a check needs.
    """
    base, head = repository.commit(base), repository.commit(head)
    before, after = repository.files(base), repository.files(head)
    changed = changed_paths(before, after)
    wanted = lab_folders(after)
    if lab is not None:
        named = lab_named(repository, lab, wanted)
        if named is None:
            raise InvalidInput(Path(lab), 1, 1, "no lab", f"a lab of the repository: {', '.join(wanted) or 'none'}")
        wanted = (named,)
    touched = [each for each in wanted if any(below(path, each) is not None for path in changed)]
    nodes: list[str] = []
    found: list[Objection] = []
    for number, folder in enumerate(touched):
        looked_at, said = _lab(repository, after, changed, folder, work / str(number), devices)
        nodes += looked_at
        found += said
    return Checked(tuple(touched), tuple(nodes), tuple(found))


def _lab(
    repository: Repository,
    after: Mapping[str, Blob],
    changed: tuple[str, ...],
    folder: str,
    work: Path,
    devices: Mapping[str, Device],
) -> tuple[list[str], list[Objection]]:
    layout = Layout.of_lab(folder)
    writer = Writer(repository, work / "lab", work / "change", frozenset(devices))
    files = {
        path: blob for path, blob in relative(after, folder).items() if not path.startswith(("changes/", "traffic/"))
    }
    writer.lab_files(files, layout)
    ours = [path for each in changed if (path := below(each, folder)) is not None]
    try:
        topology = open_lab(str(writer.lab), work / "imported", devices).lab.topology
        policy = read_policy(writer.lab / "policy.yaml" if "policy.yaml" in files else None)
        if EXPECT in files:
            # what it says is checked, whatever the day
            read_expectations(writer.lab / EXPECT, topology, [rule.name for rule in policy.classes], date.min)
    except InvalidInput as problem:
        raise _in_repository(problem, writer.lab, layout) from None
    nodes = {PurePosixPath(path).parts[1] for path in ours if path.startswith("configs/")}
    names = [node.name for node in topology.nodes if node.configs and (node.name in nodes or LAB_FILE in ours)]
    if not names:
        return [], []
    configs = {name: {file: path.read_bytes() for file, path in topology.node(name).configs.items()} for name in names}
    job = Sandbox("static", (work,))
    said = job.call(lambda: objections(topology, configs, devices, work / "logs"))
    return names, [replace(one, file=layout.path(f"configs/{one.node}/{one.file}") or one.file) for one in said]


def _in_repository(problem: InvalidInput, lab: Path, layout: Layout) -> InvalidInput:
    path = problem.path
    if path.is_absolute() and path.is_relative_to(lab):
        path = Path(layout.path(path.relative_to(lab).as_posix()) or path)
    also = [_in_repository(other, lab, layout) for other in problem.also]
    return InvalidInput(path, problem.line, problem.column, problem.found, problem.expected, also)
