"""Paired windows whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

from analysis.kpi import Tolerance
from analysis.pairs.case import Rules
from analysis.pairs.judge import PairJudgement, judge_pairs

MS = 1_000_000
CLASSES = {
    "https": (30, "critical", 12.0),
    "http": (24, "high", 40.0),
    "dns": (40, "normal", 1.5),
    "bulk": (3, "low", 90.0),
}


@dataclass(frozen=True)
class Scene:
    """Tables of one run; every method gives a changed copy."""

    flows: pd.DataFrame
    kpis: pd.DataFrame
    instruments: Sequence[Mapping[str, object]] = field(default=())

    def where(self, flow_class: str | None = None, *arms: str) -> pd.Series:
        ids = self.flows.loc[self.flows.flow_class == flow_class, "flow_id"] if flow_class else self.flows.flow_id
        chosen = self.kpis.flow_id.isin(ids)
        return chosen & self.kpis.arm.isin(arms) if arms else chosen

    def changed(self, mask: pd.Series, **values: object) -> Scene:
        kpis = self.kpis.copy()
        for name, value in values.items():
            kpis.loc[mask, name] = value(kpis.loc[mask, name]) if callable(value) else value
        return replace(self, kpis=kpis)

    def killed(self, mask: pd.Series, error: str = "timeout") -> Scene:
        return self.changed(
            mask, completed=False, error=error, as_expected=False, response_ns=np.inf, connect_ns=np.nan
        )

    def without(self, mask: pd.Series) -> Scene:
        return replace(self, kpis=self.kpis[~mask])

    def recorded(self, *arms: str, **values: object) -> Scene:
        windows = set(self.kpis.loc[self.kpis.arm.isin(arms), "window"])
        records = [{**one, **values} if one["window"] in windows else one for one in self.instruments]
        return replace(self, instruments=records)

    def judged(
        self, rules: Rules | None = None, seed: int = 0, *, triage: bool = False, **tolerances: Tolerance
    ) -> PairJudgement:
        rules = replace(rules or Rules(), triage=triage)
        return judge_pairs(self.kpis, self.flows, tolerances, self.instruments, seed, rules)


def build(pairs: int = 8, seed: int = 1, noise: float = 0.03, arms: Sequence[str] = ("A", "B", "A'")) -> Scene:
    random = np.random.default_rng(seed)
    flows = pd.DataFrame(
        [
            {
                "flow_id": f"{name}-{number:03}",
                "flow_class": name,
                "priority": priority,
                "source_address": f"198.51.100.{number}",
                "source_port": 40000 + number,
                "destination_address": "203.0.113.10",
                "destination_port": 443,
                "outcome": "accepted",
                "forward_packets": 20,
                "reverse_packets": 20,
            }
            for name, (count, priority, _) in CLASSES.items()
            for number in range(count)
        ]
    )
    own = np.concatenate([np.full(count, ms) for count, _, ms in CLASSES.values()]) * random.uniform(
        0.6, 1.6, len(flows)
    )
    parts = []
    order = [(arm, pair) for pair in range(pairs) for arm in random.permutation(arms)]
    for window, (arm, pair) in enumerate(order):
        response = own * random.lognormal(0, noise) * random.lognormal(0, noise, len(flows)) * MS
        parts.append(
            pd.DataFrame(
                {
                    "window": window,
                    "role": "pair",
                    "arm": arm,
                    "pair": pair,
                    "flow_id": flows.flow_id,
                    "completed": True,
                    "error": "none",
                    "as_expected": True,
                    "connect_ns": response / 10,
                    "response_ns": response,
                    "loss_ratio": random.binomial(40, 0.01, len(flows)) / 40,
                    "goodput_bps": 1e15 / response,
                    "pdv_ns": np.nan,
                    "path": "a>b",
                }
            )
        )
    records = [
        {"window": at, "valid": True, "reason": "", "offered": 500, "sent": 500, "lateness_p99_us": 100.0 + at % 7}
        for at in range(len(order))
    ]
    return Scene(flows, pd.concat(parts, ignore_index=True), records)


@pytest.fixture(scope="session")
def unchanged() -> Scene:
    return build()


@pytest.fixture(scope="session")
def build_pairs() -> Callable[..., Scene]:
    return build
