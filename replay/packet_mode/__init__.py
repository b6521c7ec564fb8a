"""Packet mode: the captured packets themselves, sent again by the nodes that own their sources, on absolute time.

For what no socket can re-enact: odd protocols, malformed packets, link-layer traffic, and any flow by choice. It knows
no namespace but by descriptor and no next hop but as it is told: both are handed in.
"""
