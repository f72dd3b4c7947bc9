"""The one way to a repository, wherever it is: a directory, or `s3://BUCKET/PREFIX`.

What works on models and versions is handed a `Repository` and does not know which it is. An object store's driver is
imported only when such a place is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.bundle.errors import ExportError, NotABundle, RepositoryError, StoreExtraMissing
from export.bundle.manifest import MANIFEST_FILE
from export.bundle.repository import ModelRepository, shard_folders
from export.bundle.s3.address import S3Address, is_s3
from export.bundle.shard import UserShard
from export.bundle.sharded import ShardedRepository
from export.bundle.versions import Publisher, Repository

Place = str | Path
"""A directory, or the text `s3://BUCKET/PREFIX`."""
Say = Callable[[str], None]


def parse_place(text: str) -> Place:
    """Read what a user gives as a repository.

    Raises:
        ExportError: It is no address of a bucket.
        RepositoryError: It is a file.
    """
    if is_s3(text):
        return str(S3Address.parse(text))
    if Path(text).is_file():
        raise RepositoryError(f"{text}: is a file; give a directory, or s3://BUCKET/PREFIX")
    return Path(text)


def open_repository(
    place: Place, *, mirror: Path | None = None, spare: int = 2, serves: bool = False, say: Say | None = None
) -> Repository:
    """Open a repository; nothing is read yet.

    Args:
        place: Where it is.
        mirror: Of an object store, the directory on this machine where its versions are kept; None for one in the
            user's cache.
        spare: Of an object store, versions that are kept there although no label and nobody who serves needs them.
        serves: Of an object store, read from the mirror where the store does not answer; `Repository.stale` says so.
        say: Told what was found half done, what is brought and how far that is; None for nobody.

    Raises:
        ExportError: It is no address of a bucket.
        StoreExtraMissing: The store's driver is not installed.
        RepositoryError: The mirror is another repository's.
    """
    if not is_s3(place):
        return ModelRepository(Path(place))
    try:
        from export.bundle.s3.repository import open_s3
    except ImportError as error:
        raise StoreExtraMissing(f"{place}: needs obstore ({error}): pip install 'lowpass[s3]'") from error
    return open_s3(S3Address.parse(str(place)), mirror, spare=spare, serves=serves, say=say or (lambda _: None))


def open_publisher(place: Place, user_shards: int | None = None, say: Say | None = None) -> Publisher:
    """Open a repository to publish there, with the users in shards where a number is given; raises as above.

    Raises:
        ExportError: Shards are published into a directory only, or their number is out of range.
    """
    if user_shards is None:
        return open_repository(place, say=say)
    if is_s3(place):
        raise ExportError(
            f"--user-shards: all shards move together in a directory, not in {place}; export into one, and copy the"
            " folders shard-K-of-N, each version's manifest.json last"
        )
    return ShardedRepository(Path(place), user_shards)


def open_shards(place: Place, model: str, say: Say | None = None) -> Repository | ShardedRepository:
    """The repository that has `model`: the shards of it, where they are all there.

    Raises:
        RepositoryError: It is there in shards, and some are missing, or it is there in 2 and in 4.
    """
    plain = open_repository(place, say=say)
    folders = shard_folders(plain.root, model) if isinstance(plain, ModelRepository) else []
    if not folders or not isinstance(plain, ModelRepository) or model in plain.models():
        return plain
    names = [path.name for path in folders]
    counts = sorted({int(name.rpartition("-")[2]) for name in names})
    wanted = [UserShard(number, counts[0]).folder for number in range(counts[0])]
    if len(counts) > 1 or sorted(names) != sorted(wanted):
        absent = [name for name in wanted if name not in names] if len(counts) == 1 else []
        lacks = f" ({absent[0]} is missing)" if absent else ""
        raise RepositoryError(
            f"{place}: {model} is in {', '.join(names)}, which are not all shards of one number{lacks};"
            " put what is missing there, or give one of them"
        )
    return ShardedRepository(plain.root, counts[0])


def find_bundle(name: str, repository: Place | None = None) -> Path:
    """Find a bundle by its name in a repository, or by its path.

    Args:
        name: `MODEL`, `MODEL:VERSION` or `MODEL:LABEL` of the repository; without one, a bundle's directory.
        repository: The repository, or None.

    Raises:
        NotABundle: No bundle at the path.
        RepositoryError: No such model, version or label.
    """
    if repository is not None:
        model, _, revision = name.partition(":")
        return open_repository(repository).resolve(model, revision or None)
    if not (Path(name) / MANIFEST_FILE).is_file():
        raise NotABundle(f"{name}: no {MANIFEST_FILE} there; give a bundle's directory, or --repository and a model")
    return Path(name)


def find_bundles(name: str, repository: Place | None = None) -> list[Path]:
    """Find a bundle, or those of all shards of the users; as `find_bundle`."""
    if repository is not None:
        model, _, revision = name.partition(":")
        found = open_shards(repository, model)
        if isinstance(found, ShardedRepository):
            return found.bundles(model, revision or None)
    return [find_bundle(name, repository)]
