"""`kill -9` at any moment, an interrupt, and an ordinary user: nothing is left, nothing is different.

The hundred kills are on a lab with one of each device that is up in a second, at random moments of every phase.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.testbed.quick_lab import quick_lab

SHOP = Path(__file__).parents[2] / "topologies" / "shop"
KILLS = 100
AT_ONCE = 2
PHASES = {"build": 0.8, "replay": 2.0, "change": 1.0, "rollback": 1.0, "teardown": 0.05}
"""Steps of a run, and how long after the beginning of each it is killed at the latest, in seconds."""

REACHED_SECONDS = 60.0
GONE_SECONDS = 5.0
MARK = "TESTBED_KILL_TEST"
NOBODY = 65534


def started(
    runs: Path, mark: str, lab: Path = SHOP, change: str = "block-https", environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / change)]
    return subprocess.Popen(
        [*argv, "--runs", str(runs), "--quiet", "--baseline", "2", "--treatment", "2"],
        env={**os.environ, **(environment or {}), MARK: mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def alive(mark: str) -> list[psutil.Process]:
    """Processes that inherited the run's mark, zombies aside."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if f"{MARK}={mark}".encode() in environment and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (OSError, psutil.Error):
            continue
    return found


def namespaces(processes: Iterable[int]) -> set[str]:
    """Every namespace that these processes are in."""
    seen = set()
    for pid in processes:
        for link in Path(f"/proc/{pid}/ns").glob("*"):
            with suppress(OSError):
                seen.add(str(link.readlink()))
    return seen


def interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def mounts() -> list[str]:
    return sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())


def own_namespaces(mark: str) -> set[str]:
    """The namespaces that the run made: other runs on this machine have theirs."""
    return namespaces(process.pid for process in alive(mark)) - namespaces([os.getpid()])


def left_of(mark: str, made: set[str]) -> list[str]:
    """What of a run is still there after a short grace: its processes, or anybody of its time in its namespaces.

    The kernel gives the number of a namespace that is gone to the next one: who came later does not count.
    """
    now, deadline = time.time(), time.monotonic() + GONE_SECONDS
    while True:
        elders = [process.pid for process in psutil.process_iter(["create_time"]) if process.info["create_time"] < now]
        left = [f"process {process.pid}" for process in alive(mark)] + sorted(made & namespaces(elders))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_kill_9_a_hundred_times_leaves_nothing(tmp_path, phase):
    lab = quick_lab(tmp_path / "lab")
    chance = random.Random(f"{phase} 9")
    cables, mounted, cache = interfaces(), mounts(), tmp_path / "cache"

    def killed_once(number: int, after_s: float) -> None:
        home = tmp_path / f"home{number}"
        home.mkdir()
        runs, mark = tmp_path / f"runs{number}", f"{phase}-{number}"
        where = {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(cache)}
        run = started(runs, mark, lab, "drop", where)
        assert reached(runs, phase), f"no {phase} came"
        kill(run, mark, after_s)
        assert not list(home.rglob("*")), f"{phase} + {after_s:.2f} s left files"

    moments = [chance.uniform(0.0, PHASES[phase]) for _ in range(KILLS // len(PHASES))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(killed_once, range(len(moments)), moments))
    compiled = [path.suffix for path in cache.rglob("*") if path.is_file()]
    assert set(compiled) <= {".so"}, "what is compiled is kept whole or not at all"
    assert (interfaces(), mounts()) == (cables, mounted)


@pytest.mark.slow
def test_kill_9_while_building_and_while_replaying_leaves_nothing(tmp_path):
    cables, mounted = interfaces(), mounts()
    for number, moment in enumerate((1.6, 2.5, 5.0, 9.0)):
        kill_once(tmp_path / str(number), f"early-{number}", moment)
    assert (interfaces(), mounts()) == (cables, mounted)


def kill_once(runs: Path, mark: str, seconds: float) -> None:
    kill(started(runs, mark), mark, seconds)


def kill(run: subprocess.Popen[bytes], mark: str, after_s: float) -> None:
    """Kill the run after a while; nothing of it may be left."""
    time.sleep(after_s)
    made = own_namespaces(mark)
    run.kill()
    run.wait()
    if run.stderr:
        run.stderr.close()
    left = left_of(mark, made)
    assert not left, f"{mark}: killed after {after_s:.2f} s: {left}"


def reached(runs: Path, event: str) -> bool:
    """Wait until a run has come to this step; whether it did."""
    deadline = time.monotonic() + REACHED_SECONDS
    while time.monotonic() < deadline:
        if any(f'"event": "{event}"' in path.read_text() for path in runs.glob("*/events.jsonl")):
            return True
        time.sleep(0.005)
    return False


def test_interrupt_unwinds_and_leaves_nothing(tmp_path):
    run = started(tmp_path, "interrupt")
    time.sleep(6)
    made = own_namespaces("interrupt")
    assert made
    run.send_signal(signal.SIGINT)
    _out, said = run.communicate(timeout=30)
    assert run.returncode == 130, said
    assert not left_of("interrupt", made)


@pytest.mark.slow
def test_ordinary_user_gets_the_same_verdict_as_root(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else; the other tests already run as an ordinary user")
    try:
        subprocess.run([sys.executable, "-c", "import testbed"], user=NOBODY, check=True, capture_output=True)
    except (PermissionError, subprocess.CalledProcessError):
        pytest.skip(f"an ordinary user cannot read {sys.executable} or this checkout")
    home = tmp_path / "nobody"
    home.mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and str(folder).startswith("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    lab = Path(shutil.copytree(SHOP, home / "shop"))
    os.chown(home, NOBODY, NOBODY)
    argv = [sys.executable, "-m", "testbed", "whatif", str(lab), "--change", str(lab / "changes" / "null-route")]
    done = subprocess.run(
        [*argv, "--runs", str(home / "runs"), "--baseline", "2", "--treatment", "2", "--json"],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    verdict = json.loads(done.stdout)
    assert verdict["verdict"] == "FAIL"
    assert verdict["rollback"]["restored"]
    blames = [finding["blame"] for finding in verdict["findings"] if finding["blame"]]
    assert any(blame["node"] == "r1" and "Null0" in blame["text"] for blame in blames)
