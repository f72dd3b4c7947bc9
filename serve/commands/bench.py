"""`lowpass bench`: how fast a running server answers, and how fast it can."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.bench.generator import Asking, Generator

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--target", default="127.0.0.1:50051", show_default=True, help="Where the server is.")
@click.option("--compare", "other", help="Ask this server too, in turn, pair by pair.")
@click.option("--bundle", type=FOLDER, help="Bundle whose users ask.")
@click.option("--users-file", type=FILE, help="Ids of users who ask, one a line, instead of a bundle's.")
@click.option("--model", default="", help="Ask this model.  [default: the server's]")
@click.option("--compare-model", default="", help="Ask this model of the other server.")
@click.option("-k", type=click.IntRange(1), default=20, show_default=True, help="Items an answer.")
@click.option("--users", "distribution", type=click.Choice(["uniform", "zipf"]), default="uniform", show_default=True)
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests a second, Poisson: an open loop.")
@click.option("--in-flight", type=click.IntRange(1, 4096), help="Requests in flight: a closed loop.  [default: 1]")
@click.option("--slo-ms", type=click.FloatRange(0, min_open=True), help="Limit of the p99; goodput counts within it.")
@click.option("--find-rate", is_flag=True, help="Search the highest rate whose p99 keeps --slo-ms.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Generating processes.")
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Length of a window.")
@click.option("--windows", type=click.IntRange(3), default=10, show_default=True, help="Most windows, or pairs.")
@click.option("--seed", default=0, show_default=True, help="Of users and arrivals.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write bench.json, .hgrm and .png here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    *, target: str, other: str | None, rate: float | None, in_flight: int | None, slo_ms: float | None,
    find_rate: bool, out: Path | None, as_json: bool, **options: Any,
) -> None:  # fmt: skip
    """Load a running server and say what its callers see.

    Windows follow one another until three agree within a tenth. In an open loop latency counts from when a request was
    meant to be sent.

    Example: lowpass bench --bundle models/student/1 --rate 500 --slo-ms 10 --out bench
    """
    if rate is not None and in_flight is not None:
        raise click.UsageError("give --rate (open loop) or --in-flight (closed loop), not both")
    if find_rate and (slo_ms is None or other or rate is not None or in_flight is not None):
        raise click.UsageError("--find-rate needs --slo-ms, and goes without --rate, --in-flight and --compare")
    if (options["bundle"] is None) == (options["users_file"] is None):
        raise click.UsageError("give --bundle or --users-file: somebody must ask")
    from serve.bench.generator import Asking

    asking = Asking(options["seconds"], rate, None if rate is not None else in_flight or 1, options["seed"])
    with ExitStack() as stack:
        first = stack.enter_context(_generator(target, options["model"], options))
        if other is not None:
            second = stack.enter_context(_generator(other, options["compare_model"] or options["model"], options))
            found = _compare(first, second, asking, options["windows"], slo_ms)
        else:
            found = _measure(first, asking, options["windows"], slo_ms, find=find_rate)
    _tell(found, out, as_json)


def _generator(target: str, model: str, options: dict[str, Any]) -> Generator:
    from serve.bench.generator import Generator
    from serve.bench.workload import Workload

    users: Sequence[str] = ()
    if options["users_file"] is not None:
        users = [
            line.strip() for line in options["users_file"].read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    workload = Workload(model, options["k"], options["distribution"], options["seed"])
    return Generator(target, options["bundle"], workload, options["processes"], users)


def _measure(generator: Generator, asking: Asking, windows: int, slo_ms: float | None, *, find: bool) -> dict[str, Any]:
    from dataclasses import replace

    from serve.bench.experiments import find_rate, run_until_stable
    from serve.bench.report import describe, render

    if find and slo_ms is not None:
        rate = find_rate(generator.run, asking.seconds, slo_ms)
        if rate == 0:
            raise click.ClickException(f"{generator.target}: not even one request a second keeps {slo_ms:g} ms")
        asking = replace(asking, rate=rate, in_flight=None)
    stable = run_until_stable(generator.run, asking, windows)
    numbers = describe(stable.window, slo_ms)
    text = render({generator.target: numbers})
    if not stable.is_stable:
        text += f"\n\nnot stable after {len(stable.windows)} windows: the last three differ by more than a tenth"
    result = {"targets": {generator.target: numbers}, "is_stable": stable.is_stable, "windows": len(stable.windows)}
    return {"text": text, "result": result, "windows": {generator.target: stable.window}}


def _compare(first: Generator, second: Generator, asking: Asking, rounds: int, slo_ms: float | None) -> dict[str, Any]:
    from serve.bench.experiments import compare
    from serve.bench.report import describe, render, render_comparison
    from serve.bench.window import one_after_another

    comparison = compare(first.run, second.run, asking, rounds)
    names = (f"first {first.target}", f"second {second.target}")
    merged = {
        name: one_after_another(part) for name, part in zip(names, (comparison.first, comparison.second), strict=True)
    }
    numbers = {name: describe(window, slo_ms) for name, window in merged.items()}
    ratios = {
        "answers_per_second": comparison.ratios(lambda window: window.throughput),
        "p50": comparison.ratios(lambda window: window.at(50)),
        "p99": comparison.ratios(lambda window: window.at(99)),
    }
    text = render(numbers) + "\n\n" + render_comparison(comparison)
    return {"text": text, "result": {"targets": numbers, "second_over_first": ratios}, "windows": merged}


def _tell(found: dict[str, Any], out: Path | None, as_json: bool) -> None:
    if out is not None:
        from export.bundle.repository import write_file
        from serve.bench.report import draw, hgrm

        out.mkdir(parents=True, exist_ok=True)
        write_file(out / "bench.json", (json.dumps(found["result"], indent=2) + "\n").encode())
        for number, window in enumerate(found["windows"].values()):
            if window.answered:
                write_file(out / ("bench.hgrm" if number == 0 else f"bench-{number + 1}.hgrm"), hgrm(window))
        answered = {name: window.latencies for name, window in found["windows"].items() if window.answered}
        if answered:
            write_file(out / "bench.png", draw(answered))
    click.echo(json.dumps(found["result"]) if as_json else found["text"])
