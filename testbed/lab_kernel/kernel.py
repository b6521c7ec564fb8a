"""Where User-mode Linux lies on this machine, and the words it is started with.  It starts nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import Unsupported

MODULES = Path("/usr/lib/uml/modules")
INSTALL = "sudo apt-get install user-mode-linux kmod   (Debian; Ubuntu has no such package)"

CONTROL, STDIN, STDOUT, STDERR = 1, 2, 3, 4
"""Serial lines (/dev/ttyS<n>) of the guest and what each carries."""


def inside() -> bool:
    """Whether this very process runs on a User-mode Linux."""
    return "User Mode Linux" in Path("/proc/cpuinfo").read_text()


@dataclass(frozen=True, slots=True)
class UserModeLinux:
    """One installed kernel: the program that is it, and the directory of its modules."""

    program: Path
    modules: Path

    @classmethod
    def found(cls) -> UserModeLinux:
        """The kernel of the distribution's package; raises Unsupported with the package to install."""
        if inside():
            raise Unsupported(
                "this is User-mode Linux already, and it does not run in itself", "run the program directly"
            )
        program = shutil.which("linux.uml")
        if program is None:
            raise Unsupported("User-mode Linux is not installed (no linux.uml on the PATH)", INSTALL)
        releases = sorted(path for path in MODULES.glob("*") if (path / "modules.dep").is_file())
        if not releases:
            raise Unsupported(f"User-mode Linux has no modules in {MODULES}", INSTALL)
        if shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            raise Unsupported("nothing on this machine loads kernel modules (no modprobe)", INSTALL)
        return cls(Path(program), releases[-1])

    def argv(self, memory_octets: int, init: Path, script: Path, lines: Lines, folder: Path) -> tuple[str, ...]:
        """How it is started: root read-only from this machine, console apart, four serial lines over descriptors."""
        return (
            str(self.program),
            f"mem={memory_octets // 2**20}M",
            "root=/dev/root",
            "rootfstype=hostfs",
            "rootflags=/",
            "ro",
            f"uml_dir={folder}/",
            "con=null",
            "con0=null,fd:1",
            "ssl=null",
            f"ssl{CONTROL}=fd:{lines.to_control},fd:{lines.from_control}",
            f"ssl{STDIN}=fd:{lines.to_stdin},null",
            f"ssl{STDOUT}=null,fd:{lines.from_stdout}",
            f"ssl{STDERR}=null,fd:{lines.from_stderr}",
            f"init={init}",
            "--",
            "-I",
            "-S",
            str(script),
        )


@dataclass(frozen=True, slots=True)
class Lines:
    """The guest's ends of the pipes behind its serial lines, as descriptors."""

    to_control: int
    from_control: int
    to_stdin: int
    from_stdout: int
    from_stderr: int
