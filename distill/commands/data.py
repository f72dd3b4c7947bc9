"""`lowpass data`: prepare, fetch, synthesise and inspect interaction data."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
from tqdm import tqdm

from distill.commands.options import DIRECTORY, JSON
from distill.data.interactions import Interactions, describe, format_description, load_interactions, save_interactions
from distill.data.prepare import SPLIT_METHODS, PrepareOptions, prepare_source
from distill.data.public_sets import CATALOG, CatalogEntry, find_entry, take_local
from distill.data.public_sets import fetch as download
from distill.data.readers import READERS, ColumnNames
from distill.data.reading import format_understood
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.errors import SettingError

ANY_PATH = click.Path(path_type=Path)
SHARES = {"reading": 35, "drawing": 35, "filtering": 20, "splitting": 10, "numbering": 20, "writing": 15}
"""Stage of preparing → its part of the time, as 5 million interactions took it."""


@click.group()
def data() -> None:
    """Prepare, fetch, synthesise or inspect interaction data.

    Example: lowpass data synth demo/data && lowpass data inspect demo/data
    """


@data.command()
@click.argument("source", type=ANY_PATH)
@click.option("--out", type=DIRECTORY, required=True, help="Data directory to write.")
@click.option("--format", "format_name", type=click.Choice(list(READERS)), help="Default: told by the name.")
@click.option("--name", help="Name of the data set. Default: the output directory's.")
@click.option("--rating-min", type=float, help="Keep ratings of this and more. Default: keep all.")
@click.option("--user-min", type=click.IntRange(0), default=0, show_default=True, help="k-core of users.")
@click.option("--item-min", type=click.IntRange(0), default=0, show_default=True, help="k-core of items.")
@click.option(
    "--split",
    type=click.Choice(["auto", "ready", *SPLIT_METHODS]),
    default="auto",
    show_default=True,
    help="auto: ready where the source is split, else temporal where it has times, else random.",
)
@click.option("--ratios", default="8:1:1", show_default=True, help="Parts of train, validation, test.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --split random.")
@click.option("--user-column", help="Default: user_id or user, in any case.")
@click.option("--item-column", help="Default: item_id, movieId or item, in any case.")
@click.option("--rating-column", help="Default: rating, where there is one.")
@click.option("--timestamp-column", help="Default: timestamp, where there is one.")
@click.option(
    "--ids-as-written",
    is_flag=True,
    help="Keep spaces around ids and '.0' of whole numbers; take NaN, null, None … as ids. Default: dropped, refused.",
)
@click.option("--items", type=ANY_PATH, help="Item titles and categories: .csv, .tsv, .parquet or .item.")
@JSON
def prepare(
    source: Path,
    out: Path,
    format_name: str | None,
    name: str | None,
    ratios: str,
    as_json: bool,
    **rest: Any,
) -> None:
    """Read interactions from SOURCE (a file, or a set's folder), filter, split and store them.

    Prints what the source was taken for; what looks wrong goes to stderr. Text may be compressed (.gz, .zst). A folder
    of train, valid and test files (CSV, TSV, Parquet) is a split that is ready.

    Example: lowpass data prepare ratings.csv --out mydata --rating-min 4 --user-min 5 --split temporal
    """
    options = PrepareOptions(
        rating_minimum=rest["rating_min"],
        user_minimum=rest["user_min"],
        item_minimum=rest["item_min"],
        split=rest["split"],
        ratios=parse_ratios(ratios),
        seed=rest["seed"],
    )
    columns = ColumnNames(
        rest["user_column"],
        rest["item_column"],
        rest["rating_column"],
        rest["timestamp_column"],
        ids_as_written=rest["ids_as_written"],
    )
    with _Stages("reading") as stages:
        interactions = prepare_source(
            source,
            options,
            name=name or out.resolve().name,
            format_name=format_name,
            columns=columns,
            items=rest["items"],
            begin=stages.begin,
        )
        _save(interactions, out, stages)
    _report(interactions, out, as_json)


@data.command()
@click.argument("name", required=False)
@click.option("--out", type=DIRECTORY, help="Folder for the raw files. Default: raw/NAME.")
@click.option("--prepare", "prepared", type=DIRECTORY, help="Also prepare into this data directory.")
@click.option("--from-file", type=ANY_PATH, help="Take the set's file (or a folder of its files) from here.")
@click.option("--mirror", help="Base URL holding NAME/FILE, in place of the catalogue's.")
@JSON
def fetch(
    name: str | None,
    out: Path | None,
    prepared: Path | None,
    from_file: Path | None,
    mirror: str | None,
    as_json: bool,
) -> None:
    """Get a public data set by NAME, checksums verified; without NAME, list the catalogue.

    Example: lowpass data fetch ml-100k --prepare data/ml-100k
    """
    if name is None:
        _report_catalog(as_json)
        return
    entry = find_entry(name)
    out = out or Path("raw") / name
    files = take_local(entry, from_file, out) if from_file else download(entry, out, mirror=mirror)
    if prepared is not None:
        with _Stages("reading") as stages:
            interactions = prepare_source(
                out, entry.options, name=name, format_name=entry.format_name, begin=stages.begin
            )
            _save(interactions, prepared, stages)
        _report(interactions, prepared, as_json)
        return
    command = prepare_command(entry, out)
    if as_json:
        report = {"name": name, "files": [str(path) for path in files], "licence": entry.licence}
        click.echo(json.dumps(report | {"prepare": command}))
        return
    click.echo(f"{name}: {len(files)} files in {out}, checksums verified\nlicence: {entry.licence}")
    click.echo(f"next:    {command}")


@data.command()
@click.argument("out", type=DIRECTORY)
@click.option("--users", type=int, default=2000, show_default=True, help="Number of users.")
@click.option("--items", type=int, default=1500, show_default=True, help="Number of items.")
@click.option("--clusters", type=int, default=60, show_default=True, help="Number of tastes.")
@click.option("--interactions", type=float, default=40.0, show_default=True, help="Mean items per user.")
@click.option(
    "--breadth",
    type=float,
    default=0.004,
    show_default=True,
    help="Weight of what is outside a user's tastes. Their part of the draws is BREADTH × clusters : 1.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of everything.")
@JSON
def synth(out: Path, as_json: bool, **rest: Any) -> None:
    """Invent a data set into OUT: clustered tastes, Zipf popularity, item titles and categories.

    Example: lowpass data synth demo/data --users 2000 --items 1500 --seed 0
    """
    options = SyntheticOptions(
        rest["users"],
        rest["items"],
        rest["clusters"],
        mean_interactions=rest["interactions"],
        breadth=rest["breadth"],
        seed=rest["seed"],
    )
    with _Stages("drawing") as stages:
        interactions = synthesize(options, begin=stages.begin)
        _save(interactions, out, stages)
    _report(interactions, out, as_json)


@data.command()
@click.argument("directory", type=DIRECTORY)
@JSON
def inspect(directory: Path, as_json: bool) -> None:
    """Print counts, density, degrees, settings and sample items of a data DIRECTORY.

    Example: lowpass data inspect demo/data --json
    """
    description = describe(load_interactions(directory))
    click.echo(json.dumps(description) if as_json else format_description(description))


def prepare_command(entry: CatalogEntry, raw: Path) -> str:
    """Return the command that prepares a fetched set as the catalogue says."""
    words = ["lowpass", "data", "prepare", str(raw), "--out", str(Path("data") / entry.name)]
    words += ["--format", entry.format_name]
    if entry.options.rating_minimum is not None:
        words += ["--rating-min", f"{entry.options.rating_minimum:g}"]
    if entry.options.user_minimum:
        words += ["--user-min", str(entry.options.user_minimum)]
    return shlex.join([*words, "--split", entry.options.split])


def parse_ratios(text: str) -> tuple[int, int, int]:
    """Read "8:1:1".

    Raises:
        SettingError: It is not three whole numbers with the first at least 1.
    """
    parts = text.split(":")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts) or int(parts[0]) < 1:
        raise SettingError(f"--ratios '{text}': give three whole numbers, the first at least 1, such as 8:1:1")
    return int(parts[0]), int(parts[1]), int(parts[2])


class _Stages:
    """A bar of the stages of preparing, silent but on a terminal, each as long as its share of the time."""

    def __init__(self, first: str) -> None:
        self._share = 0
        total = sum(SHARES.values()) - SHARES["drawing" if first == "reading" else "reading"]
        self._bar = tqdm(total=total, bar_format="{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}", disable=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._bar.update(self._share)
        self._bar.close()

    def begin(self, stage: str) -> None:
        """The stage before is done; this one begins."""
        self._bar.set_description(stage, refresh=False)
        self._bar.update(self._share)
        self._bar.refresh()
        self._share = SHARES[stage]


def _save(interactions: Interactions, out: Path, stages: _Stages) -> None:
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    stages.begin("writing")
    save_interactions(interactions, out)


def _report(interactions: Interactions, out: Path, as_json: bool) -> None:
    report = {"directory": str(out), "name": interactions.name, "counts": interactions.counts}
    settings = dict(interactions.settings)
    report |= {"settings": settings, "fingerprint": interactions.fingerprint}
    understood = settings.get("understood", {})
    for warning in understood.get("warnings", []):
        click.echo(f"lowpass: warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps(report))
        return
    counts = ", ".join(f"{count:,} {name}" for name, count in interactions.counts.items())
    lines = format_understood(understood) if understood else []
    click.echo("\n".join([f"{interactions.name}: {counts}", *lines, f"written to {out}"]))


def _report_catalog(as_json: bool) -> None:
    entries = [
        {
            "name": entry.name,
            "description": entry.description,
            "bytes": sum(file.size for file in entry.files),
            "licence": entry.licence,
        }
        for entry in CATALOG.values()
    ]
    if as_json:
        click.echo(json.dumps({"sets": entries}))
        return
    for entry in entries:
        click.echo(f"{entry['name']:12} {entry['bytes']:>10,} bytes  {entry['description']}")
        click.echo(f"{'':30} licence: {entry['licence']}")
