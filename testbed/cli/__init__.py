"""The command line: one file a command, exit codes for programs, plain words for people.

Exit codes everywhere: 0 pass, 1 fail (the change is bad), 2 usage or invalid input, 3 inconclusive,
4 the environment cannot do it or could not be restored.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module

import click
from rich.console import Console

from testbed import __version__
from testbed.errors import CommandFailed, InvalidInput, NotReady, RevertFailed, Unsupported

USAGE, ENVIRONMENT, INTERRUPTED = 2, 4, 130
COMMANDS = {
    "bench": "testbed.cli.bench:bench",
    "detect": "testbed.cli.detect:detect_command",
    "doctor": "testbed.cli.doctor:doctor",
    "flows": "testbed.cli.flows:flows",
    "gate": "testbed.cli.gate:gate",
    "infer": "testbed.cli.infer:infer_command",
    "lab": "testbed.cli.lab:lab",
    "model": "testbed.cli.model:model",
    "rejudge": "testbed.cli.rejudge:rejudge",
    "report": "testbed.cli.report:report",
    "schema": "testbed.cli.schema:schema",
    "trace": "testbed.cli.trace:trace",
    "up": "testbed.cli.up:up",
    "whatif": "testbed.cli.whatif:whatif",
}
"""Where each command stands; only the one that is asked for is imported, because some bring half of the house."""


class _OnDemand(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        found: click.Command = getattr(import_module(module), name)
        return found


@click.group(cls=_OnDemand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="testbed")
def commands() -> None:
    """Before a network change reaches production: which of your real flows does it break, and which line is to blame?

    \b
    Example:
      testbed whatif topologies/shop --change topologies/shop/changes/block-https
    """


def main() -> None:
    """Run a command and turn what it raises into an exit code and a sentence."""
    told = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        sys.exit(commands.main(standalone_mode=False) or 0)
    except click.ClickException as misuse:
        misuse.show()
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt):
        told.print("interrupted; nothing is left running", style="yellow")
        sys.exit(INTERRUPTED)
    except InvalidInput as problem:
        told.print(str(problem), style="red", markup=False)
        sys.exit(USAGE)
    except (Unsupported, NotReady, CommandFailed, ChildProcessError) as problem:
        told.print(str(problem), style="red", markup=False)
        sys.exit(ENVIRONMENT)
    except RevertFailed as problem:
        told.print(str(problem), style="bold white on red", markup=False)
        sys.exit(ENVIRONMENT)
    except Exception:  # noqa: BLE001  a crash of ours must not read as a FAIL of the change
        traceback.print_exc()
        sys.exit(ENVIRONMENT)
