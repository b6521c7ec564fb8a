"""What the package promises to its installer, held against the files themselves."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (TOP / "requirements.lock").read_text(encoding="utf-8")
PACKAGES = ("topologies", "replay", "analysis", "testbed")
MAY_UNSHARE = {"testbed/sandbox.py", "testbed/bench/floor.py", "topologies/containerlab/programs.py"}
"""The last one writes the word into a lab: there PostgreSQL starts behind it."""


def locked() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE)}


def declared() -> list[Requirement]:
    return [Requirement(text) for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]]


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.py"))


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_every_declared_dependency_is_locked_to_a_version_it_allows(requirement):
    assert requirement.specifier.contains(locked()[canonicalize_name(requirement.name)], prereleases=True)


def test_every_locked_package_has_hashes():
    blocks = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.split("==")[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_the_lock_names_no_place_to_download_from():
    assert (
        re.findall(r"\w+://\S*|^\s*-(?:i|f|-index-url|-extra-index-url|-find-links|-trusted-host).*", LOCK, re.M) == []
    )


def test_console_script_and_device_entry_points_are_declared():
    assert PROJECT["scripts"] == {"testbed": "testbed.cli:main"}
    assert set(PROJECT["entry-points"]["testbed.devices"]) == {
        "bridge",
        "edge",
        "firewall",
        "host",
        "loadbalancer",
        "openvswitch",
        "router",
    }


def test_only_the_sandbox_the_network_and_the_bare_kernel_of_a_bench_call_unshare():
    callers = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", ""))
            argued = isinstance(node, ast.Constant) and node.value == "unshare"
            if called == "unshare" or argued:
                callers.add(path.relative_to(TOP).as_posix())
    assert {caller for caller in callers if not caller.startswith("testbed/network/")} <= MAY_UNSHARE


def test_there_are_sources_to_look_at():
    assert {path.relative_to(TOP).parts[0] for path in sources()} == set(PACKAGES)


def test_no_file_is_longer_than_five_hundred_lines():
    lengths = {
        path.relative_to(TOP).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()
    }
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_no_source_asks_for_a_shell():
    assert [
        path for path in sources() if re.search(r"shell\s*=\s*True|os\.system\(", path.read_text(encoding="utf-8"))
    ] == []


@pytest.mark.skipif(not (TOP / ".git").exists(), reason="not a git checkout")
def test_no_committed_file_is_bytecode_or_build_output():
    listed = subprocess.run(["git", "-C", TOP, "ls-files"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"git does not speak to this user here: {listed.stderr.strip()}")
    assert [name for name in listed.stdout.splitlines() if re.search(r"\.pyc$|\.egg-info/|^\.venv/", name)] == []
