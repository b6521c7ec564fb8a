"""Mutants of lb1's haproxy.cfg in the depot; `why` tells how one knows without running it."""

from __future__ import annotations

from testbed.bench.mutants.mutant import Harm, Mutant, Step
from testbed.bench.mutants.operators import (
    Operator,
    appended,
    deleted,
    inserted,
    remarked,
    renamed,
    reworded,
    split,
    swapped,
)

FILE = "haproxy.cfg"
FRONT, PAGES, API, TLS = "frontend shop_http", "backend pages", "backend api", "backend tls"


def _proxy(name: str, why: str, *operators: Operator, harm: Harm | None = None) -> Mutant:
    return Mutant(f"haproxy-{name}", "haproxy", why, tuple(Step("lb1", FILE, one) for one in operators), harm=harm)


HTTP = Harm(("http",))

HARMFUL = (
    _proxy(
        "servers-down",
        "nobody listens on 8081, so that the checks fail and the backend has no server",
        reworded(PAGES, "203.0.113.11:8080", "203.0.113.11:8081"),
        reworded(PAGES, "203.0.113.12:8080", "203.0.113.12:8081"),
        harm=HTTP,
    ),
    _proxy(
        "servers-disabled",
        "a backend with no server that is enabled answers 503",
        reworded(TLS, "203.0.113.11:8443 check", "203.0.113.11:8443 check disabled"),
        reworded(TLS, "203.0.113.12:8443 check", "203.0.113.12:8443 check disabled"),
        harm=Harm(("https",)),
    ),
    _proxy(
        "bad-check",
        "the servers answer 200 to /health, so that both are taken for dead",
        appended(PAGES, "option httpchk GET /health", "http-check expect status 204"),
        harm=HTTP,
    ),
    _proxy(
        "maxconn",
        "customers come many at once, and wait for each other",
        reworded(FRONT, "maxconn 1000", "maxconn 1"),
        harm=HTTP,
    ),
    _proxy(
        "server-timeout",
        "an answer below /api/ takes 60 ms, and 10 at six times the speed",
        reworded("defaults", "timeout server 20s", "timeout server 5ms"),
        harm=HTTP,
    ),
    _proxy(
        "over-broad-deny",
        "what asks for the stock begins with /a and gets 403",
        inserted(FRONT, "use_backend api", "http-request deny if { path_beg /a }"),
        harm=HTTP,
    ),
    _proxy("wrong-port", "nobody else listens on port 80", reworded(FRONT, "bind :80", "bind :8000"), harm=HTTP),
    _proxy(
        "wrong-address",
        "lb1 does not have 127.0.0.1 for anybody outside",
        reworded("frontend shop_tls", "bind :443", "bind 127.0.0.1:443"),
        harm=Harm(("https",)),
    ),
)

EQUIVALENT = (
    _proxy("remark", "a comment", remarked(PAGES, "mode http", "# two servers are enough")),
    _proxy("renamed-backend", "the backend and its only use have the new name", renamed("pages", "storefront")),
    _proxy(
        "swapped-servers",
        "both are alike, and each gets every second request",
        swapped(PAGES, "server app1", "server app2"),
    ),
    _proxy(
        "same-time-in-ms",
        "20,000 milliseconds are 20 seconds",
        reworded("defaults", "timeout server 20s", "timeout server 20000"),
    ),
    _proxy(
        "maxconn-never-reached",
        "there are fewer than 200 connections in all",
        reworded(FRONT, "maxconn 1000", "maxconn 4000"),
    ),
    _proxy("default-left-out", "roundrobin is what a backend does anyway", deleted(PAGES, "balance roundrobin")),
    _proxy(
        "named-condition",
        "the same condition, by a name",
        split(
            FRONT,
            "use_backend api if { path_beg /api/ }",
            "acl asks_stock path_beg /api/",
            "use_backend api if asks_stock",
        ),
    ),
    _proxy(
        "unused-backend",
        "no frontend sends anything to it",
        inserted(
            "backend tls", "backend tls", "backend spare", "    mode tcp", "    server app1 203.0.113.11:8443", ""
        ),
    ),
)
