"""The packaged shop with changes made on the spot, flows, ways and counters as a run would read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from analysis.verdict import Finding, Scope, Severity
from testbed.change.model import Change
from testbed.change.sources import read_change
from testbed.counters import COLUMNS
from testbed.devices.packet_filter import parse_rules
from topologies.load import Lab, load_lab

SHOP = Path(__file__).parents[2] / "topologies" / "shop"
BASELINE, TREATMENT = (1, 2, 3), (5, 6, 7)
TO_WEB = ("internet", "fw1", "r1", "r2", "sw1", "lb1", "sw1", "web1")
TO_DNS = ("internet", "fw1", "r1", "r2", "sw1", "dns1")
TO_DB = ("web1", "sw1", "lb1", "sw1", "r2", "db1")

Row = tuple[str, str, str, str, float, float, str, str]
"""node, kind, object, metric, value before, value after, state before, state after; a NaN value is no reading."""


def shop() -> Lab:
    return load_lab(SHOP)


def edited(folder: Path, edits: Mapping[str, Iterable[tuple[str, str]]], yaml: str = "") -> Change:
    """A change folder whose overlay has each text replaced, every one of which must be there."""
    for name, pairs in edits.items():
        source = SHOP / "configs" / name
        text = source.read_text() if source.exists() else ""
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new, 1) if old else new
        target = folder / "configs" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    if yaml:
        (folder / "change.yaml").write_text(yaml)
    return read_change(shop(), folder)


def flow(
    name: str, port: int, *, six: bool = False, protocol: int = 6, to: str = "", outcome: str = "accepted"
) -> dict[str, object]:
    """A customer's flow; `to` is its destination when it is not the shop's own address."""
    return {
        "flow_id": name,
        "protocol": protocol,
        "source_address": "2001:db8:100::7" if six else "198.51.100.7",
        "source_port": 40000,
        "destination_address": to or ("2001:db8:1:2::10" if six else "203.0.113.10"),
        "destination_port": port,
        "outcome": outcome,
        "flow_class": {443: "checkout", 80: "catalogue", 53: "dns"}.get(port, "other"),
    }


def table(*flows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame(flows)


def finding(*flows: str, severity: Severity = Severity.FAIL, scope: Scope = Scope.CLASS) -> Finding:
    return Finding(
        "f1", scope, "checkout", "as_expected_ratio", 1.0, 0.0, "ratio", -100.0, "gone", "high", severity, flows
    )


def counters(*rows: Row) -> pd.DataFrame:
    found = []
    for node, kind, name, metric, before, after, state_before, state_after in rows:
        for role, windows, value, state in (
            ("baseline", BASELINE, before, state_before),
            ("treatment", TREATMENT, after, state_after),
        ):
            found += [(w, role, node, kind, name, metric, value, state) for w in windows if value == value]  # noqa: PLR0124
    return pd.DataFrame(found, columns=COLUMNS)


def rule_hits(
    change: Change, node: str, file: str, before: Mapping[str, float], after: Mapping[str, float], *, had: bool = True
) -> pd.DataFrame:
    """Counters of every rule of a file as the kernel has it; hits are given by a part of the rule's text."""
    rows = []
    path = SHOP / "configs" / node / file
    old = path.read_text() if path.exists() else ""
    new = change.after[node, file].decode() if (node, file) in change.after else old
    for role, windows, text, hits in (("baseline", BASELINE, old, before), ("treatment", TREATMENT, new, after)):
        for rule in parse_rules(text):
            value = next((n for part, n in hits.items() if part in f"{rule.key} {rule.text}"), 0.0)
            saved = rule.text.replace("-p tcp --dport", "-p tcp -m tcp --dport")
            name = f"{file}:{rule.key}"
            chosen = windows if had or role == "treatment" else ()
            rows += [(window, role, node, "rule", name, "packets", float(value), saved) for window in chosen]
    return pd.DataFrame(rows, columns=COLUMNS)
