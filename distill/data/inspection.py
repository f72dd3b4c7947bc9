"""What a data set looks like: counts, density, degrees, a few items."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from distill.data.interactions import SPLITS, Interactions

QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
SAMPLE_ITEMS = 5


def describe(data: Interactions) -> dict[str, Any]:
    """Summarise a data set as plain JSON values.

    Degrees count all three splits; the sample items are the most popular of train.
    """
    total = sum(int(getattr(data, name).nnz) for name in SPLITS)
    users = sum(np.diff(getattr(data, name).indptr) for name in SPLITS)
    items = sum(np.bincount(getattr(data, name).indices, minlength=data.num_items) for name in SPLITS)
    return {
        "name": data.name,
        "counts": data.counts,
        "density": total / max(1, data.num_users * data.num_items),
        "interactions_per_user": _quantiles(np.asarray(users)),
        "interactions_per_item": _quantiles(np.asarray(items)),
        "settings": dict(data.settings),
        "fingerprint": data.fingerprint,
        "popular_items": _popular_items(data),
    }


def format_description(description: dict[str, Any]) -> str:
    """Lay out a description for people."""
    counts = ", ".join(f"{count:,} {name}" for name, count in description["counts"].items())
    settings = ", ".join(f"{key} {value}" for key, value in description["settings"].items())
    lines = [
        f"{description['name']}: {counts}",
        f"density      {description['density']:.4%}",
        f"per user     {_in_words(description['interactions_per_user'])}",
        f"per item     {_in_words(description['interactions_per_item'])}",
        f"settings     {settings}",
        f"fingerprint  {description['fingerprint']}",
        "popular:",
    ]
    for item in description["popular_items"]:
        categories = f"  ({', '.join(item['categories'])})" if item.get("categories") else ""
        lines.append(f"  {item['train']:>7,}  {item['item_id']}  {item.get('title', '')}{categories}".rstrip())
    return "\n".join(lines)


def _quantiles(degree: npt.NDArray[Any]) -> dict[str, float]:
    values = np.quantile(degree, list(QUANTILES.values()))
    summary = dict(zip(QUANTILES, values.tolist(), strict=True))
    return summary | {"mean": float(degree.mean())}


def _in_words(summary: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in summary.items())


def _popular_items(data: Interactions) -> list[dict[str, Any]]:
    degree = np.bincount(data.train.indices, minlength=data.num_items)
    sample = []
    for item_index in np.argsort(-degree, kind="stable")[:SAMPLE_ITEMS].tolist():
        item: dict[str, Any] = {"item_id": str(data.item_ids[item_index]), "train": int(degree[item_index])}
        if data.item_titles is not None:
            item["title"] = data.item_titles[item_index]
        if data.item_categories is not None:
            item["categories"] = list(data.item_categories[item_index])
        sample.append(item)
    return sample
