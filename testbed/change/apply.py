"""A change made to a running shadow the way production does it, and taken back.

It knows no traffic and no verdict.  Files, links and commands are applied in that order and undone
in reverse; whatever cannot be undone is the loudest error there is.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from testbed.change.model import Change, LinkChange
from testbed.devices.base import Complaint
from testbed.errors import CommandFailed, NotReady, RevertFailed, Unsupported
from testbed.shadow import Shadow


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file of the change that the node's own daemon does not take."""

    node: str
    complaint: Complaint


def refusals(shadow: Shadow, change: Change) -> list[Refusal]:
    """What the daemons' own checkers say of the changed files, before anything is touched."""
    found = []
    for node in _edited(change):
        touched = change.touched(node)
        configs = _configs(shadow, change, node, after=True)
        found += [Refusal(node, c) for c in shadow.check(node, configs) if c.file in touched]
    return found


def apply(shadow: Shadow, change: Change) -> None:
    """Put the change in force; raises CommandFailed, NotReady or Unsupported, and then `revert` is still due.

    What undoes a command is owed from the moment the command succeeded.
    """
    for node in _edited(change):
        shadow.reconfigure(node, _configs(shadow, change, node, after=True))
    for link in change.links:
        _reshape(shadow, link, back=False)
    for command in change.commands:
        box = shadow.boxes[command.node]
        try:
            box.run(command.run)
        except CommandFailed:
            with suppress(CommandFailed):
                box.run(command.rollback)
            raise
        shadow.owed.append((command.node, command.rollback))


def revert(shadow: Shadow, change: Change) -> None:
    """Put everything back as the lab has it; raises RevertFailed with the first error as its context."""
    failures: list[tuple[str, Exception]] = []
    for command in reversed(change.commands):
        owed = (command.node, command.rollback)
        if owed not in shadow.owed:
            continue
        shadow.owed.remove(owed)
        try:
            shadow.boxes[command.node].run(command.rollback)
        except CommandFailed as failure:
            failures.append((f"command on {command.node}", failure))
    for link in reversed(change.links):
        try:
            _reshape(shadow, link, back=True)
        except (Unsupported, LookupError) as failure:
            failures.append((f"link {link.a[0]}–{link.b[0]}", failure))
    for node in reversed(_edited(change)):
        try:
            shadow.reconfigure(node, _configs(shadow, change, node, after=False))
        except (CommandFailed, NotReady, Unsupported) as failure:
            failures.append((f"files of {node}", failure))
    if failures:
        what = ", ".join(name for name, _failure in failures)
        raise RevertFailed(f"{change.name} ({what})", str(failures[0][1])) from failures[0][1]


def _edited(change: Change) -> list[str]:
    """Nodes whose files the change touches, in the one order in which it goes about them."""
    return sorted({node for node, _file in (*change.before, *change.after)})


def _configs(shadow: Shadow, change: Change, node: str, *, after: bool) -> dict[str, bytes]:
    """All files of a node with the change's in place, or with the lab's."""
    configs = dict(shadow.configs[node])
    for file in change.touched(node):
        configs.pop(file, None)
        content = (change.after if after else change.before).get((node, file))
        if content is not None:
            configs[file] = content
    return configs


def _reshape(shadow: Shadow, change: LinkChange, *, back: bool) -> None:
    link = shadow.topology.link_at(*change.a)
    if link is None:
        raise LookupError(f"no link at {change.a[0]}:{change.a[1]}")
    original = {(link.a.node, link.a.interface): link.a.egress, (link.b.node, link.b.interface): link.b.egress}
    for end, changed in ((change.a, change.a_to_b), (change.b, change.b_to_a)):
        shadow.reshape(*end, original[end] if back else changed, link.mtu if back else change.mtu)
