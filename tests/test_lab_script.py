"""./lab, vagrant/provision.sh and .ci/run, run for real but for the package manager, which is only listened to."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
PROVISION = TOP / "vagrant" / "provision.sh"
SCRIPTS = (TOP / "lab", PROVISION, TOP / ".ci" / "run")


@pytest.fixture
def bare_machine(tmp_path):
    """A PATH on which no package is installed, with an apt-get that writes down what it was asked and what it saw."""
    programs = tmp_path / "bin"
    programs.mkdir()
    record = tmp_path / "record"
    record.mkdir()
    (programs / "dpkg-query").write_text("#!/bin/sh\nprintf not-installed\n")
    (programs / "id").write_text("#!/bin/sh\necho 0\n")
    (programs / "apt-get").write_text(
        "#!/bin/sh\n"
        f'echo "$*" >>{record}/calls\n'
        f"env >>{record}/env\n"
        "for word; do case $word in DPkg::Path=*) path=${word#DPkg::Path=} ;; esac; done\n"
        'if [ -n "${path:-}" ]; then\n'
        "    PATH=$path\n"
        "    for name in systemctl service invoke-rc.d update-rc.d deb-systemd-helper deb-systemd-invoke; do\n"
        f"        command -v $name >>{record}/found\n"
        f'        $name stop haproxy; echo "$name $?" >>{record}/answers\n'
        "    done\n"
        f'    deb-systemd-helper --quiet was-enabled haproxy.service; echo "was-enabled $?" >>{record}/answers\n'
        "fi\n"
    )
    for program in programs.iterdir():
        program.chmod(0o755)
    release = tmp_path / "os-release"
    release.write_text("ID=debian\nVERSION_ID=12\n")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "LAB_OS_RELEASE": str(release),
        "TMPDIR": str(temporary),
        "HOME": str(tmp_path),
    }

    def provision(*arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", PROVISION, *arguments], env=environment | changed, capture_output=True, text=True, check=False
        )

    return provision, record, temporary, release, programs


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_script_passes_shellcheck_and_is_executable(script):
    assert os.access(script, os.X_OK)
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_provision_installs_without_letting_a_package_reach_a_service(bare_machine):
    provision, record, temporary, _release, _programs = bare_machine
    done = provision()
    assert done.returncode == 0, done.stderr
    found = (record / "found").read_text().split()
    assert len(found) == 6
    assert all(Path(name).is_relative_to(temporary) for name in found)
    answers = dict(line.rsplit(" ", 1) for line in (record / "answers").read_text().splitlines())
    assert answers.pop("was-enabled") == "1"
    assert set(answers.values()) == {"0"}


def test_provision_neither_upgrades_nor_removes_nor_asks(bare_machine):
    provision, record, _temporary, _release, _programs = bare_machine
    provision()
    install = (record / "calls").read_text().splitlines()[-1]
    assert {"--no-upgrade", "--no-remove", "--no-install-recommends", "-y"} <= set(install.split())
    environment = (record / "env").read_text().splitlines()
    assert {"DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"} <= set(environment)


def test_provision_removes_its_shims(bare_machine):
    provision, _record, temporary, _release, _programs = bare_machine
    provision()
    assert list(temporary.iterdir()) == []


def test_provision_does_nothing_and_needs_no_root_when_all_is_there(bare_machine):
    provision, record, _temporary, _release, programs = bare_machine
    (programs / "dpkg-query").write_text("#!/bin/sh\nprintf installed\n")
    (programs / "id").write_text("#!/bin/sh\necho 1000\n")
    assert provision().returncode == 0
    assert not (record / "calls").exists()


def test_provision_names_what_is_missing_on_a_system_it_does_not_support(bare_machine):
    provision, record, _temporary, release, _programs = bare_machine
    release.write_text("ID=fedora\nVERSION_ID=43\n")
    done = provision()
    assert done.returncode == 4
    assert "fedora 43" in done.stderr
    assert "haproxy" in done.stderr
    assert not (record / "calls").exists()


def test_provision_leaves_the_chromium_snap_of_ubuntu_alone(bare_machine):
    provision, _record, _temporary, release, _programs = bare_machine
    assert "chromium" in provision("--missing").stdout
    release.write_text("ID=ubuntu\nVERSION_ID=24.04\n")
    assert "chromium" not in provision("--missing").stdout


def test_lab_without_a_known_word_says_what_there_is():
    done = subprocess.run([TOP / "lab", "dmeo"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "demo" in done.stderr


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose Python and testbed are stand-ins: the one writes down its pip calls, the other ends as told."""
    top = tmp_path / "checkout"
    programs = top / ".venv" / "bin"
    programs.mkdir(parents=True)
    (top / "vagrant").mkdir()
    for name in ("lab", "requirements.lock", "pyproject.toml"):
        shutil.copy(TOP / name, top / name)
    for path, body in {
        top / "vagrant" / "provision.sh": "exit 0",
        programs / "python": f'case $1 in -VV) echo Python ;; -m) echo "$*" >>{top}/calls ;; esac',
        programs / "testbed": 'exit "$TESTBED_ENDS"',
    }.items():
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def lab(*arguments: str, testbed_ends: int = 0) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"TESTBED_ENDS": str(testbed_ends)}
        return subprocess.run([top / "lab", *arguments], env=environment, capture_output=True, text=True, check=False)

    return top, lab


def pip_calls(top: Path) -> list[str]:
    return (top / "calls").read_text().splitlines() if (top / "calls").exists() else []


def test_setup_installs_only_what_the_lock_has_hashes_for_and_then_ourselves(checkout):
    top, lab = checkout
    assert lab("setup").returncode == 0
    *locked, ourselves = pip_calls(top)
    assert locked
    assert all("--require-hashes" in call for call in locked)
    assert ourselves.endswith("-e .")
    assert "--no-deps" in ourselves


def test_setup_the_second_time_installs_nothing(checkout):
    top, lab = checkout
    lab("setup")
    first = pip_calls(top)
    assert lab("setup").returncode == 0
    assert pip_calls(top) == first


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_setup_installs_again_when_what_is_asked_for_changed(checkout, name):
    top, lab = checkout
    lab("setup")
    first = pip_calls(top)
    with (top / name).open("a") as file:
        file.write("\n# changed\n")
    lab("setup")
    assert pip_calls(top) == first * 2


def test_demo_succeeds_when_the_verdict_is_the_expected_failure(checkout):
    top, lab = checkout
    run = top / "runs" / "one"
    run.mkdir(parents=True)
    (run / "verdict.json").write_text('{"verdict": "FAIL"}')
    os.utime(run / "verdict.json", (time.time() + 60,) * 2)
    done = lab("demo", testbed_ends=1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "demo: the verdict is FAIL, as expected for block-https"


def test_demo_does_not_take_a_crash_for_the_expected_failure(checkout):
    top, lab = checkout
    (top / "runs").mkdir()
    assert lab("demo", testbed_ends=1).returncode == 1


@pytest.mark.parametrize("status", [0, 2, 3, 4])
def test_demo_fails_on_any_other_end(checkout, status):
    _top, lab = checkout
    done = lab("demo", testbed_ends=status)
    assert done.returncode == 1
    assert f"exit {status}" in done.stderr
