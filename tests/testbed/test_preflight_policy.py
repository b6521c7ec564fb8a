"""What a policy says of accesses that open."""

from __future__ import annotations

import pytest

from testbed.errors import InvalidInput
from testbed.policy import read_policy


def test_openings_are_reported_unless_the_policy_says_fail(tmp_path):
    (tmp_path / "policy.yaml").write_text(
        "access: {opened: fail, expected: [{protocol: tcp, port: 8443}, {destination: 192.0.2.0/24}]}\n"
    )
    policy = read_policy(tmp_path / "policy.yaml")
    assert policy.opened == "fail"
    assert len(policy.expected) == 2
    assert (read_policy(None).opened, read_policy(None).expected) == ("report", ())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("access: {opened: loud}", ":1:18: found 'loud'"),
        ("access: {expected: [{protocol: carrier}]}", "a protocol"),
        ("access: {open: fail}", "opened"),
        ("access: {expected: [{source: 10.0.0.300}]}", "10.0.0.300"),
    ],
)
def test_a_wrong_word_of_it_is_refused_with_its_line(tmp_path, text, told):
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(InvalidInput) as raised:
        read_policy(tmp_path / "policy.yaml")
    assert told in str(raised.value)
