"""The order of a run's windows; pure."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.window import Role


@dataclass(frozen=True, slots=True)
class Plan:
    """How many windows of each role: one to warm up, the baseline, the change itself, and after it.

    `seed` is that of the links' chance, the same in every window; with `preflight_only` there are probes and no window.
    """

    baseline: int = 3
    treatment: int = 3
    restored: int = 1
    seed: int = 0
    preflight_only: bool = False

    @property
    def before(self) -> tuple[Role, ...]:
        """Windows before the change; the first warms caches and connection tables and is not judged."""
        if self.preflight_only:
            return ()
        return (Role.WARMUP, *(Role.BASELINE,) * self.baseline)

    @property
    def after(self) -> tuple[Role, ...]:
        """Windows with the change in force."""
        return () if self.preflight_only else (Role.TREATMENT,) * self.treatment

    @property
    def restoration(self) -> tuple[Role, ...]:
        """Windows after the rollback."""
        return () if self.preflight_only else (Role.RESTORED,) * self.restored

    @property
    def windows(self) -> int:
        """All windows of a run that goes to its end."""
        transition = 0 if self.preflight_only else 1
        return len(self.before) + transition + len(self.after) + len(self.restoration)
