"""What plays and listens on a shadow: the player with both ends of every flow, and the taps at the end points.

It knows no window and no change.
"""

from __future__ import annotations

from dataclasses import replace

from replay.session import Patience, Player
from replay.tap import Tap, Taps
from testbed.placement import END_POINTS, listeners
from testbed.preflight.probe import Survey
from testbed.prepare import Case
from testbed.shadow import Shadow
from testbed.tls_trust import trusted

LEAST_UNANSWERED_NS = 300_000_000


def player_of(case: Case, shadow: Shadow, survey: Survey) -> Player:
    """The player of the case's flows and of the survey's probes; a context manager."""
    patience = Patience(
        connect_timeout_ns=int(case.policy.connect_timeout_s * 1e9),
        unanswered_timeout_ns=_unanswered_ns(case),
        message_timeout_ns=int(case.policy.response_timeout_s * 1e9),
    )
    spaces = {node: fd for node, fd in shadow.namespaces().items() if node in end_points(shadow)}
    return Player(
        replace(case.schedule, probes=survey.scripts),
        spaces,
        listeners(case.lab, case.flows, case.configs),
        patience,
        trust=trusted(shadow),
    )


def _unanswered_ns(case: Case) -> int:
    """How long an answer is awaited that was never seen: less in short windows, which would last for that alone.

    What any way there and back takes by the links' own delays is always awaited.
    """
    links = [egress for link in case.lab.topology.links for egress in (link.a.egress, link.b.egress)]
    links += [egress for link in case.change.links for egress in (link.a_to_b, link.b_to_a)]
    delays_ns = sum(one.delay_ns + one.pdv_ns for one in links)
    return min(Patience().unanswered_timeout_ns, max(LEAST_UNANSWERED_NS, case.duration_ns // 2) + delays_ns)


def taps_of(shadow: Shadow) -> Taps:
    """Taps at every end point; a context manager."""
    spaces = shadow.namespaces()
    return Taps([Tap(node, spaces[node]) for node in end_points(shadow)])


def end_points(shadow: Shadow) -> list[str]:
    """The nodes at which flows begin or end."""
    return [n.name for n in shadow.topology.nodes if n.kind in END_POINTS]
