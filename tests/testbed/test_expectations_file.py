"""What an expect.yaml says, and what is told of one that is wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from analysis.kpi import Tolerance
from testbed.errors import InvalidInput
from testbed.expectations.file import read_expectations
from testbed.expectations.model import Expectations, Fate, Service
from testbed.expectations.words import declared
from tests.testbed.quick_lab import quick_lab
from topologies.load import load_lab

TODAY = date(2026, 11, 25)
WAIVER = "waivers: [{finding: {kpi: response_ns}, owner: me, reason: known, expires: 2027-01-31}]"


@pytest.fixture(scope="module")
def topology(tmp_path_factory):
    return load_lab(quick_lab(tmp_path_factory.mktemp("quick") / "lab")).topology


@pytest.fixture
def read(tmp_path, topology):
    def reading(text: str, classes: tuple[str, ...] = ("web", "dns")) -> Expectations:
        path = tmp_path / "expect.yaml"
        path.write_text(text)
        return read_expectations(path, topology, classes, TODAY)

    return reading


def test_every_word_of_it_is_read(read):
    found = read(
        """\
must:
  - name: the new API
    match:
      service: [tcp/8443, udp/5000-5100, icmp]
      source: 198.51.100.0/24
      destination: [10.1.0.11, "2001:db8::/48"]
    becomes: denied → permitted
    via: r1
    not_via: [sw1]
    backend: web1
    translated_to: 10.1.0.11
may:
  - match: {class: web, priority: critical, label: "*.example", application: http}
    kpis: {response_ns: +20 % or +2 ms, goodput_bps: -1.5 Mbit/s, loss_ratio: +0.5 points, retransmits: +2}
  - {match: {class: [dns, other]}, becomes: timed out}
waivers:
  - finding: {id: ab12, kpi: disposition, class: web, node: fw1, file: "*.rules", text: "*timeout"}
    owner: network team
    reason: ticket 12
    expires: 2027-01-31
