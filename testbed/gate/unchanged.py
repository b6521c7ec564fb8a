"""The verdict where nothing changed below the lab: a PASS that says that nothing was run.

It is a document like any other, so that a pipeline finds the files that it waits for. May not know formats or git.
"""

from __future__ import annotations

from testbed.verdict_file import ChangeEntry, InstrumentEntry, RollbackEntry, VerdictFile


def unchanged(lab: str, change: str, created: str, reason: str) -> VerdictFile:
    """The document; `created` is an ISO 8601 time. It has no run and no windows."""
    return VerdictFile(
        verdict="PASS",
        reason=reason,
        lab=lab,
        run_id="",
        created=created,
        change=ChangeEntry(name=change, source=""),
        rollback=RollbackEntry(done=False, restored=True, detail="nothing was changed"),
        instrument=InstrumentEntry(valid=False, reason="nothing was replayed"),
    )
