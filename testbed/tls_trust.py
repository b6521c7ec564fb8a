"""What the players' clients of TLS trust: what they trusted before the change, that is the lab's own certificates.

It knows a shadow and its files, no protocol.
"""

from __future__ import annotations

from replay.session import Trust
from testbed.devices.stand_ins import authority_of
from testbed.shadow import Shadow
from testbed.tls_ends import certificates


def trusted(shadow: Shadow) -> Trust:
    """Every certificate in the lab's files, and the authority of stand-ins, whose names nobody chose."""
    authority = next(filter(None, map(authority_of, shadow.boxes.values())), "")
    return Trust(tuple(certificates(shadow.configs)), authority)
