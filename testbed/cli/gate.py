"""`testbed gate`: two revisions of a config repository, and a verdict in whatever form a pipeline reads."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
from rich.console import Console

from testbed.cli.pair_options import excluded, pair_options
from testbed.devices.registry import known_devices
from testbed.errors import InvalidInput
from testbed.gate.checked import checked
from testbed.gate.decision import Decision, Event, Inconclusive, Mode, decided
from testbed.gate.github import command, quoted
from testbed.gate.hooks import HookRun, ran, words
from testbed.gate.markdown import MOST_CHARACTERS, Around
from testbed.gate.outputs import FORMATS, Outputs, step_summary, write_outputs
from testbed.gate.record import NAME, GateFile, HookEntry, LayoutEntry, read_gate
from testbed.gate.repository import INDEX, NOTHING, Repository
from testbed.gate.revisions import Compared, compared
from testbed.gate.rollback import FOLDER
from testbed.gate.unchanged import unchanged
from testbed.summary import print_summary
from testbed.verdict_file import VerdictFile, read_verdict
from testbed.visible import one_line

if TYPE_CHECKING:
    from testbed.whatif import Answer

PATH = click.Path(path_type=Path)
HOOK_FAILED = 4
REPLAY = ("session", "packet", "auto")


@click.command(
    epilog="\b\nExamples:\n  testbed gate --base origin/main --head HEAD --lab topologies/shop --junit verdict.xml\n"
    "  testbed gate --static\n  testbed gate --render runs/20261125T120000-shop-1a2b3c4d5..6e7f8091a-0c1d"
    " --markdown comment.md\n\n"
    "Exit codes: 0 pass, or nothing changed; 1 fail; 2 invalid input; 3 inconclusive; 4 not possible here, not "
    "restored, or the command of --on-pass failed."
)
@click.option("--base", metavar="REV", help="What exists. With --static: HEAD unless given.")
@click.option("--head", metavar="REV", help="What is to come: HEAD unless given. With --static: what is staged.")
@click.option("--repo", default=Path(), show_default=True, type=PATH, help="The config repository.")
@click.option("--lab", help="The lab: a folder of the repository, or one elsewhere that takes its configs from it.")
@click.option("--configs", metavar="DIR", help="Where the repository has a folder a node, for a lab elsewhere.")
@click.option("--static", "static", is_flag=True, help="Only check changed files, in seconds; no replay.")
@click.option("--render", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Write outputs of a run.")
@click.option("--capture", multiple=True, type=PATH, help="Use these captures or flow records, not the lab's own.")
@click.option("--policy", type=PATH, help="Use this policy.yaml, not the lab's own.")
@click.option("--expect", type=PATH, help="What is expected of the change, in the place of the head's expect.yaml.")
@click.option("--speed", type=click.FloatRange(min=0.01), help="Replay this many times faster than captured.")
@pair_options
@click.option("--replay", default="auto", show_default=True, type=click.Choice(REPLAY))
@click.option("--max-flows", type=click.IntRange(min=1), help="Replay at most so many flows, the critical ones first.")
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of losses and of what is chosen."
)
@click.option("--preflight-only", is_flag=True, help="Judge by one flow of every class, in seconds.")
@click.option("--runs", default=Path("runs"), show_default=True, type=PATH, help="Where runs are kept.")
@click.option(
    "--mode",
    default=Mode.ENFORCE.value,
    show_default=True,
    type=click.Choice([m.value for m in Mode]),
    help="observe: say what it would have been, never end with 1 or 3, and run no command.",
)
@click.option(
    "--inconclusive",
    default=Inconclusive.FAIL.value,
    show_default=True,
    type=click.Choice([i.value for i in Inconclusive]),
    help="When it cannot be told: end with 3, warn and end with 0, or end with 0.",
)
@click.option("--on-fail", metavar="COMMAND", help="Run this on FAIL; words, no shell; told by TESTBED_* variables.")
@click.option("--on-pass", metavar="COMMAND", help="Run this on PASS.")
@click.option("--junit", type=PATH, help="Write JUnit XML, a case for each KPI of each class.")
@click.option("--sarif", type=PATH, help="Write SARIF 2.1.0 for code scanning, on blamed lines.")
@click.option("--markdown", type=PATH, help="Write Markdown for a comment on the merge request.")
@click.option("--codequality", type=PATH, help="Write GitLab's code quality report.")
@click.option("--metrics", type=PATH, help="Write OpenMetrics text.")
@click.option("--github", is_flag=True, help="Print annotations for a GitHub workflow: the worst ten.")
@click.option("--comment-id", default="", metavar="ID", help="Tells this gate's comment from another's.")
@click.option("--max-chars", default=MOST_CHARACTERS, show_default=True, type=click.IntRange(min=1000), metavar="N")
@click.option("--json", "as_json", is_flag=True, help="Print verdict.json and nothing else.")
@click.option("--quiet", is_flag=True, help="No progress.")
def gate(  # noqa: PLR0913, PLR0917  an argument an option
    base: str | None,
    head: str | None,
    repo: Path,
    lab: str | None,
    configs: str | None,
    static: bool,
    render: Path | None,
    capture: tuple[Path, ...],
    policy: Path | None,
    expect: Path | None,
    speed: float | None,
    baseline: int | None,
    treatment: int | None,
    pairs: int | None,
    budget: float | None,
    window: float | None,
    design: str,
    replay: str,
    max_flows: int | None,
    seed: int,
    preflight_only: bool,
    runs: Path,
    mode: str,
    inconclusive: str,
    on_fail: str | None,
    on_pass: str | None,
    junit: Path | None,
    sarif: Path | None,
    markdown: Path | None,
    codequality: Path | None,
    metrics: Path | None,
    github: bool,
    comment_id: str,
    max_chars: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """Try what changed from BASE to HEAD in a config repository on a shadow, and tell a pipeline.

    The lab is as it is at BASE; the changed configs below it, and links of its lab.yaml, are the change. No work tree
    is touched. Policy and captures are the base's. Where $GITHUB_STEP_SUMMARY is set, the summary is added to it.
    """
    if as_json and github:
        raise click.UsageError("found --json and --github, expected one of the two on standard output")
    excluded(
        pairs=pairs,
        budget=budget,
        window=window,
        design=design,
        speed=speed,
        treatment=treatment,
        preflight_only=preflight_only,
    )
    if static:
        return _static(repo, base, head, lab, github=github)
    asked = {"junit": junit, "sarif": sarif, "markdown": markdown, "codequality": codequality, "metrics": metrics}
    assert asked.keys() == FORMATS.keys()
    files = {name: path for name, path in asked.items() if path is not None}
    outputs = Outputs(files, github, max_chars, step_summary())
    if render is not None:
        return _render(render, outputs, as_json=as_json)
    if base is None:
        raise click.UsageError("found no --base, expected --base REV, --static or --render RUN")
    # a static check is to be quick, and the house is large
    from testbed.packet_flows import Manner  # noqa: PLC0415
    from testbed.packet_flows import Mode as Replay  # noqa: PLC0415
    from testbed.plan import BudgetTooShort, Design, DuetUnfit  # noqa: PLC0415
    from testbed.whatif import Question, answered, stamped  # noqa: PLC0415

    told = Console(stderr=True, highlight=False, quiet=quiet or as_json, soft_wrap=True)
    commands = {
        event: words(written, f"--{event}")
        for event, written in ((Event.ON_FAIL, on_fail), (Event.ON_PASS, on_pass))
        if written is not None
    }
    work = runs.absolute() / "revisions" / stamped()
    try:
        kinds = frozenset(known_devices())
        found = compared(Repository.containing(repo), base, head or "HEAD", lab, work, configs=configs, kinds=kinds)
        for note in found.notes:
            told.print(f"note: {note}", markup=False, style="yellow")
        if found.is_empty:
            shutil.rmtree(work)
            return _nothing(found, outputs, comment_id, as_json=as_json)
        question = Question(
            str(found.lab),
            found.change,
            runs,
            capture or found.captures,
            policy,
            speed,
            baseline,
            treatment,
            pairs,
            budget,
            window,
            max_flows,
            preflight_only=preflight_only,
            manner=Manner(Replay(replay), seed=seed),
            layout=found.layout,
            design=Design(design),
            expect=expect,
            intents=expect is not None or found.intents,
        )
        progress = Console(stderr=True, highlight=False, quiet=quiet or as_json or not sys.stderr.isatty())
        try:
            answer = answered(question, progress)
        except InvalidInput as problem:
            raise found.located(problem) from None
        except BudgetTooShort as expected:
            raise click.BadParameter(str(expected), param_hint="--budget") from None
        except DuetUnfit as expected:
            raise click.BadParameter(str(expected), param_hint="--design") from None
    except (InvalidInput, click.BadParameter):
        shutil.rmtree(work, ignore_errors=True)
        raise
    decision = decided(
        answer.verdict.verdict,
        restored=answer.outcome.restored,
        mode=Mode(mode),
        inconclusive=Inconclusive(inconclusive),
    )
    hook = _acted(decision, commands, answer, found)
    if decision.event is None and commands:
        told.print("note: no command was run", markup=False, style="yellow")
    exit_code = HOOK_FAILED if hook and decision.event is Event.ON_PASS and not hook.succeeded else decision.exit_code
    kept = GateFile(
        base=found.base,
        head=found.head,
        repository=str(repo.absolute()),
        changed=found.changed,
        notes=found.notes,
        mode=mode,
        inconclusive=inconclusive,
        exit_code=exit_code,
        note=decision.note,
        comment_id=comment_id,
        layout=LayoutEntry(lab=found.layout.lab, configs=found.layout.configs, moved=found.layout.moved),
        hooks=() if hook is None else (HookEntry(**hook.to_json(), told=hook.told),),
    )
    answer.run.write_json(NAME, kept.model_dump(mode="json"))
    _told(answer.run.path, answer.verdict, kept, outputs, as_json=as_json)
    return exit_code


def _acted(
    decision: Decision, commands: dict[Event, tuple[str, ...]], answer: Answer, found: Compared
) -> HookRun | None:
    """Run the pipeline's own command for this verdict, if it has one."""
    if decision.event is None or decision.event not in commands:
        return None
    run = answer.run.path
    environment = {
        "TESTBED_RUN": str(run),
        "TESTBED_VERDICT": answer.verdict.verdict,
        "TESTBED_VERDICT_FILE": str(run / "verdict.json"),
        "TESTBED_REPORT": str(answer.report),
        "TESTBED_ROLLBACK": str(run / FOLDER) if (run / FOLDER).is_dir() else "",
        "TESTBED_BASE": found.base,
        "TESTBED_HEAD": found.head,
    }
    log = run / "logs" / f"{decision.event}.log"
    log.parent.mkdir(exist_ok=True)
    return ran(decision.event.value, commands[decision.event], environment, log)


