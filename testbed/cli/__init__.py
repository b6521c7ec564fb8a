"""The command line: one file a command, exit codes for programs, plain words for people.

Exit codes everywhere: 0 pass, 1 fail (the change is bad), 2 usage or invalid input, 3 inconclusive,
4 the environment cannot do it or could not be restored.
"""

from __future__ import annotations

import sys
import traceback

import click
from rich.console import Console

from testbed import __version__
from testbed.cli.bench import bench
from testbed.cli.doctor import doctor
from testbed.cli.flows import flows
from testbed.cli.infer import infer_command
from testbed.cli.lab import lab
from testbed.cli.lab_run import run
from testbed.cli.model import model
from testbed.cli.report import report
from testbed.cli.up import up
from testbed.cli.whatif import whatif
from testbed.errors import CommandFailed, InvalidInput, NotReady, RevertFailed, Unsupported

USAGE, ENVIRONMENT, INTERRUPTED = 2, 4, 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="testbed")
def commands() -> None:
    """Before a network change reaches production: which of your real flows does it break, and which line is to blame?

    \b
    Example:
      testbed whatif topologies/shop --change topologies/shop/changes/block-https
    """


for command in (whatif, up, lab, report, bench, doctor, flows, infer_command, model):
    commands.add_command(command)
lab.add_command(run)


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
