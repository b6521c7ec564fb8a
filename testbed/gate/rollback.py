"""The exact inverse of a change, as files that production can apply: configs as they were, a reverse diff, commands.

May not know how a change is applied to a shadow, nor what became of it there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from testbed.change.model import Change, LinkChange
from testbed.devices.ip_sets import FILE as SETS
from testbed.devices.linux import PLACED, all_sysctls
from testbed.devices.nft_text import FILE as NFT
from testbed.gate.diffs import file_diff
from testbed.gate.places import Layout
from testbed.gate.undoing import set_names, undoing, undoing_tables
from testbed.store import RunDirectory
from topologies.model import Impairment, LinkEnd, Topology

FOLDER = "rollback"
ABSENT: Mapping[str, tuple[str, ...]] = {"haproxy.cfg": ("systemctl", "stop", "haproxy")}
"""What a file that was not there before the change needs, where nothing can be loaded in its place."""

RELOADS: Mapping[str, tuple[str, ...]] = {
    "iptables.rules": ("iptables-restore", "{file}"),
    "ip6tables.rules": ("ip6tables-restore", "{file}"),
    "nftables.conf": ("nft", "-f", "{file}"),
    "ipset.rules": ("ipset", "restore", "-exist", "-file", "{file}"),
    "sysctl.conf": ("sysctl", "-p", "{file}"),
    "frr.conf": ("/usr/lib/frr/frr-reload.py", "--reload", "{file}"),
    "daemons": ("systemctl", "restart", "frr"),
    "haproxy.cfg": ("systemctl", "reload", "haproxy"),
    "flows.txt": ("ovs-ofctl", "replace-flows", "{bridge}", "{file}"),
}
"""What makes a node take a file in force: the way the shadow does it, in production's words."""

ORDER = ("ipset.rules", "nftables.conf", "iptables.rules", "ip6tables.rules", "sysctl.conf")
"""Sets before the rules that name them, filters before forwarding; the rest after."""


def write_rollback(run: RunDirectory, change: Change, topology: Topology, layout: Layout) -> Path:
    """Put the inverse of a change into `rollback/` of a run and return that folder.

    `configs/<node>/<file>` are files as they were, `undo/<node>/<file>` what is to be loaded where that is more than
    the file says (a table that only the change made), `reverse.patch` is the diff for the config repository
    (`git apply`), `rollback.json` and `README.md` say what to do on each node.
    """
    for (node, file), content in sorted(change.before.items()):
        _write(run, f"configs/{node}/{file}", content)
    loads = {(node, file): text for node in _order(change) for file, text in _loads(change, node, topology).items()}
    for (node, file), content in sorted(loads.items()):
        _write(run, f"undo/{node}/{file}", content)
    patch = b"".join(
        file_diff(
            layout.path(f"configs/{node}/{file}") or f"configs/{node}/{file}",
            change.after.get((node, file)),
            change.before.get((node, file)),
        )
        for node, file in sorted({*change.before, *change.after})
    )
    _write(run, "reverse.patch", patch)
    steps = [_step(change, node, frozenset(f for owner, f in loads if owner == node)) for node in _order(change)]
    links = [_link(link, topology) for link in change.links]
    document = {"schema": 1, "change": change.name, "nodes": steps, "links": links}
    _write(run, "rollback.json", (json.dumps(document, indent=2) + "\n").encode())
    _write(run, "README.md", _told(change, steps, links).encode("utf-8", "backslashreplace"))
    return run.path / FOLDER


def _order(change: Change) -> list[str]:
    """Nodes in the reverse of the order in which the change is made."""
    files = sorted({node for node, _file in (*change.before, *change.after)}, reverse=True)
    commands = [command.node for command in reversed(change.commands)]
    return list(dict.fromkeys((*commands, *files)))


def _loads(change: Change, node: str, topology: Topology) -> dict[str, bytes]:
    """What to load in the place of a node's files that do not themselves take away what the change made."""
    touched = sorted(change.touched(node))
    before = {file: path.read_bytes() for file, path in topology.node(node).configs.items()}
    before = {file: text for file, text in before.items() if file not in touched}
    after = before | {file: text for (owner, file), text in change.after.items() if owner == node}
    before |= {file: text for (owner, file), text in change.before.items() if owner == node}
    wanted = {}
    for file in touched:
        content = undoing(file, before.get(file), after.get(file))
        if content is not None and content != before.get(file):
            wanted[file] = content
    if NFT in touched or (NFT in before and any(file.startswith(f"{PLACED}/") for file in touched)):
        wanted[NFT] = undoing_tables(before, after)
    return wanted


