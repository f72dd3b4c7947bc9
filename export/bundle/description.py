"""What a bundle or a repository holds, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from export.bundle.manifest import QUALITY_NUMBERS, IndexCard, Manifest
from export.bundle.versions import ModelVersions

RECALL = "validation_recall@20"
TRAINED = f"trained_vectors_{RECALL}"
MEASURED = ("ann_recall", "median_us", "bytes_per_item", "build_seconds")


def describe_bundle(path: Path | str, manifest: Manifest) -> list[str]:
    """Say in a few lines what the bundle at `path` is and how good it is."""
    model, counts, index = manifest.model, manifest.counts, manifest.index
    taught = f", teacher {model.teacher}" if model.teacher else ""
    search = "".join(f" {key}={value}" for key, value in index.search.items())
    of_original = [row["ann_recall_of_original"] for row in index.candidates if "ann_recall_of_original" in row]
    lossy = f" of its decoded vectors, {of_original[0]:.1%} of the teacher's" if of_original else ""
    found = f"{index.ann_recall:.1%} of the exact top {index.ann_recall_k}{lossy}"
    users = f" ({manifest.user_shard})" if manifest.user_shard else ""
    lines = [
        f"{path}: {model.name} version {model.version}, id {manifest.bundle_id[:12]}, {manifest.created}",
        f"  model    {model.backbone}, {model.method}, d = {model.dim}{taught}",
        f"  counts   {counts['users']:,} users{users}, {counts['items']:,} items, {counts['seen']:,} seen",
        f"  bytes    {manifest.total_bytes:,}; {index.bytes_per_item:g} an item in the index",
        f"  index    {index.factory}{search}, finds {found}",
    ]
    if manifest.answer_table:
        lines.append(f"  answers  {manifest.answer_table} items ready for every user")
    if RECALL in manifest.fold_in:
        lines.append(f"  fold-in  {_describe_fold_in(manifest.fold_in)}")
    known = [(key, manifest.quality.get(key)) for key in QUALITY_NUMBERS]
    numbers = [f"{key} {value:.4f}" for key, value in known if value is not None]
    if numbers:
        lines.append(f"  quality  {', '.join(numbers)}{', of all shards together' if manifest.user_shard else ''}")
        lines.append(f"           {manifest.quality.get('convention', '')}")
    return lines


def _describe_fold_in(fold_in: Mapping[str, Any]) -> str:
    """Say what Recall@20 new users have, by the number of items they come with, and what trained ones have."""
    names = {f"{RECALL}_of_3": "3 items", f"{RECALL}_of_10": "10 items", RECALL: "all"}
    measured = [f"{fold_in[key]:.4f} from {name}" for key, name in names.items() if key in fold_in]
    trained = f"; their trained vectors {fold_in[TRAINED]:.4f}" if TRAINED in fold_in else ""
    step = fold_in.get("recent_step")
    recent = "" if step is None else f"; recent items move a known user by {step:g} steps"
    return f"validation recall@20 {', '.join(measured)}{trained}{recent}"


def describe_indexes(index: IndexCard) -> list[str]:
    """List the indexes that were measured, a star where no other is better, and those that were not built."""
    rows, skipped = [], []
    for row in index.candidates:
        name = f"{'*' if row.get('pareto') else ' '} {row.get('factory')}"
        name += "".join(f" {key}={value}" for key, value in row.get("search", {}).items())
        if "skipped" in row:
            skipped.append(f"  {name}  not built: {row['skipped']}")
        else:
            rows.append([name, *(str(row.get(key, "")) for key in MEASURED)])
    headers = ("index, * where no other beats it", "recall", "median µs", "bytes/item", "built in s")
    return [*_table(rows, headers, "lrrrr"), *skipped]


def describe_files(manifest: Manifest) -> list[str]:
    """List the files with their bytes, element types and shapes."""
    rows = [
        [name, f"{entry.bytes:,}", entry.dtype or "", "×".join(map(str, entry.shape or ()))]
        for name, entry in sorted(manifest.files.items())
    ]
    return _table(rows, ("file", "bytes", "type", "shape"), "lrll")


def describe_versions(models: Sequence[ModelVersions]) -> list[str]:
    """Say in a line a model which versions there are and where its labels point."""
    return [
        f"{each.model}: versions {', '.join(each.versions)}; "
        + (", ".join(f"{label} → {version}" for label, version in each.labels.items()) or "no labels")
        for each in models
    ]


def _table(rows: Sequence[Sequence[str]], headers: Sequence[str], alignment: str) -> list[str]:
    if not rows:
        return []
    alignments = [{"l": "left", "r": "right"}[letter] for letter in alignment]
    text = tabulate(rows, headers, "plain", colalign=alignments, disable_numparse=True, preserve_whitespace=True)
    return [f"  {line.rstrip()}" for line in text.splitlines()]
