"""Two models compared: access opened and closed, classes come and gone, volume beyond noise. Pure values.

Both models' cells are parted together, so that every class has one disposition in each. Volume is compared by an exact
conditional test of two Poisson rates (given the sum, the first count is binomial with the share of the first time span:
J. Przyborowski, H. Wilenski, Biometrika 31, 1940), two-sided by doubling the smaller tail, with the false discovery
rate over all classes held by Benjamini and Hochberg's procedure (J. R. Stat. Soc. B 57, 1995).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt
import pandas as pd

from replay.ofcm.classes import described, parted
from replay.ofcm.model import Ofcm

Float = npt.NDArray[np.float64]

FALSE_DISCOVERY_RATE = 0.05
LEAST_RATIO = 1.5
_MAJORITY = 0.5


class Kind(Enum):
    """What changed in a class, in the order in which it matters."""

    OPENED = "opened"
    CLOSED = "closed"
    DISPOSITION = "disposition"
    APPEARED = "appeared"
    VANISHED = "vanished"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class Observed:
    """A class in one model; `disposition` is "" and the share's interval 0 to 1 where no flow was seen."""

    flows: float
    disposition: str
    share_low: float
    share_high: float


@dataclass(frozen=True, slots=True)
class Change:
    """One class that changed.

    `rate_ratio` is flows per time after to before (inf for what appeared). `q_value` is of the volume. `certain`: of a
    disposition, both Wilson intervals lie above one half; of what appeared, vanished or changed volume, the q value
    is at most the false discovery rate.
    """

    kind: Kind
    source: str
    destination: str
    protocol: int
    port: int
    application: str
    before: Observed
    after: Observed
    rate_ratio: float
    q_value: float
    certain: bool


def diff(
    a: Ofcm,
    b: Ofcm,
    spans_ns: tuple[int, int] | None = None,
    false_discovery_rate: float = FALSE_DISCOVERY_RATE,
    least_ratio: float = LEAST_RATIO,
) -> tuple[Change, ...]:
    """What changed from a to b, what matters most first; classes are made by b's grouping.

    `spans_ns` is how long each was observed; without it the time from a model's first to its last packet. A volume
    counts as changed when it is significant and the rate grew or shrank by `least_ratio`. Raises ValueError where the
    grains differ.
    """
    if a.grouping.grain != b.grouping.grain:
        raise ValueError(f"models of the grain {a.grouping.grain} and {b.grouping.grain} cannot be compared")
    partition = parted(b.grouping, [a.cells, b.cells])
    if partition.names.empty:
        return ()
    split = len(a.cells)
    before = described(partition.names, partition.of_cell[:split], a.cells, a.delays)
    after = described(partition.names, partition.of_cell[split:], b.cells, b.delays)
    share = _share_of_time(spans_ns or (_span_ns(a), _span_ns(b)))
    old, new = before["flows"].to_numpy(np.float64), after["flows"].to_numpy(np.float64)
    q_values = _q_values(old, new, share)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = (new / (1 - share)) / (old / share)
    found = []
    for row, name in enumerate(partition.names.to_dict("records")):
        one, other = _observed(before, row), _observed(after, row)
        beyond_noise = bool(q_values[row] <= false_discovery_rate)
        kind = _kind(one, other, beyond_noise and not 1 / least_ratio < ratios[row] < least_ratio)
        if kind is None:
            continue
        turned = kind in (Kind.OPENED, Kind.CLOSED, Kind.DISPOSITION)
        certain = min(one.share_low, other.share_low) > _MAJORITY if turned else beyond_noise
        found.append(
            Change(
                kind=kind,
                source=name["source"],
                destination=name["destination"],
                protocol=int(name["protocol"]),
                port=int(name["port"]),
                application=name["application"],
                before=one,
                after=other,
                rate_ratio=float(ratios[row]),
                q_value=float(q_values[row]),
                certain=certain,
            )
        )
    return tuple(sorted(found, key=_order))


def _kind(before: Observed, after: Observed, other_volume: bool) -> Kind | None:
    if not before.flows:
        return Kind.APPEARED
    if not after.flows:
        return Kind.VANISHED
    if before.disposition == after.disposition:
        return Kind.VOLUME if other_volume else None
    if after.disposition == "accepted":
        return Kind.OPENED
    return Kind.CLOSED if before.disposition == "accepted" else Kind.DISPOSITION


def _order(change: Change) -> tuple[int, bool, float, tuple[str, str, int, int, str]]:
    name = (change.source, change.destination, change.protocol, change.port, change.application)
    flows = change.before.flows + change.after.flows
    return list(Kind).index(change.kind), not change.certain, -flows, name


def _observed(table: pd.DataFrame, row: int) -> Observed:
    flows = float(table["flows"].iloc[row])
    if not flows:
        return Observed(0.0, "", 0.0, 1.0)
    low, high = float(table["share_low"].iloc[row]), float(table["share_high"].iloc[row])
    return Observed(flows, str(table["disposition"].iloc[row]), low, high)


def _span_ns(model: Ofcm) -> int:
    return 0 if model.cells.empty else int(model.cells["last_ns"].max() - model.cells["first_ns"].min())


def _share_of_time(spans_ns: tuple[int, int]) -> float:
    """The first span's share of both; one half where a span is not known."""
    first, second = spans_ns
    return 0.5 if first <= 0 or second <= 0 else first / (first + second)


def _q_values(old: Float, new: Float, share: float) -> Float:
    from scipy.stats import binom  # noqa: PLC0415  a second to import, both
    from statsmodels.stats.multitest import multipletests  # noqa: PLC0415

    first, total = np.round(old), np.round(old) + np.round(new)
    tail = np.minimum(binom.cdf(first, total, share), binom.sf(first - 1, total, share))
    p_values = np.minimum(2 * tail, 1.0)
    return np.asarray(multipletests(p_values, method="fdr_bh")[1], np.float64)
