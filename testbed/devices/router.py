"""A router: FRR's own daemons on production's integrated frr.conf, changed live by FRR's own reload.

It knows no other kind.  Daemons run in the foreground; readiness is protocol state, never a sleep.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.devices.base import Box, Complaint, Configs, Readiness, Reading
from testbed.devices.frr_daemons import ALWAYS, check_daemons, daemons_of
from testbed.devices.frr_state import lack, router_readings
from testbed.devices.linux import ALL_KINDS, FORWARDING, SHADOW_SYSCTLS, LinuxNode
from testbed.errors import CommandFailed, Unsupported
from topologies.model import Node

DAEMON_PLACES = (Path("/usr/lib/frr"), Path("/usr/libexec/frr"))
INTEGRATED = "service integrated-vtysh-config\n"
FRR_FILES = frozenset({"frr.conf", "daemons"})
_VRF = re.compile(r"(?:vrf (\S+)\s*$)|(?:(?:router|interface) .*\bvrf (\S+)\s*$)")
_AT_LINE = re.compile(r"line (\d+)")


def check_vrfs(frr_conf: str, node: Node) -> list[Complaint]:
    """VRFs that frr.conf speaks of and no interface of the node is in: FRR takes them, and they do nothing."""
    known = {"default", *(interface.vrf for interface in node.interfaces if interface.vrf)}
    found: dict[str, int] = {}
    for number, line in enumerate(frr_conf.splitlines(), start=1):
        if (named := _VRF.match(line)) and (name := named[1] or named[2]) not in known:
            found.setdefault(name, number)
    return [
        Complaint(
            "frr.conf", number, f"found the VRF {name!r}, expected one that an interface in lab.yaml has (vrf: {name})"
        )
        for name, number in found.items()
    ]


class Router(LinuxNode):
    """FRR in a node of its own: zebra, staticd and the daemons its files ask for."""

    reads = ALL_KINDS | FRR_FILES
    directories: Mapping[str, str] = {
        "frr": "/etc/frr",
        "frr-log": "/var/log/frr",
        "frr-state": "/var/lib/frr",
        "frr-crash": "/var/tmp",  # each daemon makes a directory frr/DAEMON.PID in it, which nobody removes
    }
    defaults: Mapping[str, str] = {**SHADOW_SYSCTLS, **FORWARDING}

    def check(self, box: Box, configs: Configs) -> Sequence[Complaint]:
        """`vtysh -C` on the file, beside the packet filter's check."""
        complaints = [*super().check(box, configs), *check_daemons(configs)]
        absent = [d for d in daemons_of(configs).asked if not (_programs() / d).exists()]
        asking = "daemons" if "daemons" in configs else "frr.conf"
        complaints += [Complaint(asking, None, f"this machine's FRR has no {daemon}") for daemon in absent]
        if "frr.conf" in configs:
            candidate = box.home / "frr" / "candidate.conf"
            candidate.parent.mkdir(exist_ok=True)
            candidate.write_bytes(configs["frr.conf"])
            # without it vtysh begins every complaint with one about that
            candidate.with_name("vtysh.conf").write_text(INTEGRATED)
            try:
                box.run(["vtysh", "-C", "-f", "/etc/frr/candidate.conf"])
            except CommandFailed as failure:
                place = _AT_LINE.search(failure.stderr)
                said = " ".join(failure.stderr.split())
                complaints.append(Complaint("frr.conf", int(place[1]) if place else None, said))
            finally:
                candidate.unlink()
            complaints += check_vrfs(configs["frr.conf"].decode(errors="replace"), box.node)
        return complaints

    def start(self, box: Box, configs: Configs) -> None:
        """Kernel settings and zebra; `ready` starts the others once zebra answers.

        A daemon that finds no zebra tries again only ten seconds later.
        """
        super().start(box, configs)
        etc = box.home / "frr"
        etc.mkdir(exist_ok=True)
        (box.home / "run" / "frr").mkdir(exist_ok=True)
        (etc / "vtysh.conf").write_text(INTEGRATED)
        (etc / "frr.conf").write_bytes(configs.get("frr.conf", b""))
        box.spawn("zebra", [str(_programs() / "zebra"), *daemons_of(configs).argv("zebra")])

    def configured(self, box: Box) -> bool:
        """Whether the daemons took their configuration; asked again until they listen."""
        return (box.home / "run" / "configured").exists()

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """Daemons listening, configuration loaded, neighbours adjacent."""
        if not (box.home / "run" / "frr" / "zserv.api").exists():
            return Readiness(ready=False, waiting_for=f"{box.node.name}: zebra to listen")
        daemons = daemons_of(configs)
        wanted = [d for d in (*ALWAYS, *daemons.asked) if (_programs() / d).exists()]
        for daemon in wanted:
            if box.process(daemon) is None:
                box.spawn(daemon, [str(_programs() / daemon), *daemons.argv(daemon)])
        silent = [d for d in wanted if not (box.home / "run" / "frr" / f"{d}.vty").exists()]
        dead = [d for d in wanted if (p := box.process(d)) is not None and p.poll() is not None]
        if dead:
            return Readiness(ready=False, waiting_for=f"{box.node.name}: {dead[0]} ended by itself")
        if silent:
            return Readiness(ready=False, waiting_for=f"{box.node.name}: {silent[0]} to listen")
        if not self.configured(box):
            box.run(["vtysh", "-b"])
            (box.home / "run" / "configured").touch()
        age_seconds = time.time() - (box.home / "run" / "configured").stat().st_mtime
        why = lack(box, daemons.asked, configs.get("frr.conf", b"").decode(errors="replace"), age_seconds)
        return Readiness(not why, f"{box.node.name}: {why}" if why else "")

    def reload(self, box: Box, before: Configs, after: Configs) -> None:
        """FRR's own frr-reload: only the difference is applied, sessions stay up."""
        super().reload(box, before, after)
        if before.get("frr.conf") == after.get("frr.conf") and before.get("daemons") == after.get("daemons"):
            return
        if daemons_of(before) != daemons_of(after):
            raise Unsupported(
                f"{box.node.name}: the change gives the node other FRR daemons or options, which needs a restart",
                "make the daemons equal before and after",
            )
        (box.home / "frr" / "frr.conf").write_bytes(after.get("frr.conf", b""))
        box.run([_reload_program(), "--reload", "--stdout", "/etc/frr/frr.conf"])
        difference = box.run([_reload_program(), "--test", "--stdout", "/etc/frr/frr.conf"])
        if left := still_there(difference, before.get("frr.conf", b""), after.get("frr.conf", b"")):
            raise CommandFailed(box.node.name, ("frr-reload.py", "--test"), 0, f"still there after reload: {left[:5]}")

    def readings(self, box: Box, configs: Configs) -> Sequence[Reading]:
        """The kernel's counters, plus FRR's tables and neighbours."""
        zebra = box.process("zebra")
        if zebra is None or zebra.poll() is not None or not self.configured(box):
            return super().readings(box, configs)
        running = [d for d in daemons_of(configs).asked if (p := box.process(d)) is not None and p.poll() is None]
        return [*super().readings(box, configs), *router_readings(box, running)]


def still_there(difference: str, before: bytes, after: bytes) -> list[str]:
    """Lines that a change took out of frr.conf and that FRR still has, from frr-reload's trial run.

    What it would add is no witness: a daemon does not show a setting that equals its default, and a command
    that it refused made the reload itself fail.
    """
    old, new = ({line.strip() for line in text.decode(errors="replace").splitlines()} for text in (before, after))
    to_delete = difference.partition("Lines To Delete")[2].partition("Lines To Add")[0]
    return [line.strip() for line in to_delete.splitlines() if line.strip() in old - new - {""}]


def _programs() -> Path:
    home = next((p for p in DAEMON_PLACES if (p / "zebra").exists()), None)
    if home is None:
        raise Unsupported("FRR is not installed", "run ./lab setup, which installs it")
    return home


def _reload_program() -> str:
    found = next((p / "frr-reload.py" for p in DAEMON_PLACES if (p / "frr-reload.py").exists()), None)
    if found is None:
        raise Unsupported("frr-reload.py is not installed", "install the package frr-pythontools")
    return str(found)


ROUTER = Router()
