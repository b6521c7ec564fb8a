"""The promises of a device kind, as pytest tests that run on a real shadow.

It knows no kind: a subclass says which, in which network, on which files.

    class TestMyKind(DeviceContract):
        case = Case(kind="mykind", topology=..., node="m", broken={...}, broken_file=..., change={...})
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from testbed.devices.base import Complaint, Device, Reading
from testbed.devices.registry import known_devices
from testbed.sandbox import Sandbox
from testbed.shadow import Shadow, built
from topologies.model import Topology

VERBS = ("check", "start", "ready", "reload", "readings")
READY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """A kind in a network of its own.

    `topology` makes the network with its files below the folder it is given; `node` is the node of that kind.
    `broken` are files of which the kind's checker must refuse `broken_file` (none: the kind has no checker of
    its own), at `broken_line` where its language has lines.  `change` are files that change the running node
    (None takes one away).
    """

    kind: str
    topology: Callable[[Path], Topology]
    node: str
    change: Mapping[str, bytes | None]
    broken: Mapping[str, bytes] = field(default_factory=dict)
    broken_file: str = ""
    broken_line: int | None = None
    ready_seconds: float = READY_SECONDS


@dataclass(frozen=True, slots=True)
class Seen:
    """What one shadow showed; made once a class, since a shadow may take its time."""

    unready: tuple[str, ...]
    before: tuple[Reading, ...]
    again: tuple[Reading, ...]
    complaints: tuple[Complaint, ...]
    good_complaints: tuple[Complaint, ...]
    after_check: tuple[Reading, ...]
    changed: tuple[Reading, ...]
    back: tuple[Reading, ...]
    namespaces: frozenset[str]
    """The node's own: `net:[4026532001]` and its like."""


class DeviceContract:
    """Every promise is one test; a subclass named `Test…` with a `case` inherits them all."""

    case: ClassVar[Case]
    _seen: ClassVar[tuple[Seen, list[str]] | None] = None

    @classmethod
    def device(cls) -> Device:
        """The kind as its entry point gives it."""
        return known_devices()[cls.case.kind]

    @classmethod
    def seen(cls) -> Seen:
        """Build the network, go through every verb, take it down; once for all promises of a class."""
        return cls._whole()[0]

    @classmethod
    def _whole(cls) -> tuple[Seen, list[str]]:
        if cls._seen is None:
            with tempfile.TemporaryDirectory(prefix="contract-") as name:
                folder = Path(name)
                lab, case = cls.case.topology(folder), cls.case
                given = everything_below(folder)
                seen = Sandbox(lab.name, (folder,)).call(lambda: _gone_through(case, lab, folder / "logs"))
                left = everything_below(folder) - given
            cls._seen = seen, sorted(path for path in left if Path(path).parts[0] != "logs")
        return cls._seen

    def test_it_has_every_verb_of_the_port(self) -> None:
        """A kind is a Device: five verbs, file names it reads, directories it covers."""
        device = self.device()
        assert all(callable(getattr(device, verb, None)) for verb in VERBS)
        assert all(name and not name.startswith("/") for name in device.reads)
        assert all(path.startswith("/") for path in device.directories.values())

    def test_it_becomes_ready_and_says_what_it_waits_for(self) -> None:
        """Each time it was not ready it named itself and a reason."""
        for reason in self.seen().unready:
            assert self.case.node in reason, "a reason for waiting names its node"
            assert len(reason) > len(self.case.node) + 2, "a reason for waiting says more than the node"

    def test_a_good_file_is_taken(self) -> None:
        """The files it runs on have no complaint."""
        assert self.seen().good_complaints == ()

    def test_a_broken_file_is_refused_with_its_place(self) -> None:
        """The complaint names the file, the line and the fault."""
        case, complaints = self.case, self.seen().complaints
        if not case.broken:
            return
        assert complaints, "the checker took the broken file"
        assert complaints[0].file == case.broken_file
        assert complaints[0].line == case.broken_line
        assert complaints[0].message.strip()

    def test_a_check_leaves_the_running_node_alone(self) -> None:
        """State before and after asking the checker is the same."""
        seen = self.seen()
        assert state(seen.after_check) == state(seen.before)

    def test_a_change_shows_and_its_way_back_restores_the_state(self) -> None:
        """What is state after the change and back is what it was; the change itself can be seen."""
        seen = self.seen()
        assert state(seen.changed) != state(seen.before), "nothing that is read shows the change"
        assert state(seen.back) == state(seen.before)

    def test_readings_are_typed_unique_and_stable(self) -> None:
        """One reading a key, the same keys twice in a row, counters that never fall."""
        seen = self.seen()
        for readings in (seen.before, seen.changed, seen.back):
            keys = [key(reading) for reading in readings]
            assert len(keys) == len(set(keys)), "two readings have one key"
            for reading in readings:
                assert isinstance(reading.value, int | float)
                assert not isinstance(reading.value, bool)
                assert reading.kind
                assert reading.metric
        first = {key(r): r for r in seen.before}
        second = {key(r): r for r in seen.again}
        assert first.keys() == second.keys()
        for name, reading in first.items():
            assert second[name].cumulative == reading.cumulative
            assert not reading.cumulative or second[name].value >= reading.value, f"{name} fell"

    def test_nothing_is_left(self) -> None:
        """No process in the node's namespaces and no file outside the logs outlives the shadow."""
        seen, files = self._whole()
        assert holders(seen.namespaces) == []
        assert files == []


