"""`kill -9` at any moment, an interrupt, and an ordinary user: nothing is left, nothing is different."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

SHOP = Path(__file__).parents[2] / "topologies" / "shop"
KILLS = 30
LONGEST_SECONDS = 14.0
GONE_SECONDS = 5.0
MARK = "TESTBED_KILL_TEST"
NOBODY = 65534


def started(runs: Path, mark: str, change: str = "block-https") -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "testbed", "whatif", str(SHOP), "--change", str(SHOP / "changes" / change)]
    return subprocess.Popen(
        [*argv, "--runs", str(runs), "--quiet"],
        env={**os.environ, MARK: mark},
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
def test_kill_9_at_thirty_random_moments_leaves_nothing(tmp_path):
    chance = random.Random(9)
    cables, mounted = interfaces(), mounts()
    for number in range(KILLS):
        kill_once(tmp_path / str(number), f"kill-{number}", chance.uniform(0.2, LONGEST_SECONDS))
    assert (interfaces(), mounts()) == (cables, mounted)


def test_kill_9_while_building_and_while_replaying_leaves_nothing(tmp_path):
    cables, mounted = interfaces(), mounts()
    for number, moment in enumerate((1.6, 2.5, 5.0, 9.0)):
        kill_once(tmp_path / str(number), f"early-{number}", moment)
    assert (interfaces(), mounts()) == (cables, mounted)


def kill_once(runs: Path, mark: str, seconds: float) -> None:
    run = started(runs, mark)
    time.sleep(seconds)
    made = own_namespaces(mark)
    run.kill()
    run.wait()
    if run.stderr:
        run.stderr.close()
    left = left_of(mark, made)
    assert not left, f"killed after {seconds:.2f} s: {left}"


def test_interrupt_unwinds_and_leaves_nothing(tmp_path):
    run = started(tmp_path, "interrupt")
    time.sleep(6)
    made = own_namespaces("interrupt")
    assert made
    run.send_signal(signal.SIGINT)
    _out, said = run.communicate(timeout=30)
    assert run.returncode == 130, said
    assert not left_of("interrupt", made)


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
