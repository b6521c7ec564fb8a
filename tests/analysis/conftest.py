"""Synthetic windows whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

from analysis.judge import Judgement, judge, judge_restored

MS = 1_000_000
ROLES = ("warmup", "baseline", "baseline", "baseline", "transition", "treatment", "treatment", "treatment", "restored")
CLASSES = {
    "https": (60, "critical", 12.0),
    "http": (40, "high", 8.0),
    "dns": (80, "normal", 1.5),
    "bulk": (3, "low", 90.0),
}


@dataclass(frozen=True)
class Scene:
    """Tables of one run; every method gives a changed copy."""

    flows: pd.DataFrame
    kpis: pd.DataFrame
    instruments: Sequence[Mapping[str, object]] = field(default=())

    def where(self, flow_class: str | None = None, *roles: str) -> pd.Series:
        ids = self.flows.loc[self.flows.flow_class == flow_class, "flow_id"] if flow_class else self.flows.flow_id
        chosen = self.kpis.flow_id.isin(ids)
        return chosen & self.kpis.role.isin(roles) if roles else chosen

    def changed(self, mask: pd.Series, **values: object) -> Scene:
        kpis = self.kpis.copy()
        for name, value in values.items():
            kpis.loc[mask, name] = value(kpis.loc[mask, name]) if callable(value) else value
        return replace(self, kpis=kpis)

    def killed(self, mask: pd.Series, error: str = "timeout") -> Scene:
        return self.changed(
            mask, completed=False, error=error, as_expected=False, response_ns=np.inf, goodput_bps=np.nan
        )

    def invalid(self, *windows: int, reason: str = "capture dropped packets") -> Scene:
        records = [
            {**record, "valid": False, "reason": reason} if record["window"] in windows else record
            for record in self.instruments
        ]
        return replace(self, instruments=records)

    def judged(self, **tolerances: object) -> Judgement:
        return judge(self.kpis, self.flows, tolerances, self.instruments)

    def restored(self) -> tuple[bool, str]:
        return judge_restored(self.kpis, self.flows, {}, self.instruments)


def build(seed: int = 1, noise: float = 0.03, window_noise: Sequence[float] | None = None) -> Scene:
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
            }
            for name, (count, priority, _) in CLASSES.items()
            for number in range(count)
        ]
    )
    own = np.concatenate([np.full(count, ms) for count, _, ms in CLASSES.values()]) * random.uniform(
        0.6, 1.6, len(flows)
    )
    parts = []
    for window, role in enumerate(ROLES):
        common = 1.0 if window_noise is None else window_noise[window]
        response = own * common * random.lognormal(0, noise, len(flows)) * MS
        parts.append(
            pd.DataFrame(
                {
                    "run_id": "r",
                    "window": window,
                    "role": role,
                    "flow_id": flows.flow_id,
                    "completed": True,
                    "error": "none",
                    "as_expected": True,
                    "connect_ns": response / 10,
                    "response_ns": response,
                    "one_way_delay_forward_ns": response / 20,
                    "loss_ratio": 0.0,
                    "goodput_bps": 1e15 / response,
                    "pdv_ns": np.nan,
                }
            )
        )
    instruments = [{"window": window, "role": role, "valid": True, "reason": ""} for window, role in enumerate(ROLES)]
    return Scene(flows, pd.concat(parts, ignore_index=True), instruments)


@pytest.fixture
def scene() -> Scene:
    return build()


@pytest.fixture(scope="session")
def build_scene() -> Callable[..., Scene]:
    return build
