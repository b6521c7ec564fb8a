"""What the players' ends of TLS trust and show: what clients trusted before the change, and the lab's own certificates.

It knows a shadow and its files, no protocol.
"""

from __future__ import annotations

from replay.session import Trust
from testbed.devices.stand_ins import authority_of, identity_of
from testbed.placement import END_POINTS
from testbed.shadow import Shadow
from testbed.tls_ends import begun_anew, certificates


def trusted(shadow: Shadow) -> Trust:
    """Every certificate in the lab's files, the authority of stand-ins, whose names nobody chose, and servers' own.

    Raises Unsupported where a server needs a certificate and there is no openssl.
    """
    identities = _identities(shadow)
    authority = next(filter(None, map(authority_of, shadow.boxes.values())), "")
    return Trust(tuple(certificates(shadow.configs)), authority, identities)


def _identities(shadow: Shadow) -> dict[tuple[str, int], str]:
    """A certificate for every server to which some load balancer speaks TLS, good for all names asked for there."""
    names: dict[tuple[str, int], list[str]] = {}
    for server in begun_anew(shadow.configs):
        try:
            owner = shadow.topology.owner(server.address)
        except ValueError:
            continue  # a name, which the lab resolves or not
        if owner is not None and owner.kind in END_POINTS:
            names.setdefault((owner.name, server.port), []).extend(server.names)
    return {place: identity_of(shadow.boxes[place[0]], asked) for place, asked in names.items()}
