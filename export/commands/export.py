"""Commands `export`, `rivals`, `bundle` and `label`; what is heavy is imported when a command runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from export.bundle.manifest import QUALITY_NUMBERS
from export.bundle.repository import ModelRepository

if TYPE_CHECKING:
    from export.bundle.manifest import IndexCard, Manifest

EXISTING_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
REPOSITORY_OPTION = click.option("--repository", required=True, type=DIRECTORY, help="Root of the model repository.")


@click.command()
@click.argument("run", type=EXISTING_DIRECTORY)
@click.option("--data", required=True, type=EXISTING_DIRECTORY, help="Data directory the run was trained on.")
@REPOSITORY_OPTION
@click.option("--model", required=True, help="Name of the model in the repository.")
@click.option("--version", default="", help="Version, a positive integer.  [default: the next free one]")
@click.option("--label", default="stable", show_default=True, help="Label to point to it; '' for none.")
@click.option("--ann-recall", default=0.99, show_default=True, help="What the index must find of the exact top 20.")
@click.option(
    "--max-index-bytes-per-item",
    type=click.FloatRange(0, min_open=True),
    help="Bound on the index file.  [default: none]",
)
@click.option(
    "--answer-table", default=0, type=click.IntRange(0), help="Store the best N items of every user.  [default: none]"
)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option(
    "--seen",
    type=click.Choice(["train+validation", "all"]),
    default="train+validation",
    show_default=True,
    help="What users already have; 'all' for production, the default keeps test items answerable.",
)
@click.option("--teacher", type=EXISTING_DIRECTORY, help="Teacher run.  [default: the one the run names]")
@JSON_OPTION
def export(
    run: Path,
    data: Path,
    repository: Path,
    model: str,
    label: str,
    teacher: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn RUN into a bundle in a model repository.

    The index is chosen by measurement: exhaustive search, scalar and product codes, inverted lists and graphs are
    built and asked by users' own vectors on this machine; the quickest that finds --ann-recall is taken.

    Example: lowpass export demo/student --data demo/data --repository demo/models --model student
    """
    from distill.data.interactions import load_interactions
    from distill.run import open_run
    from export.build.publish import ExportOptions, export_run

    path = export_run(
        open_run(run),
        load_interactions(data),
        ModelRepository(repository),
        model,
        ExportOptions(label=label or None, **options),
        teacher=open_run(teacher) if teacher else None,
    )
    _report([path], as_json)


@click.command()
@REPOSITORY_OPTION
@click.option("--teacher", required=True, help="Model name of the teacher.")
@click.option("--dim", required=True, type=int, help="Dimension of the student to match in bytes per item.")
@JSON_OPTION
def rivals(repository: Path, teacher: str, dim: int, as_json: bool) -> None:
    """Build the undistilled rivals of a teacher at a student's bytes per item: SVD and PQ.

    Example: lowpass rivals --repository demo/models --teacher teacher --dim 16
    """
    from export.build.rivals import build_rivals

    _report(build_rivals(ModelRepository(repository), teacher, dim), as_json, listed=True)


@click.group()
def bundle() -> None:
    """Inspect or verify a bundle.

    Example: lowpass bundle verify demo/models/student/1
    """


@bundle.command()
@click.argument("path", type=EXISTING_DIRECTORY)
@JSON_OPTION
def inspect(path: Path, as_json: bool) -> None:
    """Print what the bundle at PATH says about itself, and open it without reading all of it.

    Example: lowpass bundle inspect demo/models/student/1
    """
    from export.bundle import open_bundle

    manifest = open_bundle(path, verify=False).manifest
    if as_json:
        click.echo(json.dumps({"path": str(path), **asdict(manifest)}))
        return
    click.echo("\n".join([*_describe(path, manifest), *_tabulate(manifest.index)]))
    for name, entry in sorted(manifest.files.items()):
        shape = "×".join(map(str, entry.shape)) if entry.shape is not None else ""
        click.echo(f"  {name:<36}{entry.bytes:>14,}  {entry.dtype or '':<8} {shape}".rstrip())


@bundle.command()
@click.argument("path", type=EXISTING_DIRECTORY)
@JSON_OPTION
def verify(path: Path, as_json: bool) -> None:
    """Check every byte of the bundle at PATH, its index, and what its graphs compute.

    Example: lowpass bundle verify demo/models/student/1
    """
    from export.build.verify import verify_bundle

    report = verify_bundle(path)
    if as_json:
        click.echo(json.dumps(report))
        return
    click.echo(f"{path}: good. {report['files']} files, {report['bytes']:,} bytes, id {report['bundle_id'][:12]}")
    click.echo(f"index and graphs agree with the embeddings for {report['users_compared']} users")


