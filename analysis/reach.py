"""Who reaches whom before a change and after it: probes' dispositions in, findings and a verdict out.

A probe stands for a class of observed flows, or for an access that no observed flow has used.  Pure: no I/O, no clock.
May not know how probes were chosen or played, nor who is to blame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.compare import deviation_percent
from analysis.verdict import PRIORITIES, Finding, Scope, Severity, Verdict, finding_id, priority_rank
from analysis.words import plural

COLUMNS: Mapping[str, str] = {
    "probe_id": "str",
    "kind": "str",
    "subject": "str",
    "flow_class": "str",
    "priority": "str",
    "flows": "int64",
    "protocol": "int64",
    "source_address": "str",
    "source_port": "int64",
    "destination_address": "str",
    "destination_port": "int64",
    "source_node": "str",
    "expected": "str",
    "before": "str",
    "after": "str",
    "restored": "str",
    "error_before": "str",
    "error_after": "str",
    "unsteady": "bool",
    "origin": "str",
    "wanted": "bool",
    "path": "str",
}
"""A row a probe.  `kind` is "class" for observed flows; `expected` is production's outcome, "" where nobody knows;
`before`, `after`, `restored` are dispositions ("" where that pass was not made); `origin` tells probes of one changed
line apart; `wanted` says that the very change seen here is expected."""

ACCEPTED, BROKEN, UNMEASURED = "accepted", "broken", "unmeasured"
DISPOSITIONS = (ACCEPTED, "denied", "reset", "unanswered", BROKEN, UNMEASURED)
"""As the outcomes of the flow table; "broken" is a connection on which the first exchange failed."""

CLASS = "class"
ACCESS = "access"
DISPOSITION = "disposition"
SAME, CLOSED, OPENED, DIFFERS = "", "closed", "opened", "differs"
UNMEASURED_RATIO_LIMIT = 0.05
_TOLD = 3
_UDP = 17
_PROTOCOLS = {6: "tcp", _UDP: "udp"}
_LIKE = {"denied": frozenset({"denied", "reset"})}
"""A refusal is captured as denied (ICMP) and may be felt as refused."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The verdict on dispositions alone, why, the findings with the probes they rest on, and each probe's change.

    `doubt` is why nothing could pass even where no finding failed; "" when it could.
    """

    verdict: Verdict
    reason: str
    findings: tuple[tuple[Finding, tuple[str, ...]], ...]
    changes: Mapping[str, str]
    doubt: str = ""


def as_production(expected: str, disposition: str) -> bool:
    """Whether a disposition is what production did; an unknown expectation never is."""
    return bool(expected) and disposition in _LIKE.get(expected, frozenset({expected}))


def with_twins(table: pd.DataFrame) -> pd.DataFrame:
    """The table in which a refused class counts as accepted after the change when its twin was let through.

    A twin is the same way tried with somebody listening at its end: without one a host refuses what a filter let pass.
    """
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    opened = {_way(row) for row in rows if row["kind"] != CLASS and _change(row) == OPENED}
    let_in = [row["kind"] == CLASS and _refused_twice(row) and _way(row) in opened for row in rows]
    found = table.copy()
    found.loc[let_in, "after"] = ACCEPTED
    found.loc[let_in, "error_after"] = "none"
    return found


def judge_reach(table: pd.DataFrame, opened: Severity) -> Reach:
    """Judge the two passes of COLUMNS; `opened` is what an access that opened unexpectedly means.

    A class that production accepts and that is accepted no more is a FAIL, and so is one that production does not
    accept and that now is; what neither pass could tell is INCONCLUSIVE, as is no probe at all.
    """
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    changes = {str(row["probe_id"]): _change(row) for row in rows}
    found = [*_class_findings(rows, changes), *_access_findings(rows, changes, opened)]
    found.sort(key=lambda one: (-one[0].verdict.value, priority_rank(one[0].priority), -len(one[1])))
    doubt = _doubt(rows)
    verdict, reason = _concluded(rows, [finding for finding, _ in found], doubt)
    return Reach(verdict, reason, tuple(found), changes, doubt)


def _change(row: Mapping[str, object]) -> str:
    before, after = str(row["before"]), str(row["after"])
    if before == after or UNMEASURED in (before, after) or "" in (before, after):
        return SAME
    if after == ACCEPTED:
        return OPENED
    return CLOSED if before == ACCEPTED else DIFFERS


Rows = Sequence[Mapping[str, object]]


def _class_findings(rows: Rows, changes: Mapping[str, str]) -> list[tuple[Finding, tuple[str, ...]]]:
    groups: dict[tuple[str, str, str, bool, bool, bool], list[Mapping[str, object]]] = {}
    total: dict[str, int] = {}
    for row in rows:
        if row["kind"] != CLASS:
            continue
        name = str(row["flow_class"])
        total[name] = total.get(name, 0) + 1
        if changes[str(row["probe_id"])]:
            expected, before, after = (str(row[c]) for c in ("expected", "before", "after"))
            kept = as_production(expected, before), as_production(expected, after)
            key = (name, before, after, *kept, bool(row["wanted"]))
            groups.setdefault(key, []).append(row)
    return [_class_finding(*key, own, total[key[0]]) for key, own in groups.items()]


def _class_finding(
    name: str, before: str, after: str, was: bool, now: bool, wanted: bool, rows: Rows, total: int
) -> tuple[Finding, tuple[str, ...]]:
    flows = sum(int(str(row["flows"])) for row in rows)
    one = len(rows) == 1
    who = str(rows[0]["subject"]) if one else f"{len(rows)} of {plural(total, 'class')} of {name}"
    stands = f"{who} ({plural(flows, f'{name} flow')})"
    if now and not was:
        effect = f"{stands} now as production does it: {after} (before: {before})"
    elif before == ACCEPTED:
        effect = f"{stands} no longer accepted: {_said(rows, after)}"
    elif after == ACCEPTED:
        effect = f"{stands}, {before} by production, now accepted" if was else f"{stands} now accepted, was {before}"
    else:
        effect = f"{stands} answered in another way: {before} → {_said(rows, after)}"
    severity = Severity.FAIL if was and not now else Severity.INFO if now and not was else Severity.WARN
    if wanted:
        effect, severity = f"{effect}, as expected", Severity.INFO
    probes = tuple(str(row["probe_id"]) for row in rows)
    accepted = [float(flows) if word == ACCEPTED else 0.0 for word in (before, after)]
    finding = _finding(
        DISPOSITION, name if not one else str(rows[0]["subject"]), effect, severity, rows, accepted, "flows"
    )
    return finding, probes


def _said(rows: Rows, after: str) -> str:
    errors = sorted({str(row["error_after"]) for row in rows} - {"", "none"})
    return f"{after} ({', '.join(errors)})" if after == BROKEN and errors else after


def _access_findings(rows: Rows, changes: Mapping[str, str], opened: Severity) -> list[tuple[Finding, tuple[str, ...]]]:
    classes = [(row, changes[str(row["probe_id"])]) for row in rows if row["kind"] == CLASS]
    opened_already = {_way(row) for row, change in classes if change == OPENED}
    closed_already = {_way(row)[1:] for row, change in classes if change == CLOSED}
    groups: dict[tuple[str, str, str, bool, str], list[Mapping[str, object]]] = {}
    for row in rows:
        change = changes[str(row["probe_id"])]
        if row["kind"] == CLASS or change not in (OPENED, CLOSED):
            continue
        if (_way(row) in opened_already) if change == OPENED else (_way(row)[1:] in closed_already):
            continue
        wanted = bool(row["wanted"])
        # what one changed line opens is one finding, whatever the ports
        origin = str(row["origin"])
        key = (change, origin, str(row["protocol"]) if origin else _service(row), wanted, str(row["expected"]))
        groups.setdefault(key, []).append(row)
    found = []
    for (change, _, _, wanted, _), own in groups.items():
        service = _listed(list(dict.fromkeys(_service(row) for row in own)))
        probes = tuple(str(row["probe_id"]) for row in own)
        refused = {str(row["expected"]) for row in own} - {"", ACCEPTED}
        if change == CLOSED and refused == {"unanswered"} and own[0]["protocol"] == _UDP:
            # nobody answered in production either, so that only the arrival tells
            effect = f"{service} no longer arrives at {_ways(own)}: {own[0]['after']}"
            severity = Severity.INFO if wanted else Severity.FAIL
            finding = _finding(ACCESS, service, effect, severity, own, [float(len(own)), 0.0], "ways")
        elif change == CLOSED:
            as_wished = ", as expected" if wanted else ""
            effect = f"{service} no longer reaches {_ways(own)}{as_wished}; no observed flow used it"
            severity = Severity.INFO if wanted else Severity.WARN
            finding = _finding(ACCESS, service, effect, severity, own, [float(len(own)), 0.0], "ways")
        else:
            what = "opened, as expected" if wanted else "newly opened"
            was = ", ".join(sorted({str(row["before"]) for row in own}))
            by = f", refused by production ({', '.join(sorted(refused))})" if refused else ""
            effect = f"{what}: {service} to {_ways(own)}{by}; before: {was}"
            severity = Severity.INFO if wanted else Severity.FAIL if refused else opened
            finding = _finding(ACCESS, service, effect, severity, own, [0.0, float(len(own))], "ways")
        found.append((finding, probes))
    return found


def _finding(
    kpi: str,
    subject: str,
    effect: str,
    severity: Severity,
    rows: Rows,
    accepted: Sequence[float],
    unit: str,
) -> Finding:
    before, after = accepted
    first = "|".join(_way(rows[0]))
    return Finding(
        finding_id=finding_id("reach", kpi, subject, first, str(after > before)),
        scope=Scope.CLASS if kpi == DISPOSITION else Scope.NETWORK,
        subject=subject,
        kpi=kpi,
        before=before,
        after=after,
        unit=unit,
        deviation_percent=deviation_percent(after, before),
        effect=effect,
        priority=PRIORITIES[min(priority_rank(str(row["priority"])) for row in rows)],
        verdict=severity,
    )


def _ways(rows: Rows) -> str:
    """`10.2.0.11, 10.2.0.12 and 3 more from 198.51.100.0/24 (internet)`."""
    targets = list(dict.fromkeys(str(row["destination_address"]) for row in rows))
    sources = list(dict.fromkeys(str(row["subject"]) for row in rows))
    return f"{_listed(targets)} from {_listed(sources)}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _TOLD
    told = ", ".join(names[:_TOLD])
    return f"{told} and {more} more" if more > 0 else told


def _service(row: Mapping[str, object]) -> str:
    protocol = int(str(row["protocol"]))
    return f"{_PROTOCOLS.get(protocol, str(protocol))}/{row['destination_port']}"


def _refused_twice(row: Mapping[str, object]) -> bool:
    return ACCEPTED not in (row["before"], row["after"]) and bool(row["after"])


def _way(row: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(str(row[c]) for c in ("source_address", "destination_address", "protocol", "destination_port"))


def _concluded(rows: Rows, findings: Sequence[Finding], doubt: str) -> tuple[Verdict, str]:
    failures = [finding for finding in findings if finding.verdict is Severity.FAIL]
    if failures:
        more = f" (and {plural(len(failures) - 1, 'more finding')})" if len(failures) > 1 else ""
        return Verdict.FAIL, failures[0].effect + more
    if doubt:
        return Verdict.INCONCLUSIVE, doubt
    classes = sum(row["kind"] == CLASS for row in rows)
    return Verdict.PASS, f"all of {plural(classes, 'class')} of flows are treated as before" + news(findings)


def _doubt(rows: Rows) -> str:
    classes = [row for row in rows if row["kind"] == CLASS]
    if not classes:
        return "no class of observed flows was probed"
    if any(not row["after"] for row in classes):
        return "there was no pass after the change"
    missing = [row for row in rows if UNMEASURED in (row["before"], row["after"])]
    if len(missing) > UNMEASURED_RATIO_LIMIT * len(rows):
        return f"too little was measured: {len(missing)} of {len(rows)} probes gave no answer"
    unsteady = [row for row in classes if row["unsteady"]]
    if unsteady:
        what = f"{plural(len(unsteady), 'class')} answered now so, now otherwise"
        return f"{what}: {unsteady[0]['subject']}"
    return ""


def news(findings: Sequence[Finding]) -> str:
    """What a PASS must not keep to itself: accesses that opened."""
    opened = [f for f in findings if f.kpi == ACCESS and f.after > f.before and f.verdict is Severity.WARN]
    return f"; but {opened[0].effect}" + (f" (and {len(opened) - 1} more)" if len(opened) > 1 else "") if opened else ""
