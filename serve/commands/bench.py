"""`lowpass bench`: what callers of a running server see, and how models of a repository compare."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from serve.bench.comparison import Measurement
    from serve.bench.load import Asking, Generator
    from serve.bench.windows import Window

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
ONLY_MODELS = ("against", "rivals", "answer_tables", "rounds")
ONLY_SERVERS = (
    "target", "other", "compare_model", "bundle", "users_file", "k", "rate", "in_flight", "slo_ms", "find_rate",
    "processes", "windows",
)  # fmt: skip


@click.command()
@click.option("--target", default="127.0.0.1:50051", show_default=True, help="Where the server is.")
@click.option("--compare", "other", help="Ask this server too, in turn, pair by pair.")
@click.option("--bundle", type=FOLDER, help="Bundle whose users ask.")
@click.option("--users-file", type=FILE, help="Ids of users who ask, one a line, instead of a bundle's.")
@click.option("--model", default="", help="Ask this model.  [default: the server's]")
@click.option("--compare-model", default="", help="Ask this model of the other server.")
@click.option("-k", type=click.IntRange(1), default=20, show_default=True, help="Items an answer.")
@click.option("--users", "distribution", type=click.Choice(["uniform", "zipf"]), default="uniform", show_default=True,
              help="Who asks: everybody alike, or few users often.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Requests a second, Poisson: an open loop.")
@click.option("--in-flight", type=click.IntRange(1, 4096), help="Requests in flight: a closed loop.  [default: 1]")
@click.option("--slo-ms", type=click.FloatRange(0, min_open=True), help="Limit of the p99; goodput counts within it.")
@click.option("--find-rate", is_flag=True, help="Search the highest rate whose p99 keeps --slo-ms.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="Generating processes.")
@click.option("--windows", type=click.IntRange(3), default=10, show_default=True, help="Most windows, or pairs.")
@click.option("--repository", type=FOLDER, help="Compare models of this repository; each gets a server of its own.")
@click.option("--against", multiple=True, metavar="MODEL",
              help="Compare --model with this one; repeatable, the first is the teacher.")  # fmt: skip
@click.option("--rivals/--no-rivals", default=True, show_default=True,
              help="Also the teacher cut by SVD and product-quantised, at --model's bytes an item.")  # fmt: skip
@click.option("--answer-tables", is_flag=True, help="Also compare models that look answers up; the report says so.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Visits to each model.")
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Length of a window.")
@click.option("--seed", default=0, show_default=True, help="Of users and arrivals.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Write bench.json, bench.md, bench.png and, of servers, bench.hgrm here.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def bench(
    context: click.Context, /, *, repository: Path | None, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Load a running server and say what its callers see, or compare models of a repository.

    A running server (--target) is asked window after window until three agree within a tenth. In an open loop latency
    counts from when a request was meant to be sent.

    Models (--repository, --model, --against) are served in turn, each on a server of its own, with one request in
    flight and with 32; the report says what --model wins and loses.

    Example: lowpass bench --bundle models/student/1 --rate 500 --slo-ms 10 --out bench

    Example: lowpass bench --repository models --against teacher --model student --out bench
    """
    _refuse(context, ONLY_MODELS if repository is None else ONLY_SERVERS, of_models=repository is not None)
    found = _bench_servers(options) if repository is None else _bench_models(repository, options)
    written = _write(out, found) if out is not None else []
    if as_json:
        click.echo(json.dumps(found.content))
        return
    click.echo(found.summary if written and found.summary else found.report)
    if written:
        click.echo("\nwritten: " + ", ".join(map(str, written)))


@dataclass(frozen=True)
class _Found:
    """What one run of the command has to tell.

    Attributes:
        content: For `--json` and bench.json.
        report: For the terminal and bench.md.
        summary: For the terminal where the report goes to a file; empty for the report itself.
        draw: Makes bench.png; None where there is nothing to draw.
        more: Other files by name.
    """

    content: dict[str, Any]
    report: str
    summary: str
    draw: Callable[[], bytes] | None
    more: Mapping[str, bytes]


def _refuse(context: click.Context, names: Sequence[str], *, of_models: bool) -> None:
    """Refuse options that mean nothing in what is asked for."""
    for parameter in context.command.params:
        given = parameter.name and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
        if given and parameter.name in names:
            goes = "loads a running server and goes without" if of_models else "compares models and needs"
            raise click.UsageError(f"{parameter.opts[0]} {goes} --repository")


def _bench_servers(options: dict[str, Any]) -> _Found:
    rate, in_flight, other = options["rate"], options["in_flight"], options["other"]
    if rate is not None and in_flight is not None:
        raise click.UsageError("give --rate (open loop) or --in-flight (closed loop), not both")
    if options["find_rate"] and (options["slo_ms"] is None or other or rate is not None or in_flight is not None):
        raise click.UsageError("--find-rate needs --slo-ms, and goes without --rate, --in-flight and --compare")
    if (options["bundle"] is None) == (options["users_file"] is None):
        raise click.UsageError("give --bundle or --users-file: somebody must ask")
    from serve.bench.load import Asking

    asking = Asking(options["seconds"], rate, None if rate is not None else in_flight or 1, options["seed"])
    with ExitStack() as stack:
        first = stack.enter_context(_generator(options["target"], options["model"], options))
        if other is None:
            return _measure(first, asking, options)
        second = stack.enter_context(_generator(other, options["compare_model"] or options["model"], options))
        return _measure_pairs(first, second, asking, options)


