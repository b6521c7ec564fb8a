"""The whole chain for one series: season, detectors, tails, their evidence together, the alarm rule.

Evidence is the mean of the detectors' -ln p, which is minus the logarithm of the geometric mean of their p-values:
times e that is a p-value however the detectors depend on each other (Vovk and Wang 2020, "Combining p-values via
averaging"). All detectors count alike; one that warms up has no say.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from analysis.detect.alarm import ALARM, AlarmRule, Alarms
from analysis.detect.features import Lags, OnFeatures, OnResidual, OnValue, Sample, Shape
from analysis.detect.forest import Forest
from analysis.detect.port import Detector, Reading
from analysis.detect.scalar import Cusum, DeviationPercent, EwmaResidual, RobustZ, TrendResidual
from analysis.detect.season import Season
from analysis.detect.subspace import Subspace
from analysis.detect.tail import Surprise

LEAST_VOICES = 3
"""Evidence takes so many detectors that have warmed up."""
_INFINITE = 1e100
_FAR = 10.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How many rows each window of the detectors has."""

    sustained: int = 6
    trend: int = 288
    ewma: int = 50
    cusum: int = 500
    lags: int = 24
    shape: tuple[int, int, int] = (5, 12, 48)

    def times(self, factor: float) -> Pace:
        """All windows longer or shorter alike."""

        def scaled(rows: int) -> int:
            return max(3, round(rows * factor))

        short, middle, long = (scaled(rows) for rows in self.shape)
        return Pace(
            scaled(self.sustained),
            scaled(self.trend),
            scaled(self.ewma),
            scaled(self.cusum),
            scaled(self.lags),
            (short, middle, long),
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set; chosen on the corpus as docs/detection.md says.

    `memory` is how many scores, and readings to go over again when a season is taken up, are kept of a series.
    """

    pace: Pace = field(default_factory=Pace)
    rule: AlarmRule = field(default_factory=lambda: AlarmRule(4.1))
    memory: int = 20_000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Detection:
    """What a series came to: a score a row (None in warm-up), the rows in which alarms begin, and for each alarm the
    name of the detector that was most surprised."""

    scores: tuple[float | None, ...]
    alarms: tuple[int, ...]
    loudest: tuple[str, ...]


def detectors(pace: Pace, seed: int) -> Mapping[str, Detector[Sample]]:
    """The detectors by name, fresh."""
    return {
        "deviation_percent": OnValue(DeviationPercent()),
        "seasonal_z": OnResidual(RobustZ(1)),
        "sustained_z": OnResidual(RobustZ(pace.sustained)),
        "trend": OnResidual(TrendResidual(pace.trend)),
        "ewma": OnResidual(EwmaResidual(pace.ewma)),
        "cusum": OnResidual(Cusum(pace.cusum)),
        "subspace": OnFeatures(lags := Lags(pace.lags), Subspace(lags.length, 3, alike=True)),
        "forest": OnFeatures(shape := Shape(*pace.shape), Forest(shape.length, seed)),
    }


class Evidence:
    """How surprised the detectors are together by a reading of one series: a mean of -ln p, from 0."""

    def __init__(
        self,
        settings: Settings,
        made_of: Callable[[Pace, int], Mapping[str, Detector[Sample]]] = detectors,
    ) -> None:
        self._settings = settings
        self._made_of = made_of
        self._season = Season(settings.memory)
        self._past: deque[Reading] = deque(maxlen=settings.memory)
        self._low, self._high = math.inf, -math.inf
        self._asked: tuple[Reading, Sample | None] | None = None
        self.voices: Mapping[str, Surprise[Sample]] = self._fresh()

    def score_one(self, given: Reading) -> float | None:
        """None where nothing was measured, and until three detectors have warmed up."""
        said = [score for score in self.said(given).values() if score is not None]
        return sum(said) / len(said) if len(said) >= LEAST_VOICES else None

    def said(self, given: Reading) -> Mapping[str, float | None]:
        """What each detector has to say, by name: -ln p, or None in its warm-up and where nothing was measured."""
        sample = self._sample(given)
        if sample is None:
            return dict.fromkeys(self.voices)
        return {name: voice.score_one(sample) for name, voice in self.voices.items()}

    def learn_one(self, given: Reading) -> None:
        """Season and detectors take it in; with a new season the detectors go over the past again."""
        sample = self._sample(given)
        self._asked = None
        if sample is None:
            if math.isfinite(given.value) and abs(given.value) < _INFINITE:
                self._take(given)
            return
        for voice in self.voices.values():
            voice.learn_one(sample)
        self._take(Reading(given.time_ns, sample.value))
        residuals = self._season.renewed(given.time_ns, lambda: tuple(self._past))
        if residuals is not None:
            self.voices = self._fresh()
            for reading, residual in zip(self._past, residuals, strict=True):
                again = Sample(reading.value, float(residual))
                for voice in self.voices.values():
                    voice.learn_one(again)

    def _take(self, reading: Reading) -> None:
        self._low, self._high = min(self._low, reading.value), max(self._high, reading.value)
        self._season.learn(reading)
        self._past.append(reading)

    def _fresh(self) -> Mapping[str, Surprise[Sample]]:
        made = self._made_of(self._settings.pace, self._settings.seed)
        return {name: Surprise(detector, self._settings.memory) for name, detector in made.items()}

    def _sample(self, given: Reading) -> Sample | None:
        """One object for scoring and learning, so that no detector scores it twice."""
        if self._asked is None or self._asked[0] is not given:
            self._asked = given, self._sampled(given)
        return self._asked[1]

    def _sampled(self, given: Reading) -> Sample | None:
        baseline = self._season.baseline(given.time_ns)
        if baseline is None or math.isnan(given.value):
            return None
        value = given.value
        if abs(value) >= _INFINITE:  # what never came has no delay; it counts as far beyond everything seen
            reach = _FAR * (self._high - self._low or abs(self._high) or 1.0)
            value = self._high + reach if value > 0 else self._low - reach
        off = value - baseline
        grain = 1e-9 * max(abs(self._low), abs(self._high))
        return Sample(value, off if abs(off) > grain else 0.0)


class Watch:
    """One series watched: a score from 0 to 1 a row, at or above `alarm.ALARM` where an alarm begins."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._evidence = Evidence(self._settings)
        self._alarms = Alarms(self._settings.rule)
        self._asked: tuple[Reading, float | None] | None = None

    def score_one(self, given: Reading) -> float | None:
        """None in warm-up and where nothing was measured."""
        return self._alarms.score_one(self._found(given))

    def learn_one(self, given: Reading) -> None:
        """The alarm rule counts it, season and detectors take it in."""
        self._alarms.learn_one(self._found(given))
        self._asked = None
        self._evidence.learn_one(given)

    def loudest(self, given: Reading) -> str:
        """Which detector is most surprised by this reading, as long as it was not learned."""
        said = self._evidence.said(given)
        return max(said, key=lambda name: said[name] or 0.0)

    def _found(self, given: Reading) -> float | None:
        if self._asked is None or self._asked[0] is not given:
            self._asked = given, self._evidence.score_one(given)
        return self._asked[1]


def detect(readings: Iterable[Reading], settings: Settings | None = None) -> Detection:
    """Go through a whole series as it came, row by row, as a live watch would."""
    watch = Watch(settings)
    scores: list[float | None] = []
    alarms: list[int] = []
    loudest: list[str] = []
    for row, reading in enumerate(readings):
        score = watch.score_one(reading)
        scores.append(score)
        if score is not None and score >= ALARM:
            alarms.append(row)
            loudest.append(watch.loudest(reading))
        watch.learn_one(reading)
    return Detection(tuple(scores), tuple(alarms), tuple(loudest))
