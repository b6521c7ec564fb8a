"""A policy is read whole, or refused where it is wrong."""

from ipaddress import ip_network

import pytest

from testbed.errors import InvalidInput
from testbed.policy import ClassRule, Policy, Tolerance, read_policy

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
        ("windows: {baseline: 0}", "greater than or equal to 1"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line(tmp_path, text, told):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(InvalidInput) as raised:
        read_policy(tmp_path / "policy.yaml")
    assert told in str(raised.value)
