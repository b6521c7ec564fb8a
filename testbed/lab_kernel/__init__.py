"""A kernel of our own: User-mode Linux boots as a process, its root is this machine's, and one program runs in it.

It knows nothing of labs, networks or experiments.  What the kernel of this machine lacks (netem, Open vSwitch,
VRF), that one has; what it may write is decided by mounts of this machine's kernel, not by its own good manners.

    caller ── sandbox (read-only root, private /run) ── linux.uml ══ guest: overlay root, modules, the program
       └── stdin, stdout, stderr, signals and the exit code travel over four serial lines
"""

from testbed.lab_kernel.boot import GuestProgram, run
from testbed.lab_kernel.kernel import UserModeLinux, inside

__all__ = ["GuestProgram", "UserModeLinux", "inside", "run"]
