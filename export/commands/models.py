"""Commands `models show` and `models verify`: what a bundle says about itself, and whether it is right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from export.bundle import Place, find_bundle, open_bundle, open_repository
from export.bundle.description import describe_bundle, describe_files, describe_indexes
from export.bundle.opening import find_bundles, parse_place
from export.bundle.s3.address import is_s3
from export.commands.options import JSON_OPTION

REPOSITORY_OPTION = click.option(
    "--repository",
    type=parse_place,
    metavar="DIR|URL",
    help="The model repository, a directory or s3://BUCKET/PREFIX; without it, NAME is a bundle's directory.",
)


@click.command()
@click.argument("name")
@REPOSITORY_OPTION
@JSON_OPTION
def show(name: str, repository: Place | None, *, as_json: bool) -> None:
    """Print what the bundle NAME says about itself: MODEL or MODEL:VERSION of the repository, or a directory.

    Its files are checked, but not every byte of them is read; `lowpass models verify` does that.

    Example: lowpass models show --repository demo/models student
    """
    if repository is None:
        path: Path | str = find_bundle(name)
        manifest = open_bundle(path, verify=False).manifest
    else:
        model, _, revision = name.partition(":")
        opened = open_repository(repository)
        version = opened.version_of(model, revision or None)
        path, manifest = opened.address(model, version), opened.manifest(model, version)
    if as_json:
        click.echo(json.dumps({"path": str(path), **asdict(manifest)}))
        return
    parts = [describe_bundle(path, manifest), describe_indexes(manifest.index), describe_files(manifest)]
    click.echo("\n\n".join("\n".join(lines) for lines in parts if lines))


@click.command()
@click.argument("name")
@REPOSITORY_OPTION
@JSON_OPTION
def verify(name: str, repository: Place | None, *, as_json: bool) -> None:
    """Check every byte of the bundle NAME, its index, and what its graphs compute.

    NAME is MODEL or MODEL:VERSION of the repository, or a bundle's directory. Of a model whose users are in shards, the
    bundles of all are checked, each with a line, or a JSON object, of its own. From s3:// the version is brought anew,
    and versions of MODEL that are not whole are named.

    Example: lowpass models verify --repository demo/models student:2
    """
    from export.build.verify import verify_bundle

    with _found(name, repository) as found:
        for where, path in found:
            report = verify_bundle(path)
            if as_json:
                click.echo(json.dumps(report))
                continue
            click.echo(
                f"{where}: good. {report['files']} files, {report['bytes']:,} bytes, id {report['bundle_id'][:12]}"
            )
            click.echo(f"index and graphs agree with the embeddings for {report['users_compared']} users")


@contextmanager
def _found(name: str, repository: Place | None) -> Iterator[list[tuple[str, Path]]]:
    """Bundles, and what they are called; those of an object store are brought anew, so that its bytes are looked at."""
    if repository is None or not is_s3(repository):
        yield [(str(path), path) for path in find_bundles(name, repository)]
        return
    from export.bundle.s3.repository import S3Repository, describe_unfinished

    model, _, revision = name.partition(":")
    with TemporaryDirectory(prefix="lowpass-verify-") as directory:
        opened = open_repository(repository, mirror=Path(directory), say=lambda text: click.echo(text, err=True))
        if isinstance(opened, S3Repository):
            for version, latest in opened.unfinished(model).items():
                click.echo(describe_unfinished(opened.address(model, version), latest), err=True)
        version = opened.version_of(model, revision or None)
        yield [(opened.address(model, version), opened.fetch(model, version))]
