"""nftables.conf in a node: checked by nft itself, loaded and changed in one transaction, every rule counted.

It knows no node kind.  The file lies at /etc/nftables.conf and may include what the lab put under `files/`;
a rule without a counter gets one after loading, in the kernel only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.devices.base import Box, Complaint, Configs, Reading
from testbed.devices.nft_text import FILE, PLACE, Listed, flushes_everything, listed_rules, made_tables
from testbed.errors import CommandFailed

VERDICTS = frozenset(
    {
        "accept",
        "drop",
        "continue",
        "return",
        "jump",
        "goto",
        "reject",
        "queue",
        "snat",
        "dnat",
        "masquerade",
        "redirect",
        "tproxy",
        "vmap",
        "fwd",
        "dup",
        "flow",
        "synproxy",
        "notrack",
    }
)
"""Statements of nft's JSON that decide over the packet: a counter stands before them."""

_AT = re.compile(r"^(/[^:\n]*):(\d+):\d+(?:-\d+)?: (?:Error: )?(.*)$", re.M)


def check_nft(box: Box, configs: Configs, placed: Mapping[str, bytes]) -> list[Complaint]:
    """What `nft -c` says; it asks the node's own kernel, since rules name its interfaces, and changes nothing."""
    if FILE not in configs:
        return []
    flush = flushes_everything(configs[FILE].decode(errors="replace"))
    rules = [name for name in ("iptables.rules", "ip6tables.rules") if name in configs]
    if flush and rules and "nf_tables" in box.run(["iptables", "--version"]):
        said = f"flush ruleset would take away the rules of {rules[0]}; delete this file's own tables instead"
        return [Complaint(FILE, flush, said)]
    try:
        box.run(
            ["nft", "-c", "-f", "-"],
            stdin=_transaction(_own_tables(box, configs)),
            files={**placed, PLACE: configs[FILE]},
        )
    except CommandFailed as failure:
        return [_complaint(failure.stderr, configs)]
    return []


def _complaint(said: str, configs: Configs) -> Complaint:
    place = _AT.search(said)
    if place is None:
        return Complaint(FILE, None, " ".join(said.split()))
    file = FILE if place[1] == PLACE else f"files{place[1]}"
    if file not in configs:
        return Complaint(FILE, None, " ".join(said.split()))
    return Complaint(file, int(place[2]), place[3])


def load_nft(box: Box, configs: Configs) -> None:
    """Put the file at its place, load it and count every rule; raises CommandFailed."""
    if FILE not in configs:
        return
    box.put_files({PLACE: configs[FILE]})
    box.run(["nft", "-f", PLACE])
    count_rules(box, configs)


def reload_nft(box: Box, before: Configs, after: Configs) -> None:
    """Replace what the old file made by what the new one makes, in one transaction: no packet sees neither.

    Included files count as part of it.  A file that does not flush its tables is loaded as after a reboot.
    """
    if _parts(before) == _parts(after):
        return
    old = _own_tables(box, before)
    box.put_files({PLACE: after.get(FILE)})
    box.run(["nft", "-f", "-"], stdin=_transaction(old, include=FILE in after))
    count_rules(box, after)


def _parts(configs: Configs) -> dict[str, bytes]:
    if FILE not in configs:
        return {}
    includes = b"include" in configs[FILE]
    return {name: text for name, text in configs.items() if name == FILE or (includes and name.startswith("files/"))}


def _transaction(tables: Sequence[str], *, include: bool = True) -> bytes:
    lines = [f"delete table {table.replace('/', ' ', 1)}" for table in tables]
    return "\n".join([*lines, *([f'include "{PLACE}"'] if include else []), ""]).encode()


def _texts(configs: Configs) -> dict[str, str]:
    return {name: text.decode(errors="replace") for name, text in configs.items() if name == FILE or "/" in name}


def _tables(configs: Configs) -> frozenset[str]:
    return made_tables(_texts(configs))


def _own_tables(box: Box, configs: Configs) -> list[str]:
    """The tables of the file that the kernel has."""
    wanted = _tables(configs)
    there = [" ".join(line.split()[1:3]) for line in box.run(["nft", "list", "tables"]).splitlines()]
    return [name.replace(" ", "/", 1) for name in there if name.replace(" ", "/", 1) in wanted]


def nft_readings(box: Box, configs: Configs) -> list[Reading]:
    """Packets per rule since the last load; a rule that could not be given a counter is not told."""
    if FILE not in configs:
        return []
    own = _tables(configs)
    return [
        Reading("rule", f"{FILE}:{listed.rule.key}", "packets", listed.rule.packets, state=listed.rule.text)
        for listed in kernel_rules(box)
        if listed.counted and listed.rule.table in own
    ]


def kernel_rules(box: Box) -> list[Listed]:
    """Every rule the node's kernel has, iptables' included where they are nftables' too."""
    return listed_rules(box.run(["nft", "-a", "list", "ruleset"]))


def count_rules(box: Box, configs: Configs) -> None:
    """Give each rule of the file a counter before its verdict; what nft cannot write again is left as it is.

    Read back: where the rules do not say the same as before, they are loaded again and stay uncounted.
    """
    before, tables = _uncounted(box), _tables(configs)
    _replace(box, [rule for rule in _json_rules(box, tables) if not _counted(rule) and _plain(rule)])
    if _uncounted(box) != before:
        box.run(["nft", "-f", "-"], stdin=_transaction(_own_tables(box, configs)))


def _uncounted(box: Box) -> list[str]:
    return [listed.rule.text.replace("counter ", "").removesuffix(" counter") for listed in kernel_rules(box)]


def _json_rules(box: Box, tables: frozenset[str]) -> list[dict[str, Any]]:
    listing = json.loads(box.run(["nft", "-j", "list", "ruleset"]) or "{}")
    rules = (entry.get("rule") for entry in listing.get("nftables", ()))
    return [rule for rule in rules if rule and f"{rule['family']}/{rule['table']}" in tables]


def _counted(rule: Mapping[str, Any]) -> bool:
    return any("counter" in part for part in rule["expr"])


def _plain(rule: Mapping[str, Any]) -> bool:
    """Whether the JSON says all of the rule: what nft does not know is `xt`, or no object at all."""
    return all(isinstance(part, dict) and "xt" not in part for part in rule["expr"]) and bool(rule["expr"])


def _replace(box: Box, rules: Sequence[Mapping[str, Any]]) -> None:
    """All in one transaction; when the kernel refuses one of them, halves are tried."""
    if not rules:
        return
    commands = []
    for rule in rules:
        parts = rule["expr"]
        place = next((n for n, part in enumerate(parts) if VERDICTS & part.keys()), len(parts))
        counted = [*parts[:place], {"counter": {"packets": 0, "bytes": 0}}, *parts[place:]]
        commands.append({"replace": {"rule": {**rule, "expr": counted}}})
    try:
        box.run(["nft", "-j", "-f", "-"], stdin=json.dumps({"nftables": commands}).encode())
    except CommandFailed:
        if len(rules) > 1:
            half = len(rules) // 2
            _replace(box, rules[:half])
            _replace(box, rules[half:])
