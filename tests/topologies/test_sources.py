"""What a source is, and the map of what it comes to."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.imported import Note
from topologies.load import load_lab
from topologies.located import InvalidLab
from topologies.map.html import limits_text, map_html
from topologies.map.layout import layered, spread
from topologies.model import Impairment, Link, LinkEnd, Node, Topology
from topologies.sources import imported, opened
from topologies.topohub_names import from_topohub

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).parent / "examples"
SHOP = load_lab(ROOT / "topologies" / "shop").topology


def test_a_lab_folder_is_used_where_it_is(tmp_path):
    found = opened(str(ROOT / "topologies" / "shop"), tmp_path / "work")
    assert found.lab.folder == ROOT / "topologies" / "shop"
    assert not found.notes
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "source",
    [
        str(EXAMPLES / "campus" / "campus.clab.yml"),
        f"{EXAMPLES / 'two_sites.py'}:sites",
        str(EXAMPLES / "alps.graphml"),
        "topohub:sndlib/polska",
        "mininet:single,3",
    ],
)
def test_every_other_form_is_written_into_the_work_folder(tmp_path, source):
    found = opened(source, tmp_path / "work")
    assert found.lab.folder == tmp_path / "work"
    again = load_lab(tmp_path / "work")
    assert again.topology == found.lab.topology
    assert all(isinstance(note, Note) for note in found.notes)


@pytest.mark.parametrize(
    "source", ["", "nothing", "x.clab.yml", "x.graphml", "x.py", "x.yaml", "topohub:", "mininet:", "a\0b"]
)
def test_an_unknown_source_is_told_with_the_choices(tmp_path, source):
    with pytest.raises(InvalidLab):
        imported(source)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_lab_is_no_lab(tmp_path):
    with pytest.raises(InvalidLab, match=r"lab\.yaml"):
        opened(str(tmp_path), tmp_path / "work")


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_the_map_asks_nobody_for_anything():
    for text in (map_html(SHOP), map_html(from_topohub("topohub:sndlib/polska").topology)):
        page = Page(text)
        assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "use", "image", "a"}
        assert not [a for _, attrs in page.tags for a in attrs if a in ("href", "src", "style") or a.startswith("on")]
        policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "url(" not in text
        assert not re.search(r"https?://", text)


def test_the_map_says_every_node_and_link_in_words():
    text = "\n".join(Page(map_html(SHOP)).words)
    for node in SHOP.nodes:
        assert node.name in text
    assert "6 Mbit/s, queue 48,000 octets" in text
    assert "r1:ens5 – r3:ens3" in text


def test_what_comes_from_files_is_escaped():
    hostile = "\"><script>alert(1)</script>&'"
    node = replace(Node("a", hostile), interfaces=())
    topology = Topology(hostile, (node, Node("b", "host")), (Link(LinkEnd("a", hostile), LinkEnd("b", "e")),))
    page = Page(map_html(topology))
    assert "script" not in {tag for tag, _ in page.tags}
    assert hostile in "".join(page.words)


def test_boxes_of_the_shop_do_not_overlap():
    for narrow in (False, True):
        layout = layered(SHOP, narrow=narrow)
        width, height = layout.box
        places = list(layout.at.values())
        for i, (x, y) in enumerate(places):
            assert width / 2 <= x <= layout.width - width / 2
            assert all(abs(x - u) >= width or abs(y - v) >= height for u, v in places[:i])


def test_labels_of_germany_do_not_overlap():
    made = from_topohub("topohub:sndlib/germany50")
    layout = spread(made.topology, made.positions)
    boxes = []
    for name, label in layout.labels.items():
        width = len(name) * 6.7
        left = label.at[0] - {"start": 0, "middle": width / 2, "end": width}[label.anchor]
        boxes.append((left, label.at[1] - 11, left + width, label.at[1] + 4))
    assert len(boxes) == 50
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])


@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=60),
    st.sampled_from(["edge", "host", "router", "thing"]),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_any_network_has_a_map_and_always_the_same(count, pairs, kind, placed):
    nodes = (Node("n0", kind), *(Node(f"n{i}", "host") for i in range(1, count)))
    links = tuple(
        Link(LinkEnd(f"n{a % count}", f"a{k}"), LinkEnd(f"n{b % count}", f"b{k}")) for k, (a, b) in enumerate(pairs)
    )
    topology = Topology("t", nodes, links)
    positions = {f"n{i}": (i * 0.5, 0.0) for i in range(0, count, 2)} if placed else {}
    assert map_html(topology, positions) == map_html(topology, positions)


def test_limits_are_told_in_words():
    egress = Impairment(1_500_000, 2_500_000, 100_000, 0.01, 0.001, 0.02, 0.5, 1_000)
    assert limits_text(egress) == (
        "1.5 Mbit/s, 2.5 ms delay, 0.1 ms PDV, 1 % loss, 0.1 % duplicate, 2 % reorder, 50 % corrupt, queue 1,000 octets"
    )
