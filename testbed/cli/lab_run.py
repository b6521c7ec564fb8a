"""`testbed lab run`: run a program on a kernel of our own, User-mode Linux."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from testbed.lab_kernel import GuestProgram, UserModeLinux
from testbed.lab_kernel import run as boot

SMALLEST_MIB = 128


class Memory(click.ParamType[int]):
    """An amount of memory: a number and M or G."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Octets; fails with what is expected."""
        if isinstance(value, int):
            return value
        read = re.fullmatch(r"([1-9]\d{0,5})([MG])", str(value))
        if read is None:
            self.fail(f"found {value}, expected a number with M or G, such as 2G", param, ctx)
        octets = int(read[1]) * 2 ** (20 if read[2] == "M" else 30)
        if octets < SMALLEST_MIB * 2**20:
            self.fail(f"found {value}, expected at least {SMALLEST_MIB}M", param, ctx)
        return octets


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="\b\nExample:\n  testbed lab run -- testbed doctor\n  testbed lab run --memory 4G -- pytest -q tests",
)
@click.option("--memory", type=Memory(), default="2G", show_default=True, help="Memory of the guest, as 512M or 2G.")
@click.option(
    "--write",
    "writable",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    metavar="DIR",
    help="A directory the program may change for real, besides the current one; may be given again.",
)
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
def run(memory: int, writable: tuple[Path, ...], argv: tuple[str, ...]) -> int:
    """Run a program on a kernel that has what this machine's may lack: netem, Open vSwitch, VRF.

    User-mode Linux boots in a few seconds, as an ordinary user.  The program sees this machine's files at their own
    paths and may change them, but only the current directory and each --write DIR keep what it wrote.  Output, input,
    Ctrl-C and the exit code are the program's own; 4 when the kernel cannot be started.
    """
    program = GuestProgram(argv, Path.cwd(), dict(os.environ), writable, memory)
    return boot(UserModeLinux.found(), program)