def _step(change: Change, node: str, loaded: frozenset[str]) -> dict[str, object]:
    restore = sorted(file for owner, file in change.before if owner == node)
    delete = sorted(file for owner, file in change.after if owner == node and (owner, file) not in change.before)
    undo = [list(command.rollback) for command in reversed(change.commands) if command.node == node]
    reload: list[list[str]] = []
    for file in sorted({*restore, *delete, *loaded}, key=lambda name: (_rank(name), name)):
        name = PurePosixPath(file).name
        words = RELOADS.get(name, ()) if file in restore or file in loaded else ABSENT.get(name, ())
        place = f"{'undo' if file in loaded else 'configs'}/{node}/{file}"
        if words:
            reload.append([word.format(file=place, bridge=node) for word in words])
    reload += [["ipset", "destroy", name] for name in _made_sets(change, node)]
    return {
        "node": node,
        "undo": undo,
        "restore": restore,
        "delete": delete,
        "reload": reload,
        "was_not_set": _made_settings(change, node),
    }


def _rank(file: str) -> int:
    return ORDER.index(file) if file in ORDER else len(ORDER)


def _made_sets(change: Change, node: str) -> list[str]:
    """Sets that only the change made."""
    old, new = (side.get((node, SETS), b"") for side in (change.before, change.after))
    return sorted(set_names(new) - set_names(old))


def _made_settings(change: Change, node: str) -> list[str]:
    """Kernel settings that had no line before: their files do not tell the value to go back to."""
    old, new = (all_sysctls(side.get((node, "sysctl.conf"), b"")) for side in (change.before, change.after))
    return sorted(new.keys() - old.keys())


def _link(change: LinkChange, topology: Topology) -> dict[str, object]:
    link = topology.link_at(*change.a)
    ends = () if link is None else (link.a, link.b)
    return {
        "endpoints": [":".join(change.a), ":".join(change.b)],
        "mtu": None if link is None else link.mtu,
        **{f"{end.node}:{end.interface}": _egress(end) for end in ends},
    }


def _egress(end: LinkEnd) -> dict[str, object]:
    plain = Impairment()
    names = ("rate_bps", "delay_ns", "pdv_ns", "loss_ratio", "duplicate_ratio", "reorder_ratio", "corrupt_ratio")
    told = {name: getattr(end.egress, name) for name in (*names, "queue_octets")}
    return {name: value for name, value in told.items() if value != getattr(plain, name)}


def _told(change: Change, steps: list[dict[str, object]], links: list[dict[str, object]]) -> str:
    lines = [
        f"# The way back from {change.name}",
        "",
        "In the config repository: `git apply reverse.patch`. On the nodes, in this order: put the files of `configs/`",
        "where the node reads them, then run the commands, from this folder. `undo/` has what is loaded once to take",
        "away what only the change made; it is no configuration file.",
        "",
    ]
    for step in steps:
        lines.append(f"## {step['node']}")
        lines.append("")
        for verb in ("undo", "reload"):
            commands = step[verb]
            assert isinstance(commands, list)
            lines += [f"    {shlex.join(argv)}" for argv in commands]
        for file in _names(step["delete"]):
            lines.append(f"- remove `{file}`, which the change made, and what it put in force")
        lines += [f"- put back `{file}`" for file in _names(step["restore"])]
        lines += [
            f"- `{name}` had no line before the change: give it the value that it had, or restart the node"
            for name in _names(step["was_not_set"])
        ]
        lines.append("")
    lines += [f"- link {json.dumps(link)}" for link in links]
    return "\n".join(lines).rstrip() + "\n"


def _names(names: object) -> list[str]:
    assert isinstance(names, list)
    return names


def _write(run: RunDirectory, name: str, content: bytes) -> None:
    (run.path / FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
    run.write_bytes(f"{FOLDER}/{name}", content)