def _told(run: Path, verdict: VerdictFile, kept: GateFile, outputs: Outputs, *, as_json: bool) -> None:
    """Write what was asked for, and say the verdict."""
    around = Around(
        comment_id=kept.comment_id,
        report=str(run / "report.html"),
        rollback=(run / FOLDER).is_dir(),
        note=kept.note,
        hooks=tuple(hook.told for hook in kept.hooks),
    )
    printed = write_outputs(verdict, kept.layout.layout, around, outputs)
    if as_json:
        click.echo((run / "verdict.json").read_text(), nl=False)
        return
    page = StringIO() if outputs.github else sys.stdout
    print_summary(verdict, run / "report.html", Console(file=page, highlight=False))
    for said in (kept.note, *(f"{hook.told}\n{hook.output_tail}".rstrip() for hook in kept.hooks)):
        if said:
            print(said, file=page)
    if around.rollback:
        print(f"The way back: {run / FOLDER}", file=page)
    if isinstance(page, StringIO):
        click.echo(quoted(page.getvalue()), nl=False)
    for line in printed:
        click.echo(line)


def _nothing(found: Compared, outputs: Outputs, comment_id: str, *, as_json: bool) -> int:
    """Nothing below the lab changed: there is nothing to run, and the files that are waited for say so."""
    where = found.layout.lab or found.layout.configs or "the top"
    reason = f"nothing that can be tried changed below {where}: {found.change.name}"
    verdict = unchanged(found.name, found.change.name, datetime.now(UTC).isoformat(timespec="milliseconds"), reason)
    write_outputs(verdict, found.layout, Around(comment_id=comment_id), outputs)
    if as_json:
        click.echo(verdict.model_dump_json(by_alias=True, indent=2))
    else:
        click.echo(one_line(reason))
    return 0


