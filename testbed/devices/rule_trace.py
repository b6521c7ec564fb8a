"""The kernel's own account of one flow inside one node: every table, chain and rule its packets met, and the verdict.

It knows no node kind.  The flow is marked in a table of our own that goes with the trace, so that none
of the node's rules is touched; iptables rules are told where iptables is nftables' (Debian, Ubuntu, Fedora).
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from testbed.devices.base import Box, Configs
from testbed.devices.nft import kernel_rules
from testbed.devices.nft_text import written_rules
from testbed.devices.packet_filter import FAMILIES, parse_rules
from testbed.errors import CommandFailed, NotReady, RevertFailed, Unsupported

TABLE = "shadow_trace"
PRIORITY = -310
"""Before raw (-300), so that every rule a packet meets is told."""

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
WITH_PORTS = frozenset({6, 17, 132})
START_SECONDS = 5.0
_STEP = re.compile(
    r"^trace id (?P<id>[0-9a-f]{1,8}) (?P<table>\S+ \S+) (?P<chain>\S+) "
    r"(?:(?P<unknown>unknown )?rule (?P<text>.*?)(?: # handle |\bhandle )(?P<handle>\d{1,20}) "
    r"\(verdict (?P<verdict>[^)]*)\)|(?P<policy>policy|verdict) (?P<end>\w+))\s*$"
)
_FILES = {"ip": "iptables.rules", "ip6": "ip6tables.rules"}


@dataclass(frozen=True, slots=True)
class FiveTuple:
    """One flow; its answers are traced too.  Ports are 0 where the protocol has none."""

    protocol: int
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int = 0
    destination_port: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What one packet met: a rule (place in its chain from 1) or a chain's end (place 0).

    `file` and `line` say where the rule stands in the node's configuration, if it does.
    """

    packet: str
    table: str
    chain: str
    place: int
    text: str
    verdict: str
    file: str = ""
    line: int | None = None


@dataclass(slots=True)
class Trace:
    """A trace that runs; `steps` may be asked at any time."""

    box: Box
    configs: Configs
    output: Path
    places: Mapping[tuple[str, str, int], int] = field(default_factory=dict)

    def steps(self) -> list[Step]:
        """Every step so far, in the order in which the kernel told them."""
        return read_trace(self.output.read_text(errors="replace"), self.places, self.configs)


@contextmanager
def traced(box: Box, configs: Configs, flows: FiveTuple | Sequence[FiveTuple]) -> Iterator[Trace]:
    """Trace a flow, or several, as long as the block runs; raises RevertFailed when our table could not be removed.

    `configs` are the files on which the node runs, for the lines.  Raises Unsupported where the kernel
    cannot trace.
    """
    if any(f in configs for f in FAMILIES) and "nf_tables" not in box.run(["iptables", "--version"]):
        raise Unsupported("this machine's iptables is the legacy one, which tells no trace", "install iptables-nft")
    output = box.home / "run" / f"{TABLE}.log"
    output.unlink(missing_ok=True)
    output.touch()
    name = f"trace{time.monotonic_ns()}"
    try:
        marks = marking(flows) if isinstance(flows, FiveTuple) else marking(*flows)
        box.run(["nft", "-f", "-"], stdin=marks.encode())
    except CommandFailed as failure:
        raise Unsupported(
            f"the kernel cannot trace packets ({failure.stderr.strip()})", "use ./lab test-kernel"
        ) from None
    try:
        rules = kernel_rules(box)
        places = {(listed.rule.table, listed.rule.chain, listed.handle): listed.rule.index for listed in rules}
        box.spawn(name, ["nft", "-a", "monitor", "trace"], output)
        monitor = box.process(name)
        _listening(box, monitor)
        yield Trace(box, configs, output, places)
    finally:
        box.discard(name)
        _removed(box)


def _listening(box: Box, monitor: subprocess.Popen[bytes] | None) -> None:
    """Wait until the monitor has joined the kernel's group for traces, which its netlink sockets show."""
    deadline = time.monotonic() + START_SECONDS
    while monitor is not None and monitor.poll() is None:
        rows = (line.split() for line in box.run(["cat", "/proc/net/netlink"]).splitlines()[1:])
        # columns: sk Eth Pid Groups; protocol 12 is netfilter
        if any(row[1] == "12" and int(row[3], 16) for row in rows):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    raise NotReady(
        f"{box.node.name}: nft to listen for traces", "it ended" if monitor and monitor.poll() else "silence"
    )


def _removed(box: Box) -> None:
    try:
        box.run(["nft", "delete", "table", "inet", TABLE])
    except CommandFailed as failure:
        if TABLE in box.run(["nft", "list", "tables"]):
            raise RevertFailed(f"the trace on {box.node.name}", failure.stderr) from failure


def marking(*flows: FiveTuple) -> str:
    """An nft table that turns tracing on for flows and their answers, wherever they enter or begin."""
    rules = [rule for flow in flows for rule in _marks(flow)]
    chains = [
        f"chain {hook} {{\ntype filter hook {hook} priority {PRIORITY}\n{chr(10).join(rules)}\n}}"
        for hook in ("prerouting", "output")
    ]
    return f"table inet {TABLE} {{\n{chr(10).join(chains)}\n}}\n"


def _marks(flow: FiveTuple) -> Iterator[str]:
    family = "ip6" if flow.source.version == 6 else "ip"
    protocol = PROTOCOLS.get(flow.protocol, str(flow.protocol))
    for one, other, near, far in (
        (flow.source, flow.destination, flow.source_port, flow.destination_port),
        (flow.destination, flow.source, flow.destination_port, flow.source_port),
    ):
        words = [f"{family} saddr {one} {family} daddr {other} meta l4proto {protocol}"]
        if flow.protocol in WITH_PORTS:
            words += [f"th {side} {port}" for side, port in (("sport", near), ("dport", far)) if port]
        yield " ".join([*words, "meta nftrace set 1"])


def read_trace(text: str, places: Mapping[tuple[str, str, int], int], configs: Configs) -> list[Step]:
    """The steps that `nft -a monitor trace` told; `places` gives a rule's place by table, chain and handle."""
    lines = _lines(configs)
    steps = []
    for raw in text.splitlines():
        found = _STEP.match(raw)
        if found is None:
            continue
        table, chain = found["table"].replace(" ", "/"), found["chain"]
        if table == f"inet/{TABLE}":
            continue
        place = places.get((table, chain, int(found["handle"])), 0) if found["handle"] else 0
        verdict = found["verdict"] or found["end"]
        said = (found["text"] or f"{found['policy']} {found['end']}").strip()
        file, line, own = lines.get((table, chain, place), ("", None, said))
        steps.append(Step(found["id"], table, chain, place, own, verdict, file, line))
    return steps


def _lines(configs: Configs) -> dict[tuple[str, str, int], tuple[str, int | None, str]]:
    """(file, line, text) of every rule and policy by its table, chain and place."""
    texts = {name: content.decode(errors="replace") for name, content in configs.items()}
    found: dict[tuple[str, str, int], tuple[str, int | None, str]] = {}
    for written in written_rules(texts):
        rule = written.rule
        found[rule.table, rule.chain, rule.index] = written.file, rule.line, rule.text
    for family, file in _FILES.items():
        for rule in parse_rules(texts.get(file, "")):
            found[f"{family}/{rule.table}", rule.chain, rule.index] = file, rule.line, rule.text
    return found


def culprit(steps: Sequence[Step]) -> Step | None:
    """The step that dropped a packet, if one did."""
    return next((step for step in steps if step.verdict.lower().startswith("drop")), None)
