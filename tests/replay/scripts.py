"""Scripts and schedules for tests of the player."""

from replay.schedule import TCP, UDP, FlowScript, Message, Schedule

MS = 1_000_000
FORWARD, REVERSE = 0, 1

STATEFUL = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -p tcp -m tcp --dport 9999 -j DROP
-A FORWARD -p tcp -m tcp --dport 9998 -j REJECT --reject-with icmp-admin-prohibited
-A FORWARD -p tcp -m conntrack --ctstate NEW --syn -j ACCEPT
-A FORWARD -p udp -m conntrack --ctstate NEW -j ACCEPT
COMMIT
"""
NAT = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 203.0.113.2/32 -p tcp -m tcp --dport 6379 -j DNAT --to-destination 10.0.0.2:6380
-A PREROUTING -d 203.0.113.2/32 -p tcp -m tcp --dport 2222 -j DNAT --to-destination 10.0.0.2:22
-A PREROUTING -d 203.0.113.2/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.0.0.2:53
-A POSTROUTING -o out0 -j MASQUERADE
COMMIT
"""


def script(
    flow_id: str,
    target: tuple[str, int],
    *said: tuple[int, int, bytes],
    protocol: int = TCP,
    source: tuple[str, int] = ("198.51.100.7", 40_000),
    start_ms: int = 0,
    close: str = "fin_forward",
    outcome: str = "accepted",
    application: str = "",
    tagged: bool = False,
) -> FlowScript:
    messages = tuple(Message(direction, gap_ms * MS, payload) for direction, gap_ms, payload in said)
    return FlowScript(
        flow_id,
        protocol,
        "client",
        source,
        target,
        start_ms * MS,
        messages,
        "none" if protocol == UDP else close,
        outcome,
        application,
        "normal",
        tagged,
    )


def plan(*scripts: FlowScript, duration_ms: int = 100) -> Schedule:
    return Schedule(tuple(sorted(scripts, key=lambda s: s.start_ns)), 1.0, duration_ms * MS)


def request(flow_id: str, sequence: int, path: str = "/") -> bytes:
    tag = f"{flow_id}-{sequence}"
    return f"GET {path} HTTP/1.1\r\nX-Shadow-Flow: {tag}\r\nHost: shop.example\r\n\r\n".encode()


def response(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
