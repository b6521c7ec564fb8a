"""Well-known images and the programs they start, and how those start in a node, which has one account only.

Pure: words in, words out. This file may not know what else a node has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

PROGRAMS: Mapping[str, str] = {
    "caddy": "caddy", "dnsmasq": "dnsmasq", "iperf": "iperf", "iperf3": "iperf3", "memcached": "memcached",
    "nginx": "nginx", "postgres": "postgres", "redis": "redis-server", "unbound": "unbound", "valkey": "valkey-server",
}  # fmt: skip
"""Of well-known images, the program that they start."""


def as_one_account(argv: Sequence[str]) -> tuple[str, ...]:
    """The words that start a server where every account is the same one, which nobody can leave."""
    match PurePosixPath(argv[0]).name:
        case "nginx" if not any("master_process" in word for word in argv):
            words = list(argv)
            if "-g" in words[:-1]:
                words[words.index("-g") + 1] += " master_process off;"
            else:
                words += ["-g", "daemon off; master_process off;"]
            return tuple(words)
        case "dnsmasq" if not {"--no-daemon", "-d"} & set(argv):
            return (*(word for word in argv if word not in {"--keep-in-foreground", "-k"}), "--no-daemon")
        case "postgres":
            return ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--", *argv)
        case _:
            return tuple(argv)