def _generator(target: str, model: str, options: dict[str, Any]) -> Generator:
    from serve.bench.load import Generator
    from serve.bench.workload import Workload

    users: Sequence[str] = ()
    if options["users_file"] is not None:
        lines = options["users_file"].read_text(encoding="utf-8").splitlines()
        users = [line.strip() for line in lines if line.strip()]
    workload = Workload(model, options["k"], options["distribution"], options["seed"])
    return Generator(target, options["bundle"], workload, options["processes"], users)


def _measure(generator: Generator, asking: Asking, options: dict[str, Any]) -> _Found:
    from dataclasses import replace

    from serve.bench.experiments import find_rate, run_until_stable
    from serve.bench.report import describe, tabulate_windows

    target, slo_ms = generator.target, options["slo_ms"]
    if options["find_rate"]:
        rate = find_rate(generator.run, asking.seconds, slo_ms)
        if rate == 0:
            raise click.ClickException(f"{target}: not even one request a second keeps {slo_ms:g} ms")
        asking = replace(asking, rate=rate, in_flight=None)
    stable = run_until_stable(generator.run, asking, options["windows"])
    numbers = {target: describe(stable.window, slo_ms)}
    text = tabulate_windows(numbers)
    if not stable.is_stable:
        text += f"\n\nnot stable after {len(stable.windows)} windows: the last three differ by more than a tenth"
    content = {"targets": numbers, "is_stable": stable.is_stable, "windows": len(stable.windows)}
    return _tell_windows(content, text, {target: stable.window})


def _measure_pairs(first: Generator, second: Generator, asking: Asking, options: dict[str, Any]) -> _Found:
    from serve.bench.experiments import run_in_pairs
    from serve.bench.report import PAIR_FIGURES, describe, describe_pairs, tabulate_windows
    from serve.bench.windows import one_after_another

    pairs = run_in_pairs(first.run, second.run, asking, options["windows"])
    windows = {
        f"first {first.target}": one_after_another(pairs.first),
        f"second {second.target}": one_after_another(pairs.second),
    }
    numbers = {name: describe(window, options["slo_ms"]) for name, window in windows.items()}
    ratios = {name: pairs.ratios(figure) for name, figure in PAIR_FIGURES.items()}
    text = tabulate_windows(numbers) + "\n\n" + describe_pairs(pairs)
    return _tell_windows({"targets": numbers, "second_over_first": ratios}, text, windows)


def _tell_windows(content: dict[str, Any], text: str, windows: Mapping[str, Window]) -> _Found:
    from serve.bench.figures import draw_latencies
    from serve.bench.report import hgrm

    files = {
        "bench.hgrm" if number == 0 else f"bench-{number + 1}.hgrm": hgrm(window)
        for number, window in enumerate(windows.values())
        if window.answered
    }
    answered = {name: window.latencies for name, window in windows.items() if window.answered}
    return _Found(content, text, "", (lambda: draw_latencies(answered)) if answered else None, files)


def _bench_models(repository: Path, options: dict[str, Any]) -> _Found:
    model, against = options["model"], options["against"]
    if not model or not against:
        raise click.UsageError("--repository compares models: name one by --model and its teacher by --against")
    names = [model, *against]
    if len(set(names)) < len(names):
        raise click.UsageError(f"--model and --against name a model twice ({', '.join(names)}): name two models")
    from serve.bench.comparison import LoadOptions, gains_over
    from serve.bench.figures import draw_comparison
    from serve.bench.report import render, summarize
    from serve.bench.servers import plan_cores

    load, cores = (
        LoadOptions(options["seconds"], options["rounds"], options["distribution"], options["seed"]),
        plan_cores(),
    )
    with _children_ending_on_sigterm():
        measurements, notes = _visit_models(repository, options, load, cores)
    teacher, notes = measurements[0], [cores.note, *notes]
    content = {
        "load": asdict(load),
        "notes": notes,
        "models": [asdict(m) for m in measurements],
        "gains_over_teacher": {
            m.name: {name: round(gain.ratio, 4) for name, gain in gains_over(teacher, m).items()}
            for m in measurements[1:]
        },
    }
    report, summary = render(measurements, load, notes), summarize(measurements)
    return _Found(content, report, summary, lambda: draw_comparison(measurements), {})


def _visit_models(
    repository: Path, options: dict[str, Any], load: Any, cores: Any
) -> tuple[list[Measurement], list[str]]:
    from tqdm import tqdm

    from export.bundle.repository import ModelRepository
    from serve.bench.comparison import build_measurement, find_contestants, visit_all

    contestants, notes = find_contestants(
        ModelRepository(repository),
        options["model"],
        options["against"],
        rivals=options["rivals"],
        answer_tables=options["answer_tables"],
    )
    with tqdm(total=len(contestants) * load.rounds, desc="measuring", unit="visit", disable=None) as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        visits = visit_all(repository, contestants, load, cores, advance)
    return [build_measurement(contestant, visits[contestant.name]) for contestant in contestants], notes


@contextmanager
def _children_ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that no child is left behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(out: Path, found: _Found) -> list[Path]:
    from export.bundle.repository import write_file

    files = {
        "bench.json": (json.dumps(found.content, indent=2) + "\n").encode(),
        "bench.md": f"{found.report}\n".encode(),
    }
    files |= found.more
    if found.draw is not None:
        try:
            files["bench.png"] = found.draw()
        except ImportError:
            click.echo("no bench.png: the picture needs Matplotlib (pip install matplotlib)", err=True)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_file(out / name, data)
    return [out / name for name in files]
