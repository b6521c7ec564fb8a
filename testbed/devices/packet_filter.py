"""iptables and ip6tables rules in save format: checking, atomic restore, and counters by rule.

It knows no node kind.  A rule is identified by table, chain and place in its chain, which is the
same in the file and in the kernel; that is how a counter finds its line.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.devices.base import Box, Complaint, Configs, Reading
from testbed.errors import CommandFailed

FAMILIES = {"iptables.rules": "iptables", "ip6tables.rules": "ip6tables"}
"""Configuration file to program; the programs' `-save` and `-restore` forms are used."""

TABLES = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
"""The kernel's tables and the chains that each begins with."""

IN_TURN = """
import json, subprocess, sys
for argv, text in json.load(sys.stdin):
    done = subprocess.run(argv, input=text.encode("latin-1"))
    if done.returncode:
        sys.exit(done.returncode)
"""
"""Several commands in one network that is gone with the last of them."""

_COUNTED = re.compile(r"^\[(\d{1,20}):(\d{1,20})\] (-A .*)$")
_POLICY = re.compile(r"^:(\S+) (\S+)(?: \[(\d{1,20}):(\d{1,20})\])?$")
_NO_CHAIN = re.compile(r"Chain '([^']+)' does not exist")
_REFUSED = re.compile(r"line (\d+): RULE_\w+ failed.*")
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
    for number, raw in enumerate(text.split("\n"), start=1):
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
    """What `iptables-restore` says, one complaint a file at most (it stops at the first).

    Its test mode does not see a jump to a chain that is nowhere: only a kernel does, so the rules
    are also loaded into a network of their own that is gone at once.
    """
    complaints = []
    for file, program in FAMILIES.items():
        if file not in configs:
            continue
        try:
            _test(box, program, configs[file], configs.get("ipset.rules"))
        except CommandFailed as failure:
            place = _AT_LINE.search(failure.stderr)
            said = failure.stderr.splitlines()[0] if failure.stderr else f"exit status {failure.status}"
            complaints.append(Complaint(file, int(place[1]) if place else None, said))
            continue
        try:
            box.run([f"{program}-restore"], stdin=configs[file], apart=True)
        except CommandFailed as failure:
            # other refusals may be of what the node has and an empty network has not, such as ipsets
            if missing := _NO_CHAIN.search(failure.stderr):
                text = configs[file].decode(errors="replace")
                users = [
                    r.line for r in parse_rules(text) if re.search(rf"-[jg] {re.escape(missing[1])}(\s|$)", r.text)
                ]
                complaints.append(Complaint(file, users[0] if users else None, missing[0]))
            elif refused := _REFUSED.search(failure.stderr):
                complaints.append(Complaint(file, int(refused[1]), refused[0]))
    return complaints


def _test(box: Box, program: str, rules: bytes, sets: bytes | None) -> None:
    """The restore program's test mode; rules that name sets are tested in an empty network that has these sets."""
    argv = [f"{program}-restore", "--test"]
    if sets is None:
        box.run(argv, stdin=rules)
        return
    steps = [(["ipset", "restore"], sets.decode("latin-1")), (argv, rules.decode("latin-1"))]
    box.run([sys.executable, "-c", IN_TURN], stdin=json.dumps(steps).encode(), apart=True)


def restore_rules(box: Box, configs: Configs, files: Sequence[str] = tuple(FAMILIES)) -> None:
    """Load the rules atomically, table by table, as production's own restore does."""
    for file in files:
        if file in configs:
            box.run([f"{FAMILIES[file]}-restore", "--wait"], stdin=configs[file])


def reload_rules(box: Box, before: Configs, after: Configs) -> None:
    """Restore the files that differ; a table or file that went away is left open, as a reboot would leave it."""
    changed = [f for f in FAMILIES if before.get(f) != after.get(f)]
    wanted = {f: after.get(f, b"") + opened(tables(before.get(f, b"")) - tables(after.get(f, b""))) for f in changed}
    restore_rules(box, wanted, changed)


def tables(rules: bytes) -> frozenset[str]:
    """The tables that a rules file speaks of, each of which it replaces as a whole."""
    return frozenset(line.strip()[1:].decode(errors="replace") for line in rules.split(b"\n") if line.startswith(b"*"))


def opened(names: frozenset[str]) -> bytes:
    """A rules text that lets everything through in these tables."""
    texts = []
    for name in sorted(names & TABLES.keys()):
        policies = "".join(f":{chain} ACCEPT [0:0]\n" for chain in TABLES[name])
        texts.append(f"\n*{name}\n{policies}COMMIT\n")
    return "".join(texts).encode()


def rule_readings(box: Box, files: Sequence[str]) -> list[Reading]:
    """Packets per rule and policy since the last restore."""
    readings = []
    for file in files:
        rules = parse_rules(box.run([f"{FAMILIES[file]}-save", "-c"]))
        readings += [Reading("rule", f"{file}:{r.key}", "packets", r.packets, state=r.text) for r in rules]
    return readings
