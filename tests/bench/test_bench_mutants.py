"""Mutation operators touch what they say and nothing else; truth and blame are compared line by line."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.bench.mutants.bench import Slice
from testbed.bench.mutants.catalogue import DEPOT, MUTANTS
from testbed.bench.mutants.lines import ConfigText, NoSuchLine
from testbed.bench.mutants.mutant import Harm, LinkStep, Made, Mutant, Step, made
from testbed.bench.mutants.operators import (
    TrueLine,
    deleted,
    doubled,
    element_removed,
    inserted,
    moved,
    renamed,
    reworded,
    split,
    swapped,
    without_option,
)
from testbed.bench.mutants.play import Blamed, Played, earlier, fingerprint
from testbed.bench.mutants.score import Score, result
from testbed.change.sources import read_change
from testbed.cli import commands
from testbed.errors import InvalidInput
from topologies.load import load_lab

RULES = """\
*filter
:FORWARD DROP [0:0]
:WEB - [0:0]
-A FORWARD -j WEB
-A WEB -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT
-A WEB -p udp -m udp --dport 53 -j ACCEPT
COMMIT
"""


def edited(operator, text=RULES, file="iptables.rules"):
    return operator(ConfigText.of("fw1", file, text))


def rows(operator, text=RULES, file="iptables.rules"):
    return edited(operator, text, file).text.splitlines()


def test_lines_know_their_block_in_every_dialect():
    def blocks(file, text):
        return [line.block for line in ConfigText.of("n", file, text).lines]

    assert blocks("iptables.rules", RULES)[3:6] == ["filter/FORWARD", "filter/WEB", "filter/WEB"]
    nft = "table inet t {\n\tchain c {\n\t\ttcp dport { 80, 443 } accept\n\t}\n\tset s {\n\t}\n}\n"
    inner = "table inet t/chain c"
    assert blocks("nftables.conf", nft) == [
        "",
        "table inet t",
        inner,
        "table inet t",
        "table inet t",
        "table inet t",
        "",
    ]
    frr = "ip route 10.0.0.0/8 Null0\ninterface e1\n ip ospf cost 1\nexit\n!\nrouter ospf\n redistribute bgp\n"
    assert blocks("frr.conf", frr) == ["", "interface e1", "interface e1", "", "", "router ospf", "router ospf"]
    assert blocks("haproxy.cfg", "global\n  daemon\nbackend b\n  server s 1.2.3.4:80\n") == [
        "global",
        "global",
        "backend b",
        "backend b",
    ]


def test_operators_change_what_they_say():
    one, two = RULES.splitlines()[4:6]
    assert rows(deleted("filter/WEB", "--dport 80"))[4:] == [two, "COMMIT"]
    assert rows(moved("filter/WEB", "--dport 80", "--dport 53"))[4:] == [two, one, "COMMIT"]
    assert rows(moved("filter/WEB", "--dport 53", "--dport 80"))[4:] == [one, two, "COMMIT"]
    assert rows(swapped("filter/WEB", "--dport 53", "--dport 80"))[4:] == [two, one, "COMMIT"]
    assert rows(doubled("filter/WEB", "--dport 53"))[5:] == [two, two, "COMMIT"]
    assert rows(inserted("filter/WEB", "--dport 53", "-A WEB -j DROP"))[5] == "-A WEB -j DROP"
    assert rows(without_option("filter/WEB", "--dport 80", "-s 10.0.0.0/8"))[4] == one.replace("-s 10.0.0.0/8 ", "")
    assert rows(reworded("filter/WEB", "--dport 80", "--dport 81"))[4] == one.replace("80", "81")
    assert rows(split("filter/WEB", "--dport 80", "--dport 80:81", "--dport 82"))[4:6] == [
        one.replace("80", "80:81"),
        one.replace("80", "82"),
    ]
    assert rows(renamed("WEB", "SHOP")) == RULES.replace("WEB", "SHOP").splitlines()
    text = "table ip t {\n\tset s {\n\t\telements = { 10.0.0.1, 10.0.0.2 }\n\t}\n}\n"
    kept = rows(element_removed("table ip t/set s", "10.0.0.1"), text, "nftables.conf")
    assert kept[2] == "\t\telements = { 10.0.0.2 }"


def test_an_operator_whose_target_is_not_there_once_says_so():
    for operator in (
        deleted("filter/WEB", "--dport 8"),
        deleted("filter/WEB", "-j ACCEPT"),
        deleted("nat/WEB", "--dport 80"),
        renamed("NOWHERE", "X"),
        without_option("filter/WEB", "--dport 80", "-i ens3"),
        element_removed("filter/WEB", "10.0.0.1"),
    ):
        with pytest.raises(NoSuchLine, match=r"configs/fw1/iptables\.rules"):
            edited(operator)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.sampled_from(["iptables.rules", "nftables.conf", "frr.conf", "haproxy.cfg", "x"]))
def test_any_text_is_lines_and_stays_as_it_was(text, file):
    parsed = ConfigText.of("n", file, text)
    assert [line.text for line in parsed.lines] == text.splitlines()
    assert [line.number for line in parsed.lines] == list(range(1, len(parsed.lines) + 1))


def test_the_catalogue_is_half_harmful_and_every_mutant_says_why():
    assert len(MUTANTS) >= 40
    assert len({one.name for one in MUTANTS}) == len(MUTANTS)
    harmful = sum(one.harm is not None for one in MUTANTS)
    assert 0.4 <= harmful / len(MUTANTS) <= 0.6
    families = Counter((one.family, one.harm is not None) for one in MUTANTS)
    for family in ("iptables", "conntrack", "mtu", "nftables", "frr", "haproxy"):
        assert families[family, True], family
        assert families[family, False], family
    assert all(len(one.why) > 8 for one in MUTANTS)
    assert all(one.harm.classes or one.harm.opens for one in MUTANTS if one.harm)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_is_made_of_production_files_and_is_guilty_where_it_differs(mutant, tmp_path):
    case = made(mutant, DEPOT)
    change = read_change(load_lab(DEPOT), case.write(tmp_path))
    assert not change.is_empty
    if mutant.harm is None:
        return
    texts = {" ".join(line.text.split()) for line in change.lines}
    latent = set(mutant.harm.latent)
    ours = [line for line in case.guilty if line not in latent]
    assert any(" ".join(line.text.split()) in texts for line in ours)
    for line in latent:
        assert line.text in (DEPOT / line.file).read_text().splitlines()
        assert line.node not in change.nodes


def test_classes_of_the_truth_are_classes_of_the_lab():
    policy = (DEPOT / "policy.yaml").read_text()
    for one in MUTANTS:
        for name in one.harm.classes if one.harm else ():
            assert f"name: {name}," in policy


CASE = Made(
    Mutant("m", "iptables", "why", (Step("fw1", "iptables.rules", deleted("", "x")),), harm=Harm(("http", "dns"))),
    {("fw1", "iptables.rules"): "x\n"},
    (TrueLine("fw1", "configs/fw1/iptables.rules", "-A FORWARD -j DROP"),),
)
LINE = Blamed(node="fw1", file="configs/fw1/iptables.rules", line=3, text="  -A FORWARD  -j DROP", in_change=True)
OTHER = LINE.model_copy(update={"text": "-A FORWARD -j ACCEPT"})


def played(case=CASE, **update):
    said = Played(
        mutant=case.mutant.name, made_of="", pairs=0, verdict="FAIL", reason="", exit_code=1, blames=(LINE,),
        classes=("http",), opened=0, restored=True, seconds=10, run="runs/x",
    )  # fmt: skip
    return Score(case, said.model_copy(update=update))


def test_scores_hold_what_was_said_against_the_truth():
    equivalent = Made(Mutant("e", "iptables", "why"), {}, ())
    scores = [
        played(),
        played(blames=(OTHER, LINE), classes=("http", "dns")),
        played(verdict="INCONCLUSIVE", blames=()),
        played(equivalent, verdict="PASS", blames=()),
        played(equivalent, verdict="INCONCLUSIVE", blames=()),
        played(equivalent, verdict="FAIL"),
    ]
    assert [one.right for one in scores] == [True, True, False, True, True, False]
    figures = result(scores).figures
    assert figures["recall_ratio"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["blamed_first_ratio"] == 0.5
    assert figures["blamed_anywhere_ratio"] == 1.0
    assert figures["all_classes_named_ratio"] == 0.5
    assert figures["false_alarm_ratio"] == pytest.approx(1 / 3, abs=1e-4)
    assert result([]).figures["harmful"] == 0


def test_either_end_of_a_link_may_be_blamed():
    case = made(Mutant("m", "mtu", "why", (), LinkStep("r1:e0", "r2:e1", 1400), Harm(("http",))), DEPOT)
    text = case.guilty[0].text
    for node, right in (("r1", True), ("r2", True), ("r3", False)):
        blame = Blamed(node=node, file="/tmp/x/change.yaml", line=2, text=text, in_change=True)
        assert played(case, blames=(blame,)).blamed_first is right


def test_results_are_read_again_and_a_broken_line_is_told(tmp_path):
    path = tmp_path / "mutants.jsonl"
    assert earlier(path) == []
    path.write_text(played().played.model_dump_json() + "\n")
    assert earlier(path) == [played().played]
    path.write_text(path.read_text() + '{"mutant": 3}\n')
    with pytest.raises(InvalidInput, match=":2:1"):
        earlier(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=120))
def test_any_file_of_results_is_read_or_refused(tmp_path_factory, octets):
    path = tmp_path_factory.mktemp("results") / "m.jsonl"
    path.write_bytes(octets)
    try:
        found = earlier(path)
    except InvalidInput as refused:
        found = [] if "m.jsonl" in str(refused) else [None]
    assert found == []


def test_another_lab_or_another_text_is_played_again(tmp_path):
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "lab.yaml").write_text("a")
    first = fingerprint(CASE, lab)
    assert fingerprint(CASE, lab) == first
    (lab / "changes").mkdir()
    (lab / "changes" / "x").write_text("not part of the lab")
    assert fingerprint(CASE, lab) == first
    (lab / "lab.yaml").write_text("b")
    assert fingerprint(CASE, lab) != first


def test_a_name_that_fits_nothing_is_a_usage_error(tmp_path):
    argv = ["bench", "mutants", "--only", "cisco", "--results", str(tmp_path / "r.jsonl")]
    done = CliRunner().invoke(commands, argv)
    assert done.exit_code == 2
    assert "families: iptables" in done.output


@pytest.mark.slow
def test_a_mutant_is_played_for_real_and_not_again(tmp_path):
    argv = ["bench", "mutants", "--only", "iptables-over-broad-accept", "--json"]
    argv += ["--results", str(tmp_path / "r.jsonl"), "--runs", str(tmp_path / "runs")]
    for _ in range(2):
        done = CliRunner().invoke(commands, argv, standalone_mode=False)
        assert done.return_value == 0, done.output
        figures = json.loads(done.output)["figures"]
        assert figures["recall_ratio"] == 1.0
        assert figures["blamed_first_ratio"] == 1.0
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1
    assert len(list((tmp_path / "runs").glob("*/verdict.json"))) == 1


def test_a_whole_name_is_one_mutant_and_the_order_is_the_one_asked_for(tmp_path):
    def names(*only):
        return [one.name for one in Slice(tmp_path / "r", tmp_path, only).chosen()]

    assert names("haproxy-maxconn") == ["haproxy-maxconn"]
    assert names("mtu", "conntrack-udp-timeout", "mtu-larger") == ["mtu-larger", "conntrack-udp-timeout"]
    assert names() == [one.name for one in MUTANTS]
    assert len(names("frr")) == sum(one.family == "frr" for one in MUTANTS)
