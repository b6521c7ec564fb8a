"""Who did it: findings, counters and a change's own diff joined into a named line.  Tables in, findings out."""

from testbed.attribution.blame import blamed

__all__ = ["blamed"]
