"""How quickly a large capture becomes flows, and in how much memory: `testbed flows FILE` beside two references.

`nfpcapd` is a flow meter in C over the whole file, `dpkt` a page of Python over its beginning. Each runs as a process
of its own on a file that has been read once before. Against nfpcapd whole processes count, our start (`start_seconds`)
with them; against dpkt, whose own start is left out, ours is left out too.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.bench.result import BenchResult, Reference
from testbed.errors import Unsupported

REPEATS = 3
_DPKT_PACKETS = 100_000
_LEAST_OCTETS, _MOST_OCTETS = 1 << 20, 64 << 30
_FLOWS = "import sys; from testbed.cli import main; sys.argv[0] = 'testbed'; main()"
_TABLES = """
import sys
from pathlib import Path
from replay.meter import read_traffic
traffic = read_traffic([Path(sys.argv[1])])
print(len(traffic.flows), len(traffic.messages), len(traffic.segments), len(traffic.payloads))
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process took from its start to its end, and what it printed."""

    seconds: float
    peak_rss_mib: float
    printed: str


def bench_ingest(octets: int, seed: int, *, packed: bool = False) -> BenchResult:
    """Write a synthetic capture of this size, meter it, and take the file away again.

    With packed, also its gzip, which takes some time to make. Raises Unsupported without nfpcapd or dpkt.
    """
    program = shutil.which("nfpcapd")
    if program is None:
        raise Unsupported("there is no nfpcapd, the reference", "apt-get install nfdump")
    with tempfile.TemporaryDirectory(prefix="ingest-") as name:
        folder = Path(name)
        capture, stored = folder / "capture.pcap", folder / "flows"
        stored.mkdir()
        made = [sys.executable, "-m", "testbed.bench.ingest_capture", str(capture), str(octets), str(seed)]
        packets = int(spent(made, folder).printed)
        _read_once(capture)
        ours, theirs = [], []
        for _ in range(REPEATS):
            ours.append(spent([sys.executable, "-c", _FLOWS, "flows", str(capture), "--json"], folder))
            theirs.append(spent([program, "-r", str(capture), "-w", str(stored)], folder))
        start = statistics.median(
            spent([sys.executable, "-c", _FLOWS, "--version"], folder).seconds for _ in range(REPEATS)
        )
        tables = spent([sys.executable, "-c", _TABLES, str(capture)], folder)
        begun = spent([sys.executable, "-m", "testbed.bench.ingest_dpkt", str(capture), str(_DPKT_PACKETS)], folder)
        told = json.loads(ours[0].printed)
        figures = {
            "octets": float(capture.stat().st_size),
            "packets": float(packets),
            "flows": float(told["flows"]),
            "seconds": statistics.median(one.seconds for one in ours),
            "start_seconds": start,
            "peak_rss_mib": max(one.peak_rss_mib for one in ours),
            "tables_seconds": tables.seconds,
            "tables_peak_rss_mib": tables.peak_rss_mib,
        }
        if packed:
            figures |= _packed(capture, folder)
    if told["packets"] != packets:
        raise RuntimeError(f"{packets} packets were written, {told['packets']} were read: that is no figure")
    figures["packets_per_s"] = packets / figures["seconds"]
    figures["started_packets_per_s"] = packets / max(figures["seconds"] - start, 0.001)
    return BenchResult("ingest", figures, _references(figures, theirs, json.loads(begun.printed)))


def _references(
    figures: Mapping[str, float], theirs: Sequence[Spent], dpkt: Mapping[str, float]
) -> dict[str, Reference]:
    nfpcapd = figures["packets"] / statistics.median(one.seconds for one in theirs)
    slow = dpkt["packets"] / dpkt["seconds"]
    return {
        "dpkt": Reference(slow, "packets/s", figures["started_packets_per_s"] / slow),
        "nfpcapd": Reference(nfpcapd, "packets/s", figures["packets_per_s"] / nfpcapd),
    }


def _packed(capture: Path, folder: Path) -> dict[str, float]:
    packed = folder / "capture.pcap.gz"
    with capture.open("rb") as whole, gzip.open(packed, "wb", compresslevel=1) as file:
        shutil.copyfileobj(whole, file, 1 << 20)
    one = spent([sys.executable, "-c", _FLOWS, "flows", str(packed), "--json"], folder)
    return {"gzip_seconds": one.seconds, "gzip_peak_rss_mib": one.peak_rss_mib}


def spent(argv: Sequence[str], folder: Path) -> Spent:
    """Run a process to its end; raises Unsupported with what it said when it fails."""
    said, failed = folder / "stdout", folder / "stderr"
    begun = time.perf_counter()
    with said.open("wb") as out, failed.open("wb") as errors:
        descriptors = [(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, errors.fileno(), 2)]
        pid = os.posix_spawn(argv[0], list(argv), os.environ, file_actions=descriptors)
        _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        last = failed.read_text(errors="replace").strip().splitlines()[-1:]
        what = f"{Path(argv[0]).name} ended with {os.waitstatus_to_exitcode(status)}: {' '.join(last)}"
        raise Unsupported(what, "")
    return Spent(seconds, usage.ru_maxrss / 1024, said.read_text())


def octets_of(text: str) -> int:
    """A number of octets written like 64M or 1G (powers of 1024); raises ValueError."""
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    octets = int(text[:-1] if factor > 1 else text) * factor
    if not _LEAST_OCTETS <= octets <= _MOST_OCTETS:
        raise ValueError(f"{octets} octets")
    return octets


def _read_once(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
