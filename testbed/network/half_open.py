"""TCP connections of a namespace that no program holds: counted, and ended, so that no later window meets them.

A server that answered a SYN in vain keeps trying for a minute; the same client's next SYN is then taken for a stray and
costs a connection 10 ms. May not know what a window is.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from errno import ENOENT, EOPNOTSUPP

from testbed.network.namespace import Namespace

_SOCK_DIAG = 4
_BY_FAMILY, _DESTROY = 20, 21
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_HEAD = struct.Struct("=IHHII")
_ASK = struct.Struct("=BBBxI48s")
"""inet_diag_req_v2: family, protocol, extensions, states, the socket's id (linux/inet_diag.h)."""

_TOLD = struct.Struct("=BBBB48sIIIII")
"""inet_diag_msg: family, state, timer, retransmits, the socket's id, expires, queues, uid, inode."""

_STATES = (1 << 3) | (1 << 4) | (1 << 9) | (1 << 11)
"""SYN_RECV, FIN_WAIT1, LAST_ACK and CLOSING: what waits for an answer of the other side."""

_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_ROOM = 1 << 16


def end_half_open(namespace: Namespace) -> int:
    """End every TCP connection that waits for the other side and has no program; returns how many are left.

    A kernel without CONFIG_INET_DIAG_DESTROY ends none, and they stay until they have given up. Raises OSError when
    the kernel refuses anything else.
    """
    with namespace.inside(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG)) as line:
        for family, identity in list(_held_by_nobody(line)):
            line.send(_message(_DESTROY, _REQUEST | _ACK, family, identity))
            refusal = -int(struct.unpack_from("=i", line.recv(_ROOM), _HEAD.size)[0])
            if refusal == EOPNOTSUPP:
                break
            if refusal not in (0, ENOENT):
                raise OSError(refusal, f"{namespace.name}: ending a half-open connection")
        return sum(1 for _ in _held_by_nobody(line))


def _held_by_nobody(line: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Family and identity of each such socket; without an inode there is no program behind it."""
    for family in _FAMILIES:
        line.send(_message(_BY_FAMILY, _REQUEST | _DUMP, family, bytes(48)))
        more = True
        while more:
            reply, at = line.recv(_ROOM), 0
            while at < len(reply):
                length, kind = _HEAD.unpack_from(reply, at)[:2]
                if kind in (_DONE, _ERROR):
                    more = False
                    break
                told = _TOLD.unpack_from(reply, at + _HEAD.size)
                if told[9] == 0:
                    yield told[0], told[4]
                at += (length + 3) & ~3


def _message(kind: int, flags: int, family: int, identity: bytes) -> bytes:
    body = _ASK.pack(family, socket.IPPROTO_TCP, 0, _STATES, identity)
    return _HEAD.pack(_HEAD.size + len(body), kind, flags, 1, 0) + body
