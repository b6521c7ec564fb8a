"""Windows that were never played: tables of a run whose noise and whose truth are known.

May not know any judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.pairs.design import Arm, Placed, order

Floats = npt.NDArray[np.float64]

MESSAGES = 8
"""Delays in a flow and window: the judge sees their median, rivals pool them all."""
DATAGRAMS = 60
PRIORITIES = ("critical", "high", "normal", "normal", "normal", "low")
FLOW_SD, CLASS_SD, MESSAGE_SD = 0.06, 0.01, 0.1


@dataclass(frozen=True, slots=True)
class NoiseModel:
    """How one window differs from the next though nothing was changed; standard deviations of logarithms.

    `window_sd` is common to all flows of a window, `persistence` its autocorrelation from window to window, `drift` a
    trend over the run, `burst` the chance that a window is half as slow again, `tails` the degrees of freedom of
    Student's t (0: normal), `loss_sd` that of a window's loss rate, which makes loss over-dispersed.
    """

    name: str
    window_sd: float = 0.05
    persistence: float = 0.0
    drift: float = 0.0
    burst: float = 0.0
    tails: int = 0
    loss_sd: float = 0.1


MODELS: tuple[NoiseModel, ...] = (
    NoiseModel("independent"),
    NoiseModel("autocorrelated_0.3", persistence=0.3),
    NoiseModel("autocorrelated_0.6", persistence=0.6),
    NoiseModel("autocorrelated_0.9", persistence=0.9),
    NoiseModel("drift", drift=0.5),
    NoiseModel("bursts", burst=0.15),
    NoiseModel("heavy_tails", tails=2),
    NoiseModel("overdispersed_loss", loss_sd=0.7),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a synthetic run is."""

    flows: int = 120
    classes: int = 6
    pairs: int = 8
    control: bool = True


@dataclass(frozen=True, slots=True)
class Truth:
    """What the change does: a factor on delays, one on goodput and one on the odds of loss, of these flows alone."""

    flows: tuple[int, ...] = ()
    delay: float = 1.0
    goodput: float = 1.0
    loss_odds: float = 1.0


@dataclass(frozen=True, slots=True)
class Windows:
    """One synthetic run: the tables that a judge takes, and every single delay for those that pool them.

    `delays` is flow × window × message, with `placed` saying what each window is.
    """

    kpis: pd.DataFrame
    flows: pd.DataFrame
    instruments: tuple[Mapping[str, object], ...]
    placed: tuple[Placed, ...]
    delays: Floats = field(repr=False)

    def of(self, arm: Arm) -> Floats:
        """The delays of an arm's windows, pooled: a row a flow."""
        chosen = [at for at, placed in enumerate(self.placed) if placed.arm is arm]
        return self.delays[:, chosen].reshape(len(self.delays), -1)


def members(size: Size, flow_class: int) -> tuple[int, ...]:
    """The numbers of the flows of one class."""
    return tuple(range(flow_class, size.flows, size.classes))


def windows(size: Size, model: NoiseModel, truth: Truth, seed: int) -> Windows:
    """One run by `size` and `seed`; the same arguments give the same tables."""
    random = np.random.default_rng([seed, size.flows, size.pairs])
    placed = order(size.pairs, seed, control=size.control)
    count = len(placed)
    common = _common(model, count, random)
    classes = np.arange(size.flows) % size.classes
    own = random.uniform(np.log(2e6), np.log(3e7), size.flows)
    of_class = random.normal(0, CLASS_SD, (size.classes, count))[classes]
    changed = np.array([one.arm is Arm.CHANGED for one in placed])
    hit = np.zeros((size.flows, count), dtype=bool)
    hit[np.ix_(np.array(truth.flows, dtype=np.int64), np.flatnonzero(changed))] = True
    level = own[:, None] + common + of_class + FLOW_SD * _noise(model, (size.flows, count), random)
    level = level + np.where(hit, np.log(truth.delay), 0.0)
    delays = np.exp(level[:, :, None] + random.normal(0, MESSAGE_SD, (size.flows, count, MESSAGES)))
    goodput = 1e13 / np.exp(own[:, None] + common + FLOW_SD * _noise(model, (size.flows, count), random))
    goodput = goodput * np.where(hit, truth.goodput, 1.0)
    odds = 0.01 * np.exp(random.normal(0, model.loss_sd, count)) * np.where(hit, truth.loss_odds, 1.0)
    loss = random.binomial(DATAGRAMS, odds / (1 + odds)) / DATAGRAMS
    ids = np.array([f"f{number:05}" for number in range(size.flows)])
    flows = pd.DataFrame(
        {
            "flow_id": ids,
            "flow_class": [f"class{number}" for number in classes],
            "priority": [PRIORITIES[number % len(PRIORITIES)] for number in classes],
            "forward_packets": DATAGRAMS,
            "reverse_packets": 0,
        }
    )
    kpis = pd.DataFrame(
        {
            "window": np.repeat(np.arange(count), size.flows),
            "role": "pair",
            "arm": np.repeat([one.arm.value for one in placed], size.flows),
            "pair": np.repeat([one.pair for one in placed], size.flows),
            "flow_id": np.tile(ids, count),
            "completed": True,
            "error": "none",
            "as_expected": True,
            "response_ns": np.median(delays, axis=2).T.ravel(),
            "goodput_bps": goodput.T.ravel(),
            "loss_ratio": loss.T.ravel(),
        }
    )
    records = tuple({"window": at, "valid": True, "reason": "", "offered": 1, "sent": 1} for at in range(count))
    return Windows(kpis, flows, records, placed, delays)


def larger(size: Size, flows: int) -> Size:
    """The same with so many flows."""
    return replace(size, flows=flows)


def _common(model: NoiseModel, count: int, random: np.random.Generator) -> Floats:
    """What a window does to every flow alike; a first-order autoregression, stationary from its first value on."""
    steps = _noise(model, (count,), random)
    series = np.empty(count)
    before = 0.0
    for at, step in enumerate(steps):
        fresh = 1.0 if at == 0 else np.sqrt(1 - model.persistence**2)
        before = model.persistence * before + fresh * step
        series[at] = before
    trend = model.drift * np.linspace(-0.5, 0.5, count)
    bursts = np.where(random.random(count) < model.burst, np.log(1.5), 0.0)
    return np.asarray(model.window_sd * series + trend + bursts)


def _noise(model: NoiseModel, shape: tuple[int, ...], random: np.random.Generator) -> Floats:
    if model.tails:
        return np.asarray(random.standard_t(model.tails, shape) / 1.5)
    return np.asarray(random.standard_normal(shape))
