"""`testbed bench`: the testbed measures itself, beside references in the same run."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from testbed.cli.bench_judge import judge_command
from testbed.cli.bench_mutants import mutants_command
from testbed.cli.bench_told import AS_JSON, told


@click.group()
def bench() -> None:
    """Measure the testbed itself; a ratio above 1 means better than the reference of the same run."""


@bench.command("build", epilog="\b\nExample:\n  testbed bench build --nodes 200 --json")
@click.option("--nodes", default=200, show_default=True, type=click.IntRange(2, 5000), help="Nodes in the row.")
@AS_JSON
def build_command(nodes: int, as_json: bool) -> int:
    """Build and take down a row of nodes with addresses, routes and rates; references: stock Mininet, the kernel."""
    from testbed.bench.build import bench_build  # noqa: PLC0415  stock Mininet is imported only to be measured

    return told(bench_build(nodes), as_json)


@bench.command("churn", epilog="\b\nExample:\n  testbed bench churn --cycles 40 --json")
@click.option("--nodes", default=20, show_default=True, type=click.IntRange(2, 1000), help="Nodes in the row.")
@click.option("--cycles", default=40, show_default=True, type=click.IntRange(4, 10_000), help="How many times.")
@AS_JSON
def churn_command(nodes: int, cycles: int, as_json: bool) -> int:
    """Make and unmake shadows again and again: nothing gets slower, nothing is left; reference: stock Mininet."""
    from testbed.bench.churn import bench_churn  # noqa: PLC0415  as above

    return told(bench_churn(nodes, cycles), as_json)


@bench.command("links", epilog="\b\nExample:\n  testbed bench links --json")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the losses.")
@AS_JSON
def links_command(seed: int, as_json: bool) -> int:
    """Hold every engine that impairs links here against what it was asked; reference: a bare veth pair, and netem."""
    from testbed.bench.links import bench_links  # noqa: PLC0415  as above

    return told(bench_links(seed), as_json)


@bench.command(
    "fidelity",
    epilog="\b\nExample:\n  testbed bench fidelity topologies/shop/traffic/internet.pcap\n\n"
    "Exit codes: 0 every flow of grade payload is equal, 1 one is not, 3 the window was not valid.",
)
@click.argument("capture", type=click.Path(path_type=Path))
@click.option(
    "--speed", default=1.0, show_default=True, type=click.FloatRange(0.01, 1000), help="How many times faster."
)
@click.option(
    "--longest-silence",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0.01),
    metavar="SECONDS",
    help="Shorten what the whole capture is silent for longer than that.",
)
@AS_JSON
def fidelity_command(capture: Path, speed: float, longest_silence: float, as_json: bool) -> int:
    """Replay CAPTURE on a network that does nothing to it, capture it again there, and compare flow by flow."""
    from testbed.bench.fidelity import bench_fidelity  # noqa: PLC0415  as above
    from testbed.bench.fidelity_report import print_fidelity  # noqa: PLC0415  as above

    report = bench_fidelity(capture, speed, longest_silence)
    if as_json:
        click.echo(json.dumps(report.document(), indent=2))
    else:
        print_fidelity(report, Console(highlight=False, soft_wrap=True))
        told(report.result, as_json=False)
    return report.exit_code


@bench.command("noise", epilog="\b\nExample:\n  testbed bench noise --json")
@click.option("--seconds", default=4.0, show_default=True, type=click.FloatRange(0.1, 60), help="Of each measurement.")
@AS_JSON
def noise_command(seconds: float, as_json: bool) -> int:
    """Say how delays stray where nothing changes, idle and busy, rootless; reference: stamps in user space."""
    from testbed.bench.noise import bench_noise  # noqa: PLC0415  as above

    return told(bench_noise(seconds), as_json)


@bench.command("replay", epilog="\b\nExample:\n  testbed bench replay --json")
@click.option(
    "--seconds", default=1.0, show_default=True, type=click.FloatRange(0.2, 30), help="Of traffic at every rate tried."
)
@AS_JSON
def replay_command(seconds: float, as_json: bool) -> int:
    """Find how many flows a second are re-enacted on time; references: uvloop and C doing the same exchange."""
    from testbed.bench.replay.bench import bench_replay  # noqa: PLC0415  uvloop is imported only to be measured

    return told(bench_replay(seconds), as_json)


@bench.command("packet", epilog="\b\nExample:\n  testbed bench packet --json")
@click.option("--seconds", default=10.0, show_default=True, type=click.FloatRange(1, 60), help="Of packets.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the gaps.")
@AS_JSON
def packet_command(seconds: float, seed: int, as_json: bool) -> int:
    """Send irregular packets on absolute time, and as fast as can be; reference: tcpreplay on the same packets."""
    from testbed.bench.packet import bench_packet  # noqa: PLC0415  as above

    return told(bench_packet(seconds, seed), as_json)


@bench.command("detect", epilog="\b\nExample:\n  testbed bench detect --json\n  testbed bench detect --corpus nab/")
@click.option("--corpus", type=click.Path(path_type=Path, file_okay=False), help="Series and windows.json, as NAB's.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Of everything drawn.")
@AS_JSON
def detect_command(corpus: Path | None, seed: int, as_json: bool) -> int:
    """Score anomaly detection on a labelled corpus, settings held out; references: random scores and one-liners."""
    from testbed.bench.detect import bench_detect  # noqa: PLC0415  as above

    return told(bench_detect(corpus, seed), as_json)


@bench.command("ingest", epilog="\b\nExample:\n  testbed bench ingest --octets 1G --json")
@click.option("--octets", default="1G", show_default=True, help="Size of the synthetic capture: 64M, 1G.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the synthetic capture.")
@click.option("--packed", is_flag=True, help="Meter its gzip too, whose making takes a minute.")
@AS_JSON
def ingest_command(octets: str, seed: int, packed: bool, as_json: bool) -> int:
    """Meter a large synthetic capture, with its peak memory; references: nfpcapd, and dpkt with a dictionary."""
    from testbed.bench.ingest import bench_ingest, octets_of  # noqa: PLC0415  as above

    try:
        size = octets_of(octets)
    except ValueError:
        raise click.BadParameter(f"{octets!r} is no size between 1M and 64G", param_hint="--octets") from None
    return told(bench_ingest(size, seed, packed=packed), as_json)


bench.add_command(judge_command)
bench.add_command(mutants_command)
