"""A router: FRR's own daemons on production's integrated frr.conf, changed live by FRR's own reload.

It knows no other kind.  Daemons run in the foreground; readiness is protocol state, never a sleep.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from testbed.devices.base import Box, Complaint, Configs, Readiness, Reading
from testbed.devices.linux import ALL_KINDS, FORWARDING, SHADOW_SYSCTLS, LinuxNode
from testbed.errors import CommandFailed, Unsupported

DAEMON_PLACES = (Path("/usr/lib/frr"), Path("/usr/libexec/frr"))
ALWAYS = ("zebra", "mgmtd", "staticd")
"""Started whatever the `daemons` file says, zebra first; mgmtd where this FRR has it."""

OPTIONAL = ("bgpd", "ospfd", "ospf6d", "isisd", "bfdd", "ripd", "ripngd", "pimd", "pbrd", "vrrpd")
DESIGNATED = 2
NOT_A_DIFFERENCE = ("Lines To", "===", "frr version", "frr defaults", "hostname", "no hostname", "service integrated")
"""What frr-reload says of a configuration that is in force: its own headings, and lines that are no setting."""

EXTERNAL_MSECS = 1200
"""FRR turns external OSPF routes into its own a second after it computed the tree, and tells nobody that it will."""

_AT_LINE = re.compile(r"line (\d+)")


def asked_daemons(text: str) -> tuple[str, ...]:
    """The daemons a Debian `daemons` file asks for."""
    asked = {m[1] for line in text.splitlines() if (m := re.match(r"\s*(\w+)=(?:yes|true|1)\b", line))}
    return tuple(d for d in OPTIONAL if d in asked)


def daemons_of(configs: Configs) -> tuple[str, ...]:
    """What to start: the `daemons` file, or where the lab has none, what frr.conf speaks of."""
    if "daemons" in configs:
        return asked_daemons(configs["daemons"].decode(errors="replace"))
    text = configs.get("frr.conf", b"").decode(errors="replace")
    spoken = {
        "router bgp": "bgpd",
        "router ospf6": "ospf6d",
        "router isis": "isisd",
        "bfd": "bfdd",
        "router rip": "ripd",
    }
    found = {daemon for words, daemon in spoken.items() if re.search(rf"^{words}\b", text, re.M)}
    if re.search(r"^router ospf\s*$", text, re.M):
        found.add("ospfd")
    return tuple(d for d in OPTIONAL if d in found)


def passive_interfaces(text: str) -> frozenset[str]:
    """Interfaces that frr.conf makes passive for OSPFv3, which FRR's JSON does not tell."""
    found, interface = set(), ""
    for line in text.splitlines():
        if line.startswith("interface "):
            interface = line.split()[1]
        elif line.strip() == "ipv6 ospf6 passive":
            found.add(interface)
    return frozenset(found)


