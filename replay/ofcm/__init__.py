"""The observed flow control model: how the network controlled the flows it was seen to carry."""

from __future__ import annotations

from replay.ofcm.classes import CLASS_KEY, CONFIDENCE, POOLED_PORT, classes
from replay.ofcm.grouping import Grouping, Zone
from replay.ofcm.model import OUTCOMES, Ofcm, decayed, merged, model_of, updated
from replay.ofcm.timings import timed

__all__ = [
    "CLASS_KEY", "CONFIDENCE", "OUTCOMES", "POOLED_PORT", "Grouping", "Ofcm", "Zone", "classes", "decayed", "merged",
    "model_of", "timed", "updated",
]  # fmt: skip
