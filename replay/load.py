"""More load than was captured: copies of flows, each with a source port of its own.

Pure: a flow table and its messages in, the same with copies out. A copy is its flow in all but name, moment and source
port, so classes, tolerances and expectations hold for it as they stand; its `flow_id` is the flow's with `~2`, `~3`, ….
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from replay.schedule import ECHO, TCP, UDP

COPY = "~"
"""Between a flow's id and the number of its copy; the captured flow itself is number 1 and has none."""

FIRST_PORT, LAST_PORT = 1_024, 61_000
"""Where copies find their ports: above the well-known ones, below those that a node's kernel chooses from itself."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The flows and behind them their copies, the messages of both, and copies without a port, with the reason."""

    flows: pd.DataFrame
    messages: pd.DataFrame
    left_out: dict[str, str]
    captured: int

    @property
    def copies(self) -> pd.DataFrame:
        """The copies alone."""
        return self.flows.iloc[self.captured :]


def multiplied(flows: pd.DataFrame, messages: pd.DataFrame, load: float, seed: int = 0) -> Loaded:
    """As many flows as `load` times the captured ones: whole copies of all, one more of a share chosen by `seed`.

    Copies begin a little after their flow, spread evenly over the mean time between flows, so that more load is not
    more burst. A copy's port is free at its address: no flow and no other copy uses it, and nobody is known to listen
    there. What has no ports has no copies; an echo's identifier is both of its ports. Raises ValueError when `load` is
    below 1.
    """
    if load < 1:
        raise ValueError(f"load must be at least 1, found {load}")
    whole, share = int(load), load - int(load)
    ports = _Ports(flows, seed)
    span_ns = int(flows["start_ns"].max() - flows["start_ns"].min()) if len(flows) else 0
    gap_ns = span_ns / max(1, len(flows))
    copies: list[dict[str, object]] = []
    left_out: dict[str, str] = {}
    for flow in flows[flows["protocol"].isin((TCP, UDP, *ECHO))].to_dict("records"):
        flow_id = str(flow["flow_id"])
        count = whole + (_chance(seed, flow_id) < share)
        for number in range(2, count + 1):
            name = f"{flow_id}{COPY}{number}"
            port = ports.free(int(flow["protocol"]), str(flow["source_address"]))
            if port is None:
                left_out[name] = f"no free source port at {flow['source_address']}"
                continue
            shift_ns = int(gap_ns * (number - 1) / count)
            moved = {"start_ns": int(flow["start_ns"]) + shift_ns, "end_ns": int(flow["end_ns"]) + shift_ns}
            if flow["protocol"] in ECHO:
                if not flow["source_port"]:
                    continue
                moved["destination_port"] = port
            copies.append({**{str(k): v for k, v in flow.items()}, "flow_id": name, "source_port": port, **moved})
    if not copies:
        return Loaded(flows, messages, left_out, len(flows))
    added = pd.DataFrame(copies, columns=flows.columns).astype(flows.dtypes.to_dict())
    return Loaded(
        pd.concat([flows, added], ignore_index=True),
        pd.concat([messages, *_said(messages, added)], ignore_index=True),
        left_out,
        len(flows),
    )


def original(flow_id: str) -> str:
    """The captured flow of which this is a copy, or itself."""
    return flow_id.partition(COPY)[0]


def _said(messages: pd.DataFrame, copies: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The messages of the copies, one table for each number of copy."""
    names = copies["flow_id"].astype(str)
    numbers = names.str.partition(COPY)[2]
    for number in sorted(numbers.unique(), key=int):
        wanted = set(names[numbers == number].map(original))
        said = messages[messages["flow_id"].isin(wanted)]
        yield said.assign(flow_id=said["flow_id"].astype(str) + COPY + number)


class _Ports:
    """Ports that nobody uses, address by address."""

    def __init__(self, flows: pd.DataFrame, seed: int) -> None:
        self._seed = seed
        self._served = {int(port) for port in flows["destination_port"].unique()}
        self._used: dict[tuple[int, str], set[int]] = {}
        for protocol, address, port in flows[["protocol", "source_address", "source_port"]].to_numpy().tolist():
            self._used.setdefault((int(protocol), str(address)), set()).add(int(port))
        self._next: dict[tuple[int, str], int] = {}

    def free(self, protocol: int, address: str) -> int | None:
        """The next free port of an address, from then on used; None when there is none left."""
        key = (protocol, address)
        room = LAST_PORT - FIRST_PORT + 1
        used = self._used.setdefault(key, set())
        at = self._next.get(key, int(_chance(self._seed, f"{protocol} {address}") * room))
        for step in range(room):
            port = FIRST_PORT + (at + step) % room
            if port not in used and port not in self._served:
                used.add(port)
                self._next[key] = at + step + 1
                return port
        return None


def _chance(seed: int, name: str) -> float:
    """A number in [0, 1) that depends on seed and name alone."""
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / (1 << 64)
