"""iptables and ip6tables rules in save format: checking, atomic restore, and counters by rule.

It knows no node kind.  A rule is identified by table, chain and place in its chain, which is the
same in the file and in the kernel; that is how a counter finds its line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.devices.base import Box, Complaint, Configs, Reading
from testbed.errors import CommandFailed

FAMILIES = {"iptables.rules": "iptables", "ip6tables.rules": "ip6tables"}
"""Configuration file to program; the programs' `-save` and `-restore` forms are used."""

EMPTY = b"".join(
    f"*{table}\n{''.join(f':{chain} ACCEPT [0:0]{chr(10)}' for chain in chains)}COMMIT\n".encode()
    for table, chains in {
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
        "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    }.items()
)
"""What a node runs on when a change takes its rules file away."""

_COUNTED = re.compile(r"^\[(\d+):(\d+)\] (-A .*)$")
_POLICY = re.compile(r"^:(\S+) (\S+)(?: \[(\d+):(\d+)\])?$")
_AT_LINE = re.compile(r"(?:line:? |at line )(\d+)")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a rules file: `index` counts from 1 inside its chain; a policy has index 0."""

    table: str
    chain: str
    index: int
    text: str
    line: int
    packets: int = 0
    octets: int = 0

    @property
    def key(self) -> str:
        """`filter/FORWARD/7`, the same in file and kernel."""
        return f"{self.table}/{self.chain}/{self.index}"


def parse_rules(text: str) -> list[Rule]:
    """Rules and policies of an iptables-save text, with or without counters, in order."""
    rules: list[Rule] = []
    table, places = "", dict[str, int]()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("*"):
            table, places = line[1:], {}
        elif policy := _POLICY.match(line):
            chain, target, packets, octets = policy.groups()
            rules.append(Rule(table, chain, 0, f"policy {target}", number, int(packets or 0), int(octets or 0)))
        else:
            counted = _COUNTED.match(line)
            body = counted[3] if counted else line
            if not body.startswith(("-A ", "--append ", "-I ")):
                continue
            chain = body.split()[1]
            places[chain] = places.get(chain, 0) + 1
            packets, octets = (counted[1], counted[2]) if counted else ("0", "0")
            rules.append(Rule(table, chain, places[chain], body, number, int(packets), int(octets)))
    return rules


def check_rules(box: Box, configs: Configs) -> list[Complaint]:
    """What `iptables-restore --test` says, one complaint a file at most (it stops at the first)."""
    complaints = []
    for file, program in FAMILIES.items():
        if file not in configs:
            continue
        try:
            box.run([f"{program}-restore", "--test"], stdin=configs[file])
        except CommandFailed as failure:
            place = _AT_LINE.search(failure.stderr)
            said = failure.stderr.splitlines()[0] if failure.stderr else f"exit status {failure.status}"
            complaints.append(Complaint(file, int(place[1]) if place else None, said))
    return complaints


def restore_rules(box: Box, configs: Configs, files: Sequence[str] = tuple(FAMILIES)) -> None:
    """Load the rules atomically, table by table, as production's own restore does."""
    for file in files:
        if file in configs:
            box.run([f"{FAMILIES[file]}-restore", "--wait"], stdin=configs[file])


def reload_rules(box: Box, before: Configs, after: Configs) -> None:
    """Restore the files that differ; a file that went away leaves an open filter, as a reboot would."""
    changed = [f for f in FAMILIES if before.get(f) != after.get(f)]
    restore_rules(box, {f: after.get(f, EMPTY) for f in changed}, changed)


def rule_readings(box: Box, files: Sequence[str]) -> list[Reading]:
    """Packets per rule and policy since the last restore."""
    readings = []
    for file in files:
        saved = box.run([f"{FAMILIES[file]}-save", "-c"])
        for rule in parse_rules(saved):
            readings.append(Reading("rule", f"{file}:{rule.key}", "packets", rule.packets, state=rule.text))
    return readings
