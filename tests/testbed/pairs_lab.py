"""The quick lab for an experiment in pairs: HTTP through its load balancer, and ESP that only packets can replay."""

from __future__ import annotations

from pathlib import Path

from tests.replay.packet_captures import ESP, TCP, capture, esp, ip4, tcp
from tests.testbed.quick_lab import HAPROXY, RULES, quick_lab

CLIENT, SERVICE, SERVER = "198.51.100.200", "10.1.0.10", "10.1.0.11"
HTTP_FLOWS = 6
LETS = (
    "-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT\n-A FORWARD -p esp -j ACCEPT\n"
    "-A FORWARD -p tcp -m tcp --dport 5201 -j ACCEPT\n"
)
BLAMED = "-A FORWARD -p udp -m udp --dport 5001 -j REJECT --reject-with icmp-port-unreachable"
STUCK = """\
commands:
  - node: fw1
    run: [ip, link, add, held, type, bridge]
    rollback: [sh, -c, "ip link del held && echo >> /run/undone && test $(wc -l < /run/undone) -lt 4"]
"""
"""What is undone three times, and the fourth time not."""
ASKED = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n" + b"x" * 400
SYN, ACK, PUSH, FIN = 2, 16, 8, 1


def pairs_lab(folder: Path) -> Path:
    """The lab, with a change that rejects its datagrams, remarks that only reload, and one that cannot be undone."""
    quick_lab(folder)
    for name, text in {
        "configs/fw1/iptables.rules": RULES.format(more=LETS),
        "changes/reject/configs/fw1/iptables.rules": RULES.format(more=f"{LETS}{BLAMED}\n"),
        "changes/remark/configs/fw1/iptables.rules": f"# reviewed\n{RULES.format(more=LETS)}",
        "changes/remark/configs/lb1/haproxy.cfg": f"# reviewed\n{HAPROXY}",
        "changes/stuck/change.yaml": STUCK,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    packets = [packet for n in range(HTTP_FLOWS) for packet in _asked(n)]
    packets += [(30_000 * n, ip4(CLIENT, SERVER, ESP, esp(n))) for n in range(20)]
    packets += [(30_000 * n + 900, ip4(SERVER, CLIENT, ESP, esp(500 + n))) for n in range(20)]
    capture(folder / "traffic" / "web.pcap", sorted(packets))
    return folder


def _asked(n: int) -> list[tuple[int, bytes]]:
    """One request and its answer, a packet a millisecond."""
    there, back = (33_000 + n, 80), (80, 33_000 + n)
    asked, answered = 1 + len(ASKED), 1 + len(ANSWERED)
    said = [
        (CLIENT, tcp(there, 0, 0, SYN)),
        (SERVICE, tcp(back, 0, 1, SYN | ACK)),
        (CLIENT, tcp(there, 1, 1, ACK)),
        (CLIENT, tcp(there, 1, 1, PUSH | ACK, ASKED)),
        (SERVICE, tcp(back, 1, asked, PUSH | ACK, ANSWERED)),
        (CLIENT, tcp(there, asked, answered, FIN | ACK)),
        (SERVICE, tcp(back, answered, asked + 1, FIN | ACK)),
        (CLIENT, tcp(there, asked + 1, answered + 1, ACK)),
    ]
    return [
        (120_000 * n + 1_000 * k, ip4(who, SERVICE if who == CLIENT else CLIENT, TCP, segment))
        for k, (who, segment) in enumerate(said)
    ]
