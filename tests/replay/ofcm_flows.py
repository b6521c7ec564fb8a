"""Flow tables for tests of the model: from a few words, from hypothesis, and large ones from a seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from replay.ofcm.model import OUTCOMES

START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000


def flow(source, destination="203.0.113.10", port=443, outcome="accepted", times=1, **others):
    """`times` rows of one flow; whatever is not said is unremarkable."""
    one = {
        "start_ns": START_NS, "end_ns": START_NS + SECOND_NS, "protocol": 6, "source_address": source,
        "destination_address": destination, "destination_port": port, "forward_packets": 3, "reverse_packets": 2,
        "forward_octets": 300, "reverse_octets": 2000, "application": "", "label": "", "outcome": outcome,
        "connect_ns": np.nan, "first_response_ns": np.nan,
    }  # fmt: skip
    return [one | others] * times


def table(*flows):
    return pd.DataFrame([one for some in flows for one in some])


ADDRESSES = st.one_of(
    st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.3", "192.0.2.1", "0.0.0.0", "255.255.255.255"]),
    st.sampled_from(["::", "2001:db8::1", "2001:db8:0:1::2", "::ffff:1.2.3.4", "ffff::ffff"]),
    st.integers(0, 2**12).map(lambda low: f"198.51.{100 + low // 256}.{low % 256}"),
)
TEXTS = st.one_of(st.just(""), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
DELAYS = st.one_of(st.just(float("nan")), st.floats(0, 1e12))
FLOWS = st.lists(
    st.builds(
        lambda *values: (
            flow(*values[:4])[0]
            | dict(
                zip(
                    ("start_ns", "end_ns", "forward_octets", "label", "application", "connect_ns"),
                    values[4:],
                    strict=True,
                )
            )
        ),
        ADDRESSES,
        ADDRESSES,
        st.sampled_from([22, 53, 443, 0, 65535]),
        st.sampled_from(OUTCOMES),
        st.integers(START_NS, START_NS + SECOND_NS),
        st.integers(START_NS + SECOND_NS, START_NS + 2 * SECOND_NS),
        st.integers(0, 10**9),
        TEXTS,
        TEXTS,
        DELAYS,
    ),
    min_size=1,
    max_size=25,
).map(pd.DataFrame)


def many(count, seed):
    """A site with 30,000 clients, 2,000 machines inside that go out to 5,000 servers, and a scan of 10,000 ports."""
    random = np.random.default_rng(seed)

    def addresses(number):
        return np.array([".".join(map(str, one)) for one in random.integers(1, 255, (number, 4)).tolist()], object)

    clients, outside = addresses(30_000), addresses(5_000)
    inside = np.array([f"10.0.{place >> 8}.{place & 255}" for place in range(2_000)], object)
    servers = np.array([f"203.0.113.{place}" for place in range(40)], object)
    kind = random.random(count)
    into, scan = kind < 0.6, kind >= 0.95
    source = np.where(into, clients[random.integers(0, 30_000, count)], inside[random.integers(0, 2_000, count)])
    target = np.where(into, servers[random.integers(0, 10, count)], outside[random.zipf(1.3, count) % 5_000])
    port = np.array([443, 80, 53, 22])[random.integers(0, 4, count)]
    outcome = np.where((port == 22) & into, "denied", "accepted")
    outcome = np.where(random.random(count) < 0.002, "reset", outcome)
    start_ns = START_NS + random.integers(0, 3600 * SECOND_NS, count)
    return pd.DataFrame(
        {
            "start_ns": start_ns,
            "end_ns": start_ns + random.integers(0, 10 * SECOND_NS, count),
            "protocol": np.where(port == 53, 17, 6),
            "source_address": pd.Series(np.where(scan, "198.51.100.66", source), dtype="str"),
            "destination_address": pd.Series(
                np.where(scan, servers[random.integers(0, 40, count)], target), dtype="str"
            ),
            "destination_port": np.where(scan, random.integers(1, 10_000, count), port),
            **{f"{way}_packets": random.integers(1, 100, count) for way in ("forward", "reverse")},
            **{f"{way}_octets": random.integers(40, 100_000, count) for way in ("forward", "reverse")},
            "application": pd.Series(np.where(port == 443, "tls", ""), dtype="str"),
            "label": "",
            "outcome": pd.Series(np.where(scan, "unanswered", outcome), dtype="str"),
            "connect_ns": np.exp(random.normal(16, 1, count)),
            "first_response_ns": np.exp(random.normal(17, 1, count)),
        }
    )
