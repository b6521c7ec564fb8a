"""A policy is read whole, or refused where it is wrong."""

from ipaddress import ip_network

import pytest

from testbed.errors import InvalidInput
from testbed.policy import ClassRule, Policy, Tolerance, read_policy, tagged
from topologies.load import load_lab

TEXT = """\
classes:
  - name: checkout
    priority: critical
    match: {protocol: tcp, port: 443, label: "checkout*", source: 198.51.100.0/24, application: tls}
tolerances:
  response_ns: {relative: 0.5, absolute_ms: 5}
  pdv_ns: {relative: 1, absolute_us: 20}
  loss_ratio: {relative: 0.5, absolute: 0.01}
replay: {speed: 10}
windows: {baseline: 2, treatment: 4}
"""


def test_a_policy_is_read(tmp_path):
    (tmp_path / "policy.yaml").write_text(TEXT)
    policy = read_policy(tmp_path / "policy.yaml")
    source = ip_network("198.51.100.0/24")
    rule = ClassRule("checkout", "critical", 6, 443, "checkout*", source, None, "tls")
    assert policy.classes == (rule,)
    assert policy.tolerances["response_ns"] == Tolerance(0.5, 5_000_000)
    assert policy.tolerances["pdv_ns"] == Tolerance(1, 20_000)
    assert policy.tolerances["loss_ratio"] == Tolerance(0.5, 0.01)
    assert (policy.speed, policy.baseline_windows, policy.treatment_windows) == (10, 2, 4)


def test_ports_and_prefixes_may_be_lists_and_ranges(tmp_path):
    text = 'classes: [{name: x, match: {port: [80, "8000-8100"], source: [10.0.0.0/8, "2001:db8::/32"]}}, {name: y, '
    (tmp_path / "policy.yaml").write_text(text + 'match: {port: "1-3"}}]')
    listed, ranged = read_policy(tmp_path / "policy.yaml").classes
    assert listed.port == (range(80, 81), range(8000, 8101))
    assert listed.source == (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    assert ranged.port == (range(1, 4),)


TAGGED = """
name: small
topology:
  nodes:
    web: {kind: host, interfaces: {eth0: [10.0.0.2/24]}, tags: [cardholder]}
    net: {kind: edge, interfaces: {eth0: [10.0.0.1/24]}, prefixes: [198.51.100.0/24], tags: [outside]}
  links: [{endpoints: ["web:eth0", "net:eth0"]}]
"""


def test_a_tag_stands_for_its_nodes_networks(tmp_path):
    (tmp_path / "lab.yaml").write_text(TAGGED)
    topology = load_lab(tmp_path).topology
    path = tmp_path / "policy.yaml"
    path.write_text("classes: [{name: x, match: {tag: cardholder}}, {name: y, match: {tag: outside}}]")
    card, outside = tagged(read_policy(path), path, topology).classes
    assert card.ends == (ip_network("10.0.0.2/32"),)
    assert ip_network("198.51.100.0/24") in outside.ends
    path.write_text("classes: [{name: x, match: {tag: cardhold}}]")
    with pytest.raises(InvalidInput, match="'cardholder' perhaps"):
        tagged(read_policy(path), path, topology)
    with pytest.raises(InvalidInput, match="tags are of a lab's nodes"):
        tagged(read_policy(path), path, None)


def test_no_policy_means_the_defaults():
    assert read_policy(None) == Policy()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tolerances: {respnse_ns: {relative: 1, absolute: 1}}", "'response_ns' perhaps"),
        ("tolerances: {response_ns: {relative: -1, absolute: 1}}", "greater than or equal to 0"),
        ("tolerances: {response_ns: {relative: 1}}", "exactly one of"),
        ("tolerances: {loss_ratio: {relative: 1, absolute_ms: 1}}", "no time"),
        ("classes: [{name: x, priority: urgent}]", ":1:31: found 'urgent'"),
        ("classes: [{name: x, match: {protocol: sctp}}]", "tcp"),
        ("classes: [{name: x}, {name: x}]", "comes twice"),
        ("replay: {speed: .inf}", "found inf"),
        ("classes: [{name: x, match: {port: 80-79}}]", "a range such as '8000-8100'"),
        ("classes: [{name: x, match: {port: [1, [2]]}}]", "or a list of them"),
        ("classes: [{name: x, match: {port: []}}]", "or a list of them"),
        ("classes: [{name: x, match: {port: 65536}}]", "a port from 0 to 65535"),
        ("classes: [{name: x, match: {source: []}}]", "at least 1 entries"),
        ("windows: {baseline: 0}", "greater than or equal to 1"),
        ("windows: {pairs: 5}", "greater than or equal to 6"),
        ("windows: {pairs: 8, treatment: 3}", "at most one of treatment, pairs and budget_s"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(tmp_path, text, told):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(InvalidInput) as raised:
        read_policy(tmp_path / "policy.yaml")
    assert told in str(raised.value)