def _render(run: Path, outputs: Outputs, *, as_json: bool) -> int:
    try:
        verdict = read_verdict(run)
    except FileNotFoundError:
        raise InvalidInput(run / "verdict.json", 1, 1, "no such file", "a run that has a verdict") from None
    except ValueError as problem:
        raise InvalidInput(run / "verdict.json", 1, 1, one_line(str(problem))[:200], "a verdict of schema 1") from None
    _told(run, verdict, read_gate(run), outputs, as_json=as_json)
    return 0


def _static(repo: Path, base: str | None, head: str | None, lab: str | None, *, github: bool) -> int:
    repository = Repository.containing(repo)
    if base is None:
        base = "HEAD" if repository.has("HEAD") else NOTHING
    with TemporaryDirectory(prefix="testbed-gate-") as work:
        found = checked(repository, base, INDEX if head is None else head, lab, Path(work), known_devices())
    for one in found.objections:
        place = one.file + (f":{one.line}" if one.line is not None else "")
        click.echo(f"{one_line(place)}: {one_line(one.node)} refuses it: {one_line(one.message)}", err=True)
        if github:
            at = {"file": one.file, **({"line": str(one.line)} if one.line is not None else {})}
            click.echo(command("error", at, f"{one.node} refuses it: {one.message}"))
    if not found.objections:
        labs = ", ".join(each if each != "." else "the lab" for each in found.labs)
        nodes = f": {', '.join(found.nodes)}" if found.nodes else ", no node's files"
        click.echo(f"checked {labs}{nodes}" if labs else "nothing changed below a lab")
    return 1 if found.objections else 0