class Router(LinuxNode):
    """FRR in a node of its own: zebra, staticd and the daemons its files ask for."""

    reads = ALL_KINDS | {"frr.conf", "daemons"}
    directories: Mapping[str, str] = {
        "frr": "/etc/frr",
        "frr-log": "/var/log/frr",
        "frr-state": "/var/lib/frr",
        "frr-crash": "/var/tmp",  # each daemon makes a directory frr/DAEMON.PID in it, which nobody removes
    }
    defaults: Mapping[str, str] = {**SHADOW_SYSCTLS, **FORWARDING}

    def check(self, box: Box, configs: Configs) -> Sequence[Complaint]:
        """`vtysh -C` on the file, beside the packet filter's check."""
        complaints = list(super().check(box, configs))
        if "frr.conf" in configs:
            candidate = box.home / "frr" / "candidate.conf"
            candidate.parent.mkdir(exist_ok=True)
            candidate.write_bytes(configs["frr.conf"])
            try:
                box.run(["vtysh", "-C", "-f", "/etc/frr/candidate.conf"])
            except CommandFailed as failure:
                place = _AT_LINE.search(failure.stderr)
                said = " ".join(failure.stderr.split())
                complaints.append(Complaint("frr.conf", int(place[1]) if place else None, said))
            finally:
                candidate.unlink()
        return complaints

    def start(self, box: Box, configs: Configs) -> None:
        """Kernel settings and zebra; `ready` starts the others once zebra answers.

        A daemon that finds no zebra tries again only ten seconds later.
        """
        super().start(box, configs)
        etc = box.home / "frr"
        etc.mkdir(exist_ok=True)
        (box.home / "run" / "frr").mkdir(exist_ok=True)
        (etc / "vtysh.conf").write_text("service integrated-vtysh-config\n")
        (etc / "frr.conf").write_bytes(configs.get("frr.conf", b""))
        box.spawn("zebra", [str(_programs() / "zebra"), "-A", "127.0.0.1", "-s", "90000000"])

    def configured(self, box: Box) -> bool:
        """Whether the daemons took their configuration; asked again until they listen."""
        return (box.home / "run" / "configured").exists()

    def ready(self, box: Box, configs: Configs) -> Readiness:
        """Daemons listening, configuration loaded, neighbours adjacent."""
        if not (box.home / "run" / "frr" / "zserv.api").exists():
            return Readiness(ready=False, waiting_for=f"{box.node.name}: zebra to listen")
        wanted = [d for d in (*ALWAYS, *daemons_of(configs)) if (_programs() / d).exists()]
        for daemon in wanted:
            if box.process(daemon) is None:
                box.spawn(daemon, [str(_programs() / daemon), "-A", "127.0.0.1"])
        silent = [d for d in wanted if not (box.home / "run" / "frr" / f"{d}.vty").exists()]
        dead = [d for d in wanted if (p := box.process(d)) is not None and p.poll() is not None]
        if dead:
            return Readiness(ready=False, waiting_for=f"{box.node.name}: {dead[0]} ended by itself")
        if silent:
            return Readiness(ready=False, waiting_for=f"{box.node.name}: {silent[0]} to listen")
        if not self.configured(box):
            box.run(["vtysh", "-b"])
            (box.home / "run" / "configured").touch()
        running = daemons_of(configs)
        age = time.time() - (box.home / "run" / "configured").stat().st_mtime
        silent_ports = passive_interfaces(configs.get("frr.conf", b"").decode(errors="replace"))
        for daemon, version in (("ospfd", ""), ("ospf6d", "6")):
            if daemon in running and (lack := _ospf_lack(box, version, silent_ports, age)):
                return Readiness(ready=False, waiting_for=f"{box.node.name}: {lack}")
        if "bgpd" in running and (lack := _bgp_lack(box)):
            return Readiness(ready=False, waiting_for=f"{box.node.name}: {lack}")
        return Readiness(ready=True)

    def reload(self, box: Box, before: Configs, after: Configs) -> None:
        """FRR's own frr-reload: only the difference is applied, sessions stay up."""
        super().reload(box, before, after)
        if before.get("frr.conf") == after.get("frr.conf") and before.get("daemons") == after.get("daemons"):
            return
        if daemons_of(before) != daemons_of(after):
            raise Unsupported(
                f"{box.node.name}: the change starts or stops an FRR daemon, which needs a restart",
                "make the set of daemons equal before and after",
            )
        (box.home / "frr" / "frr.conf").write_bytes(after.get("frr.conf", b""))
        box.run([_reload_program(), "--reload", "--stdout", "/etc/frr/frr.conf"])
        difference = box.run([_reload_program(), "--test", "--stdout", "/etc/frr/frr.conf"])
        left = [line for line in difference.splitlines() if line and not line.startswith(NOT_A_DIFFERENCE)]
        if left:
            raise CommandFailed(
                box.node.name, ("frr-reload.py", "--test"), 0, f"still differs after reload: {left[:5]}"
            )

    def readings(self, box: Box, configs: Configs) -> Sequence[Reading]:
        """The kernel's counters, plus every OSPF neighbour's state."""
        readings = list(super().readings(box, configs))
        for version in ("", "6"):
            if box.process(f"ospf{version}d") is None:
                continue
            for interface, (heard, full, _dead_seconds) in _ospf_interfaces(box, version).items():
                name, state = f"ospf{version or 'v2'} {interface}", f"{full} of {heard} neighbours full"
                readings.append(Reading("neighbour", name, "state", 1.0, cumulative=False, state=state))
        return readings


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