def key(reading: Reading) -> tuple[str, str, str]:
    """What a reading is known by."""
    return reading.kind, reading.object, reading.metric


def state(readings: tuple[Reading, ...]) -> dict[tuple[str, str, str], str]:
    """The part of readings that is compared rather than subtracted, and which counters there are."""
    return {key(r): r.state for r in readings}


def holders(namespaces: frozenset[str]) -> list[str]:
    """Processes of this machine that are in all of these namespaces."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            own = {os.readlink(process / "ns" / kind) for kind in ("net", "mnt", "pid")}  # noqa: PTH115 - no path
        except OSError:
            continue
        if namespaces <= own:
            found.append(process.name)
    return found


def everything_below(folder: Path) -> set[str]:
    """Names of all that lies below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()


def _gone_through(case: Case, lab: Topology, logs: Path) -> Seen:
    with built(lab, known_devices(), logs) as shadow:
        box, device = shadow.boxes[case.node], shadow.device(case.node)
        own = shadow.configs[case.node]
        reasons: list[str] = []
        first = device.ready(box, own)
        reasons += [] if first.ready else [first.waiting_for]
        shadow.wait_ready(case.ready_seconds, lambda reason: _note(reasons, reason, case.node))

        def read() -> tuple[Reading, ...]:
            return tuple(device.readings(box, shadow.configs[case.node]))

        before, again = read(), read()
        complaints = tuple(shadow.check(case.node, {**own, **case.broken})) if case.broken else ()
        good = tuple(shadow.check(case.node, own))
        after_check = read()
        _change(shadow, case)
        shown = read()
        shadow.reconfigure(case.node, own)
        shadow.wait_ready(case.ready_seconds, lambda reason: _note(reasons, reason, case.node))
        back = read()
        descriptors = (box.namespace.net_fd, box.namespace.mount_fd)
        names = {os.readlink(f"/proc/self/fd/{number}") for number in descriptors}  # noqa: PTH115 - no path
        names.add(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - no path
    return Seen(tuple(reasons), before, again, complaints, good, after_check, shown, back, frozenset(names))


def _change(shadow: Shadow, case: Case) -> None:
    configs = {**shadow.configs[case.node], **case.change}
    shadow.reconfigure(case.node, {name: text for name, text in configs.items() if text is not None})
    shadow.wait_ready(case.ready_seconds, lambda reason: None)


def _note(reasons: list[str], reason: str, node: str) -> None:
    if reason.startswith(f"{node}:"):
        reasons.append(reason)
