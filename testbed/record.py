"""Record a capture inside a lab: real servers and clients run in the shadow, taps at the clients write pcap.

It knows no lab by name: what runs is said by the lab's own traffic/record.yaml.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import scapy.layers.inet6  # noqa: F401 - teaches scapy's reader IPv4, IPv6, TCP and UDP
from scapy.packet import Packet
from scapy.utils import PcapReader, PcapWriter

from replay.tap import Tap, Taps
from testbed.errors import InvalidInput
from testbed.network.link import kernel_name
from testbed.shadow import Shadow
from topologies.located import InvalidLab, Strict, read_yaml

WHOLE_FRAMES = 65_535
ETHERNET = 1
RING_BLOCK_OCTETS = 1 << 20
READY_SECONDS = 60.0
LAST_WORD_SECONDS = 4.0


class Server(Strict):
    """A real server program, in the foreground, on some nodes."""

    nodes: tuple[str, ...]
    run: tuple[str, ...]


class Sessions(Strict):
    """A client program started `count` times at random moments; `each` gives words to choose from."""

    name: str
    run: tuple[str, ...]
    count: int
    node: str | None = None
    nodes: tuple[str, ...] = ()
    each: Mapping[str, tuple[str, ...]] = {}
    between: tuple[float, float] | None = None
    hold: float = 0.0


class Recording(Strict):
    """traffic/record.yaml.

    `merge` names each capture to write and the taps it is made of; `leave_out_ports` are those of
    the halves a proxy makes by itself, which a replay's own proxy makes again.
    """

    seconds: float
    seed: int
    taps: tuple[str, ...]
    servers: tuple[Server, ...]
    sessions: tuple[Sessions, ...]
    prepare: tuple[tuple[str, ...], ...] = ()
    blobs: Mapping[str, int] = {}
    files: Mapping[str, str] = {}
    leave_out_ports: tuple[int, ...] = ()
    merge: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class Start:
    """One client to be started at a moment; pure plan."""

    at_s: float
    node: str
    argv: tuple[str, ...]
    hold_s: float


def read_recording(path: Path) -> Recording:
    """The recording file; raises InvalidInput with line and column."""
    try:
        return read_yaml(path, Recording)
    except InvalidLab as problem:
        raise InvalidInput.of(problem) from None


def starts(recording: Recording, words: Mapping[str, str]) -> list[Start]:
    """Every client start in order of time; the same seed gives the same plan."""
    chance = random.Random(recording.seed)
    plan = []
    for sessions in recording.sessions:
        first, last = sessions.between or (0.5, recording.seconds - 3.0)
        nodes = sessions.nodes or ((sessions.node,) if sessions.node else ())
        for n in range(sessions.count):
            chosen = {name: chance.choice(values) for name, values in sessions.each.items()}
            argv = tuple(_filled(word, {**words, **chosen, "n": str(100 + n)}) for word in sessions.run)
            plan.append(Start(chance.uniform(first, last), nodes[n % len(nodes)], argv, sessions.hold))
    return sorted(plan, key=lambda start: start.at_s)


def record(shadow: Shadow, recording: Recording, folder: Path, tell: Callable[[str], None]) -> Mapping[str, Path]:
    """Run servers and clients, write `<node>.pcap` for every tap into `folder`; raises CommandFailed, NotReady."""
    _frames_of_real_size(shadow)
    with TemporaryDirectory(prefix="testbed-record-") as work, ExitStack() as world:
        words = {"work": work, "long": "spring sale on everything " * 9}
        plan = starts(recording, words)
        _prepare(shadow, recording, Path(work), words)
        world.enter_context(_servers(shadow, recording, words))
        shadow.wait_ready(READY_SECONDS, tell)
        taps = [Tap(n, shadow.namespaces()[n], None, WHOLE_FRAMES) for n in recording.taps]
        listening = world.enter_context(Taps(taps, 64, RING_BLOCK_OCTETS))
        listening.start_window()
        tell(f"{len(plan)} clients over {recording.seconds:.0f} s")
        _run_clients(shadow, plan, recording.seconds)
        taken = {node: Path(work) / f"{node}.pcap" for node in recording.taps}
        listening.end_window(taken)
        merges = recording.merge or {node: (node,) for node in recording.taps}
        written = {name: folder / f"{name}.pcap" for name in merges}
        for name, nodes in merges.items():
            merge_captures([taken[node] for node in nodes], written[name], frozenset(recording.leave_out_ports))
    return written


def merge_captures(sources: Sequence[Path], target: Path, leave_out_ports: frozenset[int]) -> None:
    """Write the frames of several captures in order of time, without those of the given TCP or UDP ports."""
    frames = [frame for source in sources for frame in PcapReader(str(source)) if not _ports(frame) & leave_out_ports]
    with PcapWriter(str(target), linktype=ETHERNET, nano=True, sync=False) as writer:
        for frame in sorted(frames, key=lambda f: f.time):
            writer.write(frame)


def _ports(frame: Packet) -> set[int]:
    layer = frame.getlayer("TCP") or frame.getlayer("UDP")
    return set() if layer is None else {int(layer.sport), int(layer.dport)}


def _prepare(shadow: Shadow, recording: Recording, work: Path, words: Mapping[str, str]) -> None:
    chance = random.Random(recording.seed)
    work.chmod(0o755)
    for name, octets in recording.blobs.items():
        (work / name).write_bytes(chance.randbytes(octets // 2).hex().encode())
    for argv in recording.prepare:
        subprocess.run([_filled(word, words) for word in argv], cwd=work, check=True, capture_output=True)
    for node in shadow.boxes:
        for name, text in recording.files.items():
            if "{node}" in text:
                (work / f"{node}-{name}").write_text(_filled(text, {**words, "node": node}))
            else:
                (work / name).write_text(_filled(text, words))


@contextmanager
def _servers(shadow: Shadow, recording: Recording, words: Mapping[str, str]) -> Iterator[None]:
    for number, server in enumerate(recording.servers):
        for node in server.nodes:
            own = {f"{words['work']}/{name}": f"{words['work']}/{node}-{name}" for name in recording.files}
            argv = [_filled(word, words) for word in server.run]
            argv = [own[w] if w in own and Path(own[w]).exists() else w for w in argv]
            shadow.boxes[node].spawn(f"server{number}", argv)
    yield


def _run_clients(shadow: Shadow, plan: Sequence[Start], seconds: float) -> None:
    started, running, held = time.monotonic(), list[subprocess.Popen[bytes]](), []
    for start in plan:
        time.sleep(max(0.0, started + start.at_s - time.monotonic()))
        namespace = shadow.boxes[start.node].namespace
        client = subprocess.Popen(
            namespace.argv(start.argv),
            stdin=subprocess.PIPE if start.hold_s else subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(namespace.net_fd, namespace.mount_fd),
        )
        running.append(client)
        if start.hold_s:
            held.append((started + start.at_s + start.hold_s, client))
    for until, client in held:
        time.sleep(max(0.0, until - time.monotonic()))
        if client.stdin:
            client.stdin.close()
    time.sleep(max(0.0, started + seconds - time.monotonic()))
    for client in running:
        try:
            client.wait(LAST_WORD_SECONDS)
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()


def _frames_of_real_size(shadow: Shadow) -> None:
    """No segmentation offload: frames on the wire as a production tap would see them."""
    for box in shadow.boxes.values():
        for interface in box.node.interfaces:
            box.run(["ip", "link", "set", "dev", kernel_name(interface.name), "gso_max_segs", "1"])


def _filled(text: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        text = text.replace("{" + name + "}", value)
    return text
