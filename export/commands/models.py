"""Commands `models show` and `models verify`: what a bundle says about itself, and whether it is right."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from export.bundle import find_bundle, open_bundle
from export.bundle.description import describe_bundle, describe_files, describe_indexes
from export.bundle.sharded import find_bundles
from export.commands.options import DIRECTORY, JSON_OPTION

REPOSITORY_OPTION = click.option(
    "--repository", type=DIRECTORY, help="Root of the model repository; without it, NAME is a bundle's directory."
)


@click.command()
@click.argument("name")
@REPOSITORY_OPTION
@JSON_OPTION
def show(name: str, repository: Path | None, *, as_json: bool) -> None:
    """Print what the bundle NAME says about itself: MODEL or MODEL:VERSION of the repository, or a directory.

    Its files are checked, but not every byte of them is read; `lowpass models verify` does that.

    Example: lowpass models show --repository demo/models student
    """
    path = find_bundle(name, repository)
    manifest = open_bundle(path, verify=False).manifest
    if as_json:
        click.echo(json.dumps({"path": str(path), **asdict(manifest)}))
        return
    parts = [describe_bundle(path, manifest), describe_indexes(manifest.index), describe_files(manifest)]
    click.echo("\n\n".join("\n".join(lines) for lines in parts if lines))


@click.command()
@click.argument("name")
@REPOSITORY_OPTION
@JSON_OPTION
def verify(name: str, repository: Path | None, *, as_json: bool) -> None:
    """Check every byte of the bundle NAME, its index, and what its graphs compute.

    NAME is MODEL or MODEL:VERSION of the repository, or a bundle's directory. Of a model whose users are in shards, the
    bundles of all are checked, each with a line, or a JSON object, of its own.

    Example: lowpass models verify --repository demo/models student:2
    """
    from export.build.verify import verify_bundle

    for path in find_bundles(name, repository):
        report = verify_bundle(path)
        if as_json:
            click.echo(json.dumps(report))
            continue
        click.echo(f"{path}: good. {report['files']} files, {report['bytes']:,} bytes, id {report['bundle_id'][:12]}")
        click.echo(f"index and graphs agree with the embeddings for {report['users_compared']} users")