"""
    )
    api, web, dns = found.intents
    assert (api.name, api.demanded, api.line, api.text) == ("the new API", True, 2, "name: the new API")
    assert api.match.services == (Service((6,), (8443, 8443)), Service((17,), (5000, 5100)), Service((1, 58)))
    assert api.match.destination == (ip_network("10.1.0.11"), ip_network("2001:db8::/48"))
    assert api.becomes == (Fate.DENIED, Fate.PERMITTED)
    assert (api.via, api.not_via, api.backend) == (("r1",), ("sw1",), ("web1",))
    assert api.translated_to == ip_address("10.1.0.11")
    assert (web.name, web.demanded, web.match.classes, web.match.priorities) == (
        "may 1",
        False,
        ("web",),
        ("critical",),
    )
    assert web.bounds == {
        "response_ns": Tolerance(0.2, 2e6),
        "goodput_bps": Tolerance(0.0, 1.5e6),
        "loss_ratio": Tolerance(0.0, 0.005),
        "retransmits": Tolerance(0.0, 2.0),
    }
    assert (dns.name, dns.becomes) == ("may 2", (None, Fate.TIMED_OUT))
    (waiver,) = found.waivers
    assert (waiver.owner, waiver.reason, waiver.expires) == ("network team", "ticket 12", date(2027, 1, 31))
    assert waiver.patterns["file"] == "*.rules"
    assert declared(api).startswith(
        "tcp/8443, udp/5000-5100, icmp from 198.51.100.0/24 to 10.1.0.11/32, 2001:db8::/48: "
    )
    assert "response time at most +20 % or +2 ms" in declared(web)
    kept = TypeAdapter(Expectations)
    assert kept.validate_json(kept.dump_json(found)) == found


def test_a_waiver_holds_through_its_last_day(read):
    (waiver,) = read(WAIVER).waivers
    assert [waiver.is_expired(date(2027, 1, 31)), waiver.is_expired(date(2027, 2, 1))] == [False, True]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("musts: []", ":1:1: found unknown key 'musts', expected 'must' perhaps"),
        ("must: [{becomes: denied -> permited}]", "'permited' is 'permitted' perhaps"),
        ("must: [{becomes: denied -> denied}]", "two that differ"),
        ("must: [{match: {class: web}}]", "at least one of becomes, via"),
        ("must: [{match: {class: wbe}, via: r1}]", ":1:24: found 'wbe', expected a class of the policy, 'web' perhaps"),
        ("must: [{match: {service: tpc/80}, via: r1}]", "'tcp' perhaps"),
        ("must: [{match: {service: tcp/90-80}, via: r1}]", "the lower one first"),
        ("must: [{match: {service: tcp/80000}, via: r1}]", "ports from 1 to 65535"),
        ("must: [{match: {service: icmp/8}, via: r1}]", "a service such as"),
        ("must: [{match: {destination: 10.0.0.1/8}, via: r1}]", "host bits"),
        ("must: [{match: {tag: pci}, via: r1}]", "a tag of some node"),
        ("must: [{match: {prio: low}, via: r1}]", "'priority' perhaps"),
        ("must: [{via: web2}]", ":1:14: found 'web2', expected a node of the lab, 'web1' perhaps"),
        ("must: [{translated_to: 203.0.113.9}]", "an address that a node of the lab has"),
        ("may: [{kpis: {respons_ns: +20 %}}]", ":1:15: found the KPI 'respons_ns', expected 'response_ns' perhaps"),
        ("may: [{kpis: {response_ns: 20 %}}]", "how far response time may worsen: '+20 %', '+5 ms'"),
        ("may: [{kpis: {response_ns: -20 %}}]", "how far response time may worsen"),
        ("may: [{kpis: {goodput_bps: +20 %}}]", "'-20 %'"),
        ("may: [{kpis: {loss_ratio: +5 ms}}]", "points"),
        ("must: [{name: a, via: r1}, {name: a, via: r1}]", "every name once"),
        (WAIVER.replace("owner: me, ", ""), "'owner' here"),
        (WAIVER.replace(", expires: 2027-01-31", ""), "'expires' here"),
        (WAIVER.replace("2027-01-31", "2027-02-31"), "a day that there is"),
        (WAIVER.replace("owner: me", "owner: '  '"), "some text"),
        (WAIVER.replace("kpi: response_ns", ""), "a waiver for everything is none"),
        ("", "an empty file"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_what_was_meant(read, text, told):
    with pytest.raises(InvalidInput) as raised:
        read(text)
    assert told in str(raised.value)
    assert "expect.yaml:1:" in str(raised.value)


def test_all_mistakes_are_told_at_once(read):
    with pytest.raises(InvalidInput) as raised:
        read("must:\n  - {via: r2}\n  - {backend: web2}\nmay:\n  - {match: {class: nobody}, via: r1}\n")
    assert [line.split(":")[1] for line in str(raised.value).splitlines()] == ["2", "3", "5"]


WRITTEN = """must|may|waivers|name|match|service|source|class|tag|becomes|via|kpis|finding|owner|reason|expires|icmp
tcp/80|denied|->|permitted|→|r1|web|10.0.0.0/8|+20|%|or|+5|ms|2027-01-31|response_ns|[]|{}|-|:|,|'|"|#|0|null|true"""
_WORDS = st.sampled_from([*WRITTEN.replace("\n", "|").split("|"), "\n", "\n  "])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=80), st.lists(_WORDS, max_size=30).map(" ".join)))
def test_whatever_a_file_holds_it_is_read_or_refused(read, text):
    with suppress(InvalidInput, UnicodeEncodeError):
        # no file holds a lone surrogate
        assert isinstance(read(text), Expectations)


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), _WORDS.filter(str.strip)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
_KEYS = st.sampled_from(
    ["name", "match", "becomes", "via", "not_via", "backend", "translated_to", "kpis", "finding", "owner", "expires"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    group=st.sampled_from(["must", "may", "waivers"]),
    entries=st.lists(st.dictionaries(_KEYS, _VALUES, max_size=4), max_size=3),
)
def test_the_right_keys_with_any_values_are_read_or_refused(read, group, entries):
    with suppress(InvalidInput):
        found = read(json.dumps({group: entries}))
        assert len(found.intents) + len(found.waivers) == len(entries)
