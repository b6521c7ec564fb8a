"""The gate for real: the steps of the GitHub action, the GitLab template, the pre-commit hook, git made here."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from ruamel.yaml import YAML

from testbed.cli import main
from testbed.sandbox import Sandbox
from testbed.verdict_file import read_verdict
from tests.testbed.quick_lab import FRR, RULES, quick_lab

TOP = Path(__file__).parents[2]
TESTBED = Path(sys.executable).with_name("testbed")
ACTION = YAML(typ="safe").load((TOP / "action.yml").read_text())
GITLAB = YAML(typ="safe").load((TOP / "ci" / "gitlab.yml").read_text())
HOOKS = YAML(typ="safe").load((TOP / ".pre-commit-hooks.yaml").read_text())
FILE = "net/quick/configs/fw1/iptables.rules"
DROP = "-A FORWARD -p udp -m udp --dport 5001 -j DROP\n"
QUICK = "--baseline 2 --treatment 2"


def git(top: Path, *words: str) -> str:
    settings = ("-c", "user.name=test", "-c", "user.email=test@test.example", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(top), *settings, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    """A config repository with a lab, tagged base, a commit that drops its traffic, and one that only adds a remark."""
    top = tmp_path_factory.mktemp("origin") / "configs"
    quick_lab(top / "net" / "quick")
    git(top.parent, "init", "-q", "-b", "main", str(top))
    for tag, path, text in (
        ("base", FILE, RULES.format(more="")),
        ("drop", FILE, RULES.format(more=DROP)),
        ("remark", "README.md", "configs\n"),
    ):
        (top / path).write_text(text)
        git(top, "add", "-A")
        git(top, "commit", "-q", "-m", tag)
        git(top, "tag", tag)
    return top


# ---- GitHub


def evaluated(text: str, context: Mapping[str, str]) -> str:
    """`${{ a || b }}` as the runner reads it: the first name that is not empty."""

    def value(match: re.Match[str]) -> str:
        return next((found for name in match[1].split("||") if (found := context.get(name.strip(), ""))), "")

    return re.sub(r"\$\{\{(.*?)\}\}", value, text)


class Workflow:
    """Runs the action's shell steps as the runner would, with files for outputs and summary."""

    def __init__(self, folder: Path, github: Mapping[str, str], **inputs: str) -> None:
        folder.mkdir()
        self.folder = folder
        given = {name: str(entry.get("default", "")) for name, entry in ACTION["inputs"].items()} | inputs
        self.context = {f"inputs.{name}": value for name, value in given.items()}
        self.context |= {f"github.{name}": value for name, value in github.items()}
        self.context["github.action_path"] = str(TOP)

    def step(self, name: str) -> subprocess.CompletedProcess[str]:
        (step,) = [step for step in ACTION["runs"]["steps"] if step.get("id") == name]
        output = self.folder / "output"
        output.write_text("")
        environment = {
            **os.environ,
            "RUNNER_TEMP": str(self.folder),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary.md"),
            **{key: evaluated(value, self.context) for key, value in step["env"].items()},
        }
        if "TESTBED" in environment:
            environment["TESTBED"] = str(TESTBED)
        argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(argv, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        for line in output.read_text().splitlines():
            key, _, value = line.partition("=")
            self.context[f"steps.{name}.outputs.{key}"] = value
        return done


@pytest.fixture(scope="module")
def workflow(origin, tmp_path_factory) -> Workflow:
    """The action on a pull request that drops all traffic, in a shallow clone of its head."""
    folder = tmp_path_factory.mktemp("github")
    clone = folder / "clone"
    source = f"file://{origin}"
    subprocess.run(
        ["git", "clone", "-q", "--depth=1", "--branch=drop", source, str(clone)], check=True, capture_output=True
    )
    github = {"event.pull_request.base.sha": git(origin, "rev-parse", "base"), "sha": git(origin, "rev-parse", "drop")}
    said = 'sh -c "echo $TESTBED_VERDICT was told; ls $TESTBED_ROLLBACK"'
    inputs = {"options": QUICK, "on-fail": said, "on-pass": "false", "repository": str(clone)}
    made = Workflow(folder / "runner", github, **inputs)
    fetched = made.step("revisions")
    assert fetched.returncode == 0, fetched.stderr
    made.gate = made.step("gate")
    return made


def test_the_action_fails_the_pull_request_on_the_line(workflow):
    gate = workflow.gate
    assert gate.returncode == 0, gate.stderr
    assert workflow.context["steps.gate.outputs.exit-code"] == "1", gate.stdout + gate.stderr
    assert workflow.context["steps.gate.outputs.verdict"] == "FAIL"
    (error,) = [line for line in gate.stdout.splitlines() if line.startswith("::error ")]
    assert error.startswith(f"::error file={FILE},line=6,title=FAIL")
    stop = re.findall("^::stop-commands::([0-9a-f]+)$", gate.stdout, re.M)
    assert f"::{stop[0]}::" in gate.stdout.splitlines()
    assert workflow.step("decide").returncode == 1


def test_every_output_of_the_action_is_there(workflow):
    results = Path(workflow.context["steps.gate.outputs.results"])
    root = ET.parse(results / "junit.xml").getroot()
    assert int(root.get("failures")) == 1
    (result, *_) = json.loads((results / "results.sarif").read_text())["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == FILE
    assert place["region"]["snippet"]["text"] == DROP.strip()
    assert (results / "metrics.txt").read_text().endswith("# EOF\n")
    comment, summary = (results / "comment.md").read_text(), (workflow.folder / "summary.md").read_text()
    for text in (comment, summary):
        assert text.startswith("<!-- shadow-testbed:quick -->")
        assert f"`{FILE}:6`" in text
        assert "`rollback/`" in text


def run_of(workflow: Workflow) -> Path:
    (run,) = (Path(workflow.context["steps.gate.outputs.results"]) / "runs").glob("*-quick-*")
    return run


def test_a_fail_leaves_the_way_back_and_what_was_run(workflow, origin, tmp_path):
    run = run_of(workflow)
    assert read_verdict(run).rollback.restored
    gate = json.loads((run / "gate.json").read_text())
    (hook,) = gate["hooks"]
    assert hook["event"] == "on-fail"
    assert hook["status"] == 0
    assert hook["output_tail"].startswith("FAIL was told\nREADME.md\n")
    assert (gate["exit_code"], gate["changed"]) == (1, [FILE])
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--branch=drop", str(origin), str(clone)], check=True, capture_output=True)
    git(clone, "apply", str(run / "rollback" / "reverse.patch"))
    assert (clone / FILE).read_bytes() == (run / "rollback/configs/fw1/iptables.rules").read_bytes()
    assert git(clone, "diff", "--stat", "base") == ""
    assert "rollback/reverse.patch" in (run / "report.html").read_text()


def test_a_kept_run_is_rendered_again_alike(workflow, tmp_path):
    results = Path(workflow.context["steps.gate.outputs.results"])
    argv = [TESTBED, "gate", "--render", run_of(workflow), "--sarif", tmp_path / "again.sarif"]
    argv += ["--markdown", tmp_path / "again.md", "--codequality", tmp_path / "again.json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "✗ FAIL" in done.stdout
    assert (tmp_path / "again.sarif").read_text() == (results / "results.sarif").read_text()
    assert (tmp_path / "again.md").read_text() == (results / "comment.md").read_text()
    assert json.loads((tmp_path / "again.json").read_text())[0]["location"]["path"] == FILE


class Service(BaseHTTPRequestHandler):
    """Comments of a merge request, as both services keep them."""

    comments: list[dict[str, object]]
    asked: list[str]

    def answer(self) -> None:
        self.asked.append(f"{self.command} {self.path} {self.headers['Authorization']}")
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"null")
        told: object = self.comments
        if self.command == "POST":
            self.comments.append({"id": len(self.comments) + 1, **document})
        elif self.command in ("PATCH", "PUT"):
            self.comments[int(self.path.split("/")[-1]) - 1].update(document)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told if self.command == "GET" else {}).encode())

    do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002
        """No log."""


