"""Hostile YAML ends in InvalidLab and nothing else."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from topologies.located import InvalidLab, read_yaml
from topologies.schema import LabFile

WRITTEN = rb"""name: x|topology:|  nodes:|    a: {kind: host}|&a |*a|<<: |[|]|{|}|- |? |: |!!binary |%YAML 1.1|...
|"\\U00110000"|>|\t|0x|1_0|.inf|2001-01-01|'|"|%TAG ! x|#|!<|\x00|\r""".split(b"|")
TOKENS = st.sampled_from([*WRITTEN, b"\n", b"\t", b"\r", b"\x00", b"\xff\xfe", b"|\n", b"\n---\n"])
HOSTILE = st.one_of(st.binary(max_size=200), st.lists(TOKENS, max_size=30).map(b"".join))


@given(HOSTILE)
@example(b"[" * 5000)
@example(b"a: &a [*a]\n")
@example(b"%YAML 9999999999.1\n---\na: 1\n")
@example(b"name: " + b"9" * 5000)
@example(b'"\\UFFFFFFFF"')
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_bytes_only_give_invalid_lab(tmp_path: Path, raw: bytes):
    path = tmp_path / "lab.yaml"
    path.write_bytes(raw)
    try:
        read_yaml(path, LabFile)
    except InvalidLab as error:
        told = error.problems
    else:
        told = ()
    assert all(problem.line >= 1 and problem.column >= 1 for problem in told)


def test_a_bomb_of_aliases_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path = tmp_path / "lab.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(InvalidLab, match="values"):
        read_yaml(path, LabFile)
