"""Namespaces, links, addresses and impairments; the only room that touches pyroute2 and mininet."""