def posted_twice(script: Path, service: str, file: Path) -> tuple[list[dict[str, object]], list[str], list[str]]:
    """What the service has and was asked after two posts, in a network of its own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Service.comments, Service.asked = [{"id": 1, "body": "a person's, quoting <!-- shadow-testbed:quick -->"}], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "GITHUB_API_URL": place, "GITHUB_REPOSITORY": "o/r", "TOKEN": "secret"}
    environment |= {"CI_API_V4_URL": place, "CI_PROJECT_ID": "7", "no_proxy": "*"}
    said = []
    for text in ("one", "two"):
        file.write_text(f"<!-- shadow-testbed:quick -->\n\n{text}\n")
        argv = [sys.executable, script, service, "12", file]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        said.append(f"{done.returncode} {done.stdout}{done.stderr}".strip())
    server.shutdown()
    server.server_close()
    return Service.comments, Service.asked, said


@pytest.mark.parametrize(("service", "verb"), [("github", "PATCH /repos/o/r/issues/comments/2"), ("gitlab", "PUT ")])
def test_a_comment_is_written_once_and_then_kept_up_to_date(tmp_path, service, verb):
    file = tmp_path / "comment.md"
    job = Sandbox("comment", (tmp_path, TOP)).call(lambda: posted_twice(TOP / "ci" / "comment.py", service, file))
    comments, asked, said = job
    assert said == ["0 comment written", "0 comment brought up to date"]
    assert [comment["body"].splitlines()[-1] for comment in comments][1:] == ["two"]
    assert asked[-1].startswith(verb)
    assert asked[-1].endswith("Bearer secret")


def test_the_shell_of_action_and_template_is_sound(tmp_path):
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    scripts = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]
    scripts += GITLAB["shadow-testbed"]["script"]
    for number, script in enumerate(scripts):
        assert "${{" not in script, "inputs reach a script as variables only"
        (tmp_path / f"{number}.sh").write_text(f"#!/bin/bash\nset -eo pipefail\n{script}")
    argv = [shellcheck, "-S", "warning", "-e", "SC2154", *sorted(tmp_path.glob("*.sh"))]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# ---- GitLab


def test_the_template_ends_well_where_nothing_changed_below_the_lab(origin, tmp_path):
    project = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", str(origin), str(project)], check=True, capture_output=True)
    home = tmp_path / "home"
    (home / ".venv" / "bin").mkdir(parents=True)
    (home / ".venv" / "bin" / "testbed").symlink_to(TESTBED)
    job = GITLAB["shadow-testbed"]
    variables = {**GITLAB["variables"], **job["variables"], "SHADOW_HOME": str(home), "CI_PROJECT_DIR": str(project)}
    variables["CI_MERGE_REQUEST_DIFF_BASE_SHA"] = git(origin, "rev-parse", "drop")
    variables["CI_COMMIT_SHA"] = git(origin, "rev-parse", "remark")
    argv = ["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])]
    done = subprocess.run(
        argv, env={**os.environ, **variables}, capture_output=True, text=True, check=False, cwd=project
    )
    assert done.returncode == 0, done.stderr
    assert "nothing that can be tried changed below net/quick" in done.stdout
    for report in job["artifacts"]["reports"].values():
        assert (project / report).is_file()
    assert ET.parse(project / job["artifacts"]["reports"]["junit"]).getroot().get("failures") == "0"


# ---- pre-commit


def hook(top: Path) -> subprocess.CompletedProcess[str]:
    (entry,) = HOOKS
    assert entry["pass_filenames"] is False
    program, *words = shlex.split(entry["entry"])
    assert program == "testbed"
    return subprocess.run([TESTBED, *words], cwd=top, capture_output=True, text=True, check=False)


def test_the_hook_checks_what_is_staged_and_nothing_else(origin, tmp_path):
    top = tmp_path / "work"
    subprocess.run(["git", "clone", "-q", "--branch=base", str(origin), str(top)], check=True, capture_output=True)
    (top / FILE).write_text(RULES.format(more="").replace("--dport", "--dprt"))
    (top / "net/quick/configs/r1/frr.conf").write_text(FRR + "no such words\n")
    git(top, "add", "-A")
    (top / FILE).write_text(RULES.format(more=""))
    refused = hook(top)
    assert refused.returncode == 1, refused.stderr
    assert f"{FILE}:6: fw1 refuses it: iptables-restore" in refused.stderr
    assert re.search(r"net/quick/configs/r1/frr\.conf:3: r1 refuses it: .*no such words", refused.stderr)
    assert "vtysh.conf" not in refused.stderr


def test_the_hook_is_content_with_good_files_and_tells_a_bad_lab(origin, tmp_path):
    (entry,) = HOOKS
    assert re.search(entry["files"], FILE)
    top = tmp_path / "work"
    subprocess.run(["git", "clone", "-q", "--branch=base", str(origin), str(top)], check=True, capture_output=True)
    (top / FILE).write_text(RULES.format(more=DROP))
    git(top, "add", "-A")
    content = hook(top)
    assert content.returncode == 0, content.stderr
    assert content.stdout == "checked net/quick: fw1\n"
    lab = top / "net/quick/lab.yaml"
    lab.write_text(lab.read_text().replace("kind: router", "kind: ruter"))
    git(top, "add", "-A")
    refused = hook(top)
    assert refused.returncode == 2
    assert refused.stderr.startswith("net/quick/lab.yaml:14:13: found unknown kind 'ruter'")


# ---- the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "found no --base"),
        (["--base", "x", "--json", "--github"], "one of the two on standard output"),
        (["--base", "nope", "--repo", "{origin}"], "expected a commit, branch or tag"),
        (["--base", "base", "--repo", "{origin}", "--on-fail", "'open"], "a command with closed quotes"),
        (["--render", "{origin}"], "a run that has a verdict"),
    ],
)
def test_misuse_ends_with_2_and_leaves_nothing(origin, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["testbed", "gate", *(word.format(origin=origin) for word in words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("lab.yaml"))
