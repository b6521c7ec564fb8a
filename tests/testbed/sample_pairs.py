"""A run directory in pairs of windows, judged by the real judge: `sample_pairs.py FOLDER KIND [FLOWS]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.pairs.judge import judge_pairs
from analysis.verdict import Blame
from analysis.window import summary
from testbed.pairs.judged import Paired, smallest
from testbed.store import RunDirectory
from testbed.verdict_file import VerdictFile

MS = 1_000_000
CLASSES = (("checkout", 0.3, "critical", 443, 12.0), ("www", 0.4, "high", 80, 40.0), ("dns", 0.3, "normal", 53, 2.0))
KINDS = ("pass", "slow", "closed", "unsure", "hopeless", "lost")
"""What the change does: nothing, www twice as slow, checkout times out, noise hides it, no pairs tell, windows lost."""
FORESEEN = ("slow", "hopeless")
LOST = {(1, "A"), (3, "B"), (5, "A'"), (6, "B")}
BLAME = Blame("lb1", "frontend www", "configs/lb1/haproxy.cfg", 26, "maxconn 1", ("www reached its limit",), "counters")
LATENESS = "tasks waited for a CPU 24 % of the time, limit 20 %"


def write(runs: Path, kind: str = "slow", flows: int = 60, pairs: int = 8, text: Callable[[str], str] = str) -> Path:
    """Make the run and return its directory; `text` is applied to every string that stems from a capture or a lab."""
    random = np.random.default_rng(7)
    table = _flows(flows, text)
    records = _records(pairs, kind, random)
    kpis = _kpis(table, records, kind, random, text)
    found = judge_pairs(kpis, table, {}, records, 0)
    findings = [one.with_blame(_blame(text)) if one.verdict.name == "FAIL" else one for one in found.findings]
    found = replace(found, findings=tuple(findings), lost=tuple(replace(x, reason=text(x.reason)) for x in found.lost))
    told = [one.to_json() for one in smallest(kpis, table, {}, records, pairs, 0)] if kind in FORESEEN else []
    paired = Paired(found, pairs, None, tuple(told))
    places = {
        one["window"]: {"arm": one["arm"] or None, "pair": one["pair"] if one["arm"] else None} for one in records
    }
    verdict = VerdictFile.model_validate(
        {
            "schema": 2,
            "verdict": found.verdict.name,
            "reason": found.reason,
            "lab": text("shop"),
            "run_id": "20261125-091500-pairs",
            "created": "2026-11-25T09:15:00Z",
            "change": {"name": text("maxconn"), "source": text("changes/maxconn")},
            "findings": [one.to_json() for one in findings],
            "rollback": {"done": True, "restored": True, "detail": ""},
            "instrument": {"valid": kind != "lost", "noise_percent": dict(found.noise_percent)},
            "windows": [{**row, **places[row["window"]]} for row in summary(kpis, records)],
            "paired": paired.entry(),
            "classes": [one.to_json() for one in found.classes],
            "timings": {"replay_s": 96.0, "total_s": 130.0},
        }
    )
    run = RunDirectory.created(runs, verdict.run_id)
    run.write_table("flows", table)
    for window, part in kpis.groupby("window"):
        run.write_table("kpis", part, part=int(window))
    run.write_json("verdict.json", verdict.document())
    return run.path


def _blame(text: Callable[[str], str]) -> Blame:
    return replace(BLAME, node=text(BLAME.node), text=text(BLAME.text), evidence=tuple(map(text, BLAME.evidence)))


def _flows(count: int, text: Callable[[str], str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "flow_id": text(f"{name}-{number:05}"),
                "flow_class": text(name),
                "priority": priority,
                "protocol": 17 if port == 53 else 6,
                "source_address": f"198.51.{100 + number // 250 % 100}.{number % 250 + 1}",
                "source_port": 33000 + number,
                "destination_address": "203.0.113.10",
                "destination_port": port,
                "application": text(name),
                "label": text(f"{name}.shop.example"),
                "outcome": "accepted",
                "forward_packets": 20,
                "reverse_packets": 20,
            }
            for name, share, priority, port, _ in CLASSES
            for number in range(round(count * share))
        ]
    )


def _records(pairs: int, kind: str, random: np.random.Generator) -> list[dict[str, object]]:
    plan = [("warmup", "", 0), *[("baseline", "", 0)] * 4, ("transition", "", 0)]
    for pair in range(pairs):
        arms = [str(arm) for arm in random.permutation(["A", "B", "A'"])]
        plan += [("treatment" if arm == "B" else "baseline", arm, pair) for arm in arms]
    plan.append(("restored", "", 0))
    return [
        {
            "window": window,
            "role": role,
            "arm": arm,
            "pair": pair,
            "valid": kind != "lost" or (pair, arm) not in LOST,
            "reason": LATENESS,
            "seconds": 4.0,
            "started": "2026-11-25T09:15:00Z",
        }
        for window, (role, arm, pair) in enumerate(plan)
    ]


def _kpis(
    flows: pd.DataFrame,
    records: Sequence[Mapping[str, object]],
    kind: str,
    random: np.random.Generator,
    text: Callable[[str], str],
) -> pd.DataFrame:
    usual = flows["flow_class"].map({text(name): ms * MS for name, _, _, _, ms in CLASSES}).to_numpy(float)
    usual = usual * random.uniform(0.7, 1.4, len(flows))
    noise = {"unsure": 0.12, "hopeless": 0.5}.get(kind, 0.03)
    parts = []
    for record in records:
        changed = record["arm"] == "B" or record["role"] == "transition"
        response = usual * np.exp(random.normal(0, noise / 2) + random.normal(0, noise, len(flows)))
        part = pd.DataFrame({"flow_id": flows["flow_id"], "window": record["window"], "role": record["role"]})
        part = part.assign(run_id="pairs", arm=record["arm"], pair=record["pair"], completed=True, error="none")
        www = flows["flow_class"].eq(text("www")).to_numpy() & changed
        if kind in ("slow", "unsure"):
            response = np.where(www, response * (2.0 if kind == "slow" else 1.42), response)
        part = part.assign(response_ns=response, connect_ns=response / 10, duration_ns=response * 3)
        part = part.assign(loss_ratio=0.0, as_expected=True, path="internet>fw1>lb1")
        if kind == "closed":
            hit = flows["flow_class"].eq(text("checkout")).to_numpy() & changed
            part.loc[hit, ["completed", "as_expected"]] = False
            part.loc[hit, "error"] = "timeout"
            part.loc[hit, ["response_ns", "connect_ns"]] = np.nan
        if record["window"] == 8:
            part.loc[0, ["completed", "as_expected", "error"]] = [False, False, "reset"]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 60)
