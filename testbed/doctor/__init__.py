"""What this machine can do, found by doing it: rows of capability, state, what was seen and what to do.

It changes nothing on the machine and knows no lab.
"""

from testbed.doctor.in_sandbox import kernel_rows
from testbed.doctor.limits import limit_rows
from testbed.doctor.programs import booting, kernel_of_ours, program_rows
from testbed.doctor.rows import Row, State, document

__all__ = ["Row", "State", "document", "examined"]

GROUPS = ("machine", "kernel", "limits", "programs")


def examined() -> list[Row]:
    """Every row, by group."""
    with booting() as booted:
        rows = [*limit_rows(), *kernel_rows(), *program_rows(), kernel_of_ours(booted)]
    return sorted(rows, key=lambda row: GROUPS.index(row.group))