@click.group()
def label() -> None:
    """Show or move the labels of a model repository.

    Example: lowpass label set --repository demo/models student stable 2
    """


@label.command()
@REPOSITORY_OPTION
@click.argument("model", required=False)
@JSON_OPTION
def show(repository: Path, model: str | None, as_json: bool) -> None:
    """List versions and labels of MODEL, or of every model.

    Example: lowpass label show --repository demo/models
    """
    store = ModelRepository(repository)
    models = [model] if model else store.models()
    versions = {name: store.versions(name) for name in models}
    labels = {name: store.labels(name) for name in models}
    if as_json:
        click.echo(json.dumps({name: {"versions": versions[name], "labels": labels[name]} for name in models}))
        return
    for name in models:
        pointers = ", ".join(f"{key} → {value}" for key, value in labels[name].items()) or "no labels"
        click.echo(f"{name}: versions {', '.join(versions[name])}; {pointers}")


@label.command(name="set")
@REPOSITORY_OPTION
@click.argument("model")
@click.argument("name")
@click.argument("version")
@JSON_OPTION
def set_(repository: Path, model: str, name: str, version: str, as_json: bool) -> None:
    """Point label NAME of MODEL to VERSION (a version or another label), once that bundle verifies.

    Example: lowpass label set --repository demo/models student stable previous
    """
    from export.build.verify import verify_bundle

    store = ModelRepository(repository)
    verify_bundle(store.resolve(model, version))
    store.set_label(model, name, version)
    labels = store.labels(model)
    if as_json:
        click.echo(json.dumps({"model": model, "labels": labels}))
    else:
        click.echo(f"{model}: {name} → {labels[name]}")


def _report(paths: list[Path], as_json: bool, *, listed: bool = False) -> None:
    from export.bundle import open_manifest

    manifests = [(path, open_manifest(path)) for path in paths]
    if not as_json:
        click.echo("\n\n".join("\n".join(_describe(path, manifest)) for path, manifest in manifests))
        return
    found = [{"path": str(path), **asdict(manifest)} for path, manifest in manifests]
    click.echo(json.dumps({"bundles": found} if listed else found[0]))


def _describe(path: Path, manifest: Manifest) -> list[str]:
    model, counts, index = manifest.model, manifest.counts, manifest.index
    taught = f", teacher {model.teacher}" if model.teacher else ""
    search = "".join(f" {key}={value}" for key, value in index.search.items())
    of_original = [row["ann_recall_of_original"] for row in index.candidates if "ann_recall_of_original" in row]
    lossy = f" of its decoded vectors, {of_original[0]:.1%} of the teacher's" if of_original else ""
    found = f"{index.ann_recall:.1%} of the exact top {index.ann_recall_k}{lossy}"
    lines = [
        f"{path}: {model.name} version {model.version}, id {manifest.bundle_id[:12]}, {manifest.created}",
        f"  model    {model.backbone}, {model.method}, d = {model.dim}{taught}",
        f"  counts   {counts['users']:,} users, {counts['items']:,} items, {counts['seen']:,} seen",
        f"  bytes    {manifest.total_bytes:,}; {index.bytes_per_item:g} an item in the index",
        f"  index    {index.factory}{search}, finds {found}",
    ]
    if manifest.answer_table:
        lines.append(f"  answers  {manifest.answer_table} items ready for every user")
    known = [(key, manifest.quality.get(key)) for key in QUALITY_NUMBERS]
    numbers = [f"{key} {value:.4f}" for key, value in known if value is not None]
    if numbers:
        lines.append(f"  quality  {', '.join(numbers)}")
        lines.append(f"           {manifest.quality.get('convention', '')}")
    return lines


def _tabulate(index: IndexCard) -> list[str]:
    """The candidates that were measured; a star where none finds more, is quicker and smaller at once."""
    if not index.candidates:
        return []
    lines = [
        f"  {'index, * where no other beats it':<42}{'recall':>10}{'median µs':>11}{'bytes/item':>12}{'built in s':>12}"
    ]
    for row in index.candidates:
        name = f"{'*' if row.get('pareto') else ' '} {row.get('factory')}"
        name += "".join(f" {key}={value}" for key, value in row.get("search", {}).items())
        if "skipped" in row:
            lines.append(f"  {name:<42}  not built: {row['skipped']}")
            continue
        numbers = [row.get(key, "") for key in ("ann_recall", "median_us", "bytes_per_item", "build_seconds")]
        cells = (f"{number:>{width}}" for number, width in zip(numbers, (10, 11, 12, 12), strict=True))
        lines.append(f"  {name:<42}{''.join(cells)}".rstrip())
    return lines
