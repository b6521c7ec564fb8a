"""A lab's files at their own paths inside a node: seen there, nowhere else, and changed live."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from testbed.devices.linux import changed_files, check_files, placed
from testbed.devices.registry import known_devices
from testbed.network.placed_files import misplaced
from testbed.sandbox import SCRATCH, Sandbox, mount
from testbed.shadow import built
from tests.testbed.labs import as_nobody, files, node, on_shadow, topology, with_file

CONTENTS = {
    "files/etc/motd": "of the lab",
    "files/etc/ssl/private/shop.key": "-----BEGIN PRIVATE KEY-----\n",
    "files/etc/own/deep/file": "deep",
    "files/run/own": "in run",
    "files/etc/haproxy/errors/503.http": "placed in a daemon's directory",
    "files/usr/local/bin/hello": "#!/bin/sh\necho hello\n",
}
CONFIG = "listen a\n  mode tcp\n  timeout client 1s\n  timeout server 1s\n  timeout connect 1s\n  bind :80\n"


def lab(folder: Path):
    return topology(
        [
            node("h1", {}, configs=files(folder, "h1", CONTENTS)),
            node("h2", {}),
            node("lb", {}, "loadbalancer", configs=files(folder, "lb", {**CONTENTS, "haproxy.cfg": CONFIG})),
        ],
        [],
    )


def seen(shadow):
    def cat(name, path):
        return shadow.boxes[name].run(["cat", path])

    told = {
        name: {p.removeprefix("files"): cat(name, p.removeprefix("files")) for p in CONTENTS} for name in ("h1", "lb")
    }
    hello = shadow.boxes["h1"].run(["/usr/local/bin/hello"])
    accounts = shadow.boxes["h1"].run(["grep", "^frr:", "/etc/passwd"])
    config = cat("lb", "/etc/haproxy/haproxy.cfg")
    other = shadow.boxes["h2"].run(["ls", "/etc"]).split()
    before = shadow.configs["h1"]
    changed = dict(with_file(shadow, "h1", "files/etc/motd", "changed"))
    del changed["files/etc/own/deep/file"]
    shadow.reconfigure("h1", changed)
    live = cat("h1", "/etc/motd"), shadow.boxes["h1"].run(["ls", "/etc/own/deep"])
    tried = shadow.boxes["h1"].run(["cat", "/etc/motd", "/etc/x/y"], files={"/etc/motd": b"1", "/etc/x/y": b"2"})
    after = cat("h1", "/etc/motd"), "x" in shadow.boxes["h1"].run(["ls", "/etc"]).split()
    shadow.reconfigure("h1", before)
    back = cat("h1", "/etc/motd") + cat("h1", "/etc/own/deep/file")
    return told, hello, accounts, config, other, live, tried, after, back


def judge(result) -> None:
    told, hello, accounts, config, other, live, tried, after, back = result
    wanted = {path.removeprefix("files"): text for path, text in CONTENTS.items()}
    assert told == {"h1": wanted, "lb": wanted}
    assert hello == "hello\n"
    assert ":0:0:" in accounts
    assert config == CONFIG
    assert "own" not in other
    assert live == ("changed", "")
    assert tried == "12"
    assert after == ("changed", False)
    assert back == "of the labdeep"


def test_files_lie_where_their_path_says_in_their_node_alone_and_change_live(tmp_path):
    judge(on_shadow(lab(tmp_path), tmp_path, seen))
    assert not Path("/etc/own").exists()
    assert not Path("/usr/local/bin/hello").exists()


def test_an_ordinary_user_places_files_where_the_machine_would_not_let_them_write():
    def job(folder: Path):
        def inside():
            with built(lab(folder), known_devices(), folder / "logs") as shadow:
                shadow.wait_ready(30, lambda reason: None)
                return seen(shadow)

        return Sandbox("placed", (folder,)).call(inside)

    judge(as_nobody(job))


def test_where_no_more_overlays_go_on_each_other_a_copy_serves(tmp_path):
    def job():
        for number in ("1", "2"):
            upper, work = (SCRATCH / f"{name}{number}" for name in ("upper", "work"))
            upper.mkdir()
            work.mkdir()
            mount("overlay", "/etc", "overlay", 0, f"userxattr,lowerdir=/etc,upperdir={upper},workdir={work}")
        with built(topology([node("h", {})], []), known_devices(), tmp_path / "logs") as shadow:
            shadow.reconfigure("h", {"files/etc/motd": b"copied"})
            told = shadow.boxes["h"].run(["cat", "/etc/motd", "/etc/services"])
            mounts = shadow.boxes["h"].run(["cat", "/proc/self/mountinfo"])
            return told, [line.split(" - ")[1].split()[0] for line in mounts.splitlines() if " /etc " in line]

    told, kinds = Sandbox("deep", (tmp_path,)).call(job)
    assert told.startswith("copied")
    assert "https" in told
    assert kinds == ["overlay", "overlay", "tmpfs"]


def test_a_path_that_cannot_be_is_told():
    assert "below /" in misplaced("/nowhere/at/all")
    assert "kernel" in misplaced("/proc/sys/net/ipv4/ip_forward")
    assert "plain" in misplaced("/etc/../etc/motd")
    assert "directory" in misplaced("/etc/ssl")
    (complaint,) = check_files({"files/nowhere/x": b"", "files/etc/x": b""})
    assert (complaint.file, complaint.line) == ("files/nowhere/x", None)


@given(st.dictionaries(st.sampled_from(["files/a", "files/b", "frr.conf"]), st.binary(max_size=2)))
def test_a_change_of_files_is_what_differs(after):
    before = {"files/a": b"x", "files/b": b"", "frr.conf": b""}
    changes = changed_files(before, after)
    assert {**placed(before), **changes} == {**dict.fromkeys(placed(before)), **placed(after)}
