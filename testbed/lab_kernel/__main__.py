"""`python -m testbed.lab_kernel ARGV`: the guest without the command line's options, for the doctor's probe."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from testbed.errors import CommandFailed, NotReady, Unsupported
from testbed.lab_kernel import GuestProgram, UserModeLinux, run

SMALL_OCTETS = 256 * 2**20


def main() -> int:
    """Run ARGV with a small memory in an empty folder; 4 and a sentence when the guest does not come up."""
    try:
        with TemporaryDirectory(prefix="testbed-") as empty:
            program = GuestProgram(tuple(sys.argv[1:]), Path(empty), dict(os.environ), (), SMALL_OCTETS)
            return run(UserModeLinux.found(), program)
    except (Unsupported, NotReady, CommandFailed, ChildProcessError) as problem:
        sys.stderr.write(f"{problem}\n")
        return 4


if __name__ == "__main__":
    sys.exit(main())
