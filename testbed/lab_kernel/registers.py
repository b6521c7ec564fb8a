"""Whether this processor has more registers than User-mode Linux saves, and the remedy: a shim of forty lines of C.

It knows nothing of what is booted.  Built anew for each boot, in a tenth of a second: nothing is left on the machine.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from testbed.errors import CommandFailed, Unsupported

SOURCE = Path(__file__).with_name("xstate.c")


def larger_than_saved(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor's register area exceeds the 2696 octets that a User-mode Linux before 6.13 hands back."""
    return re.search(r"^flags\s*:.*\bamx_tile\b", cpuinfo.read_text(), re.MULTILINE) is not None


def shim(folder: Path) -> Path:
    """Build the shim in `folder` and return the library to preload; raises Unsupported without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Unsupported(
            "this processor has AMX registers, for which User-mode Linux needs a shim, and there is no C compiler",
            "sudo apt-get install gcc",
        )
    library = folder / "xstate.so"
    argv = (compiler, "-O2", "-shared", "-fPIC", "-nostdlib", "-ffreestanding", "-o", str(library), str(SOURCE))
    built = subprocess.run(argv, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise CommandFailed("the machine", argv, built.returncode, built.stderr)
    return library
