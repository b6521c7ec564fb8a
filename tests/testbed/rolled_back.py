"""The way back of a change, done as production would: its files put in place and its commands run on real daemons."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from testbed.box import NodeBox
from testbed.devices.loadbalancer import ask_master
from testbed.errors import CommandFailed
from testbed.shadow import Shadow

_COUNTED = re.compile(r"counter packets \d+ bytes \d+ ?|\[\d+:\d+\]|^#.*$", re.MULTILINE)
_TABLE = re.compile(r"^\*.*?^COMMIT", re.MULTILINE | re.DOTALL)
_TOLD = {
    "iptables": ("iptables-save",),
    "ip6tables": ("ip6tables-save",),
    "nft": ("nft", "list", "ruleset", "inet"),
    "ipset": ("ipset", "save"),
    "forwarding": ("cat", "/proc/sys/net/ipv4/ip_forward"),
    "routes": ("ip", "route", "show"),
}


def state(shadow: Shadow, nodes: Sequence[str]) -> dict[str, str]:
    """What the nodes' kernels and daemons have in force."""
    found = {}
    for node in nodes:
        box = shadow.boxes[node]
        for name, argv in _TOLD.items():
            told = _plain(box.run(argv))
            tables = [table for table in _TABLE.findall(told) if _holds(table)]
            found[f"{node} {name}"] = "\n".join(tables) if argv[0].endswith("-save") else told
        if "frr.conf" in shadow.configs[node]:
            found[f"{node} frr"] = _plain(box.run(["vtysh", "-c", "show running-config"]))
        if box.process("haproxy") is not None:
            # the file that a worker runs on, by what its timeouts do, is told by no command: its servers are
            found[f"{node} servers"] = (
                ask_master(box, "@1 show servers conn").split("\n", 1)[-1].split("\n\n", maxsplit=1)[0]
            )
            found[f"{node} file"] = box.run(["cat", "/etc/haproxy/haproxy.cfg"])
    return found


def _servers(box: NodeBox) -> list[str]:
    """Every server with the address that the worker has."""
    rows = (line.split() for line in ask_master(box, "@1 show servers state").splitlines())
    return [f"{row[1]}/{row[3]} {row[4]}:{row[18]}" for row in rows if len(row) > 18 and row[0].isdigit()]


def _holds(table: str) -> bool:
    """Whether a table of iptables does anything: one that lets all through is as good as none."""
    return any(line.startswith("-A") or " DROP" in line for line in table.splitlines())


def _plain(text: str) -> str:
    lines = (line.rstrip() for line in _COUNTED.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)


def done(shadow: Shadow, folder: Path) -> None:
    """Do what `rollback.json` says, in its order."""
    for step in json.loads((folder / "rollback.json").read_text())["nodes"]:
        box = shadow.boxes[step["node"]]
        for argv in step["undo"]:
            box.run(argv)
        for file in step["restore"]:
            _put_back(box, file, (folder / "configs" / step["node"] / file).read_bytes())
        for argv in step["reload"]:
            _run(box, argv, folder)


def _put_back(box: NodeBox, file: str, content: bytes) -> None:
    if file == "haproxy.cfg":
        box.put_files({"/etc/haproxy/haproxy.cfg": content})
    elif file == "frr.conf":
        (box.home / "frr" / "frr.conf").write_bytes(content)


def _run(box: NodeBox, argv: Sequence[str], folder: Path) -> None:
    if list(argv) == ["systemctl", "reload", "haproxy"]:
        master = box.process("haproxy")
        assert master is not None
        # what haproxy.service's ExecReload does
        master.send_signal(signal.SIGUSR2)
        time.sleep(1)
        return
    placed = [str(folder / word) if word.startswith(("configs/", "undo/")) else word for word in argv]
    try:
        box.run(placed)
    except CommandFailed as failure:
        raise AssertionError(failure) from failure