def _vtysh(box: Box, *commands: str) -> list[dict[str, Any]]:
    """The JSON answers of several `show` commands, asked in one go."""
    text = box.run(["vtysh", *(word for command in commands for word in ("-c", command))]).strip()
    answers, decoder = [], json.JSONDecoder()
    while text:
        try:
            answer, end = decoder.raw_decode(text)
        except json.JSONDecodeError:
            raise CommandFailed(box.node.name, ("vtysh", *commands), 0, f"found {text[:80]!r}, expected JSON") from None
        answers.append(answer if isinstance(answer, dict) else {})
        text = text[end:].lstrip()
    return answers + [{}] * (len(commands) - len(answers))


class Adjacency(NamedTuple):
    """Neighbours that an OSPF interface hears, those it is full with, and after what silence there are none."""

    heard: int
    full: int
    dead_seconds: float


def _ospf_interfaces(box: Box, version: str) -> dict[str, Adjacency]:
    """Every active OSPF interface with its neighbours."""
    found: dict[str, Adjacency] = {}
    if version == "":
        (answer,) = _vtysh(box, "show ip ospf interface json")
        for name, facts in answer.get("interfaces", {}).items():
            if not facts.get("timerPassiveIface") and facts.get("ospfEnabled", True) and name != "lo":
                heard, full = int(facts.get("nbrCount", 0)), int(facts.get("nbrAdjacentCount", 0))
                found[name] = Adjacency(heard, full, float(facts.get("timerDeadSecs", 40)))
        return found
    interfaces, neighbours = _vtysh(box, "show ipv6 ospf6 interface json", "show ipv6 ospf6 neighbor json")
    listed = neighbours.get("neighbors", [])
    for name, facts in interfaces.items():
        if isinstance(facts, dict) and facts.get("attachedToArea") and name != "lo":
            own = [n for n in listed if n.get("interfaceName") == name]
            full = sum(n.get("state") == "Full" for n in own)
            found[name] = Adjacency(len(own), full, float(facts.get("timerIntervalsConfigDead", 40)))
    return found


def _ospf_lack(box: Box, version: str, passive: frozenset[str], configured_seconds: float) -> str:
    interfaces = {n: seen for n, seen in _ospf_interfaces(box, version).items() if n not in passive}
    label = f"OSPF{'v3' if version else ''}"
    if not interfaces:
        return f"{label} has no active interface yet"
    for name, (heard, full, dead_seconds) in sorted(interfaces.items()):
        if heard == 0 and configured_seconds < dead_seconds:
            return f"{label} neighbour on {name} (none heard yet, of one there may be)"
        # on a shared network routers are full with the designated two only
        if full < min(heard, DESIGNATED):
            return f"{label} neighbour on {name} ({full} of {heard} full)"
    if version == "":
        (answer,) = _vtysh(box, "show ip ospf json")
        if "spfTimerDueInMsecs" in answer or answer.get("spfLastExecutedMsecs", EXTERNAL_MSECS) < EXTERNAL_MSECS:
            return f"{label} to compute its routes"
    return ""


def _bgp_lack(box: Box) -> str:
    (summary,) = _vtysh(box, "show bgp summary json")
    for family in summary.values():
        peers = family.get("peers", {}) if isinstance(family, dict) else {}
        for peer, facts in peers.items():
            if facts.get("state") != "Established":
                return f"BGP peer {peer} ({facts.get('state', 'unknown')})"
    return ""


ROUTER = Router()
