"""The FAISS indexes that make sense for a catalogue, and the settings with which each is asked.

| index | from | settings |
|---|---|---|
| `Flat` | 1 item | none: exact |
| `SQ8`, `SQfp16` | 1 | `k_factor`: a byte, or two, a number |
| `HNSW16`, `HNSW32`, `HNSW16_SQ8` | 1 | `efSearch` |
| `PQMx4fs` | 1,024 | `k_factor`; half a byte for every two numbers, or for each: 16 centroids in registers |
| `IVFn,…` over Flat, SQ8, PQMx4fs | 4,096 | `nprobe` of n lists, n about 4√I, and `k_factor` |
"""

from __future__ import annotations

from dataclasses import dataclass

from export.bundle.search import K_FACTOR

Search = dict[str, int]

LINKS = (16, 32)
EF_SEARCH = (32, 64, 128, 256)
N_PROBE = (2, 4, 8, 16, 32, 64, 128, 256, 512)
CODE_FACTORS = (4, 8, 16, 32, 64)
MORE_CANDIDATES = (1, 4, 16)
CODES_FROM, LISTS_FROM = 1024, 4096
POINTS_PER_LIST = 39
"""Fewest items a list for k-means to make sense of, by FAISS's own rule."""


@dataclass(frozen=True)
class IndexCandidate:
    """An index to build, and the ways to ask it.

    Attributes:
        factory: FAISS factory string.
        ladders: Search settings, each ladder from quick to thorough: a rung finds no less than the one before it. A
            further ladder is for where the ones before it end too low.
    """

    factory: str
    ladders: tuple[tuple[Search, ...], ...] = (({},),)

    @property
    def num_lists(self) -> int:
        """N of `IVFn,…`, 0 for others."""
        head = self.factory.partition(",")[0]
        return int(head.removeprefix("IVF")) if head.startswith("IVF") else 0

    @property
    def is_graph(self) -> bool:
        """Whether building it takes long enough to be worth a trial first."""
        return self.factory.startswith("HNSW")


def list_candidates(num_items: int, dim: int) -> list[IndexCandidate]:
    """What to try, quick builds first and `Flat` before all.

    Args:
        num_items: I.
        dim: d.
    """
    found = [
        IndexCandidate("Flat"),
        IndexCandidate("SQ8", (_factors(1, 2, 4),)),
        IndexCandidate("SQfp16", (_factors(1, 2),)),
    ]
    codes = [f"PQ{count}x4fs" for count in _sub_vectors(dim)] if num_items >= CODES_FROM else []
    found += [IndexCandidate(code, (_factors(*CODE_FACTORS),)) for code in codes]
    lists = count_lists(num_items)
    if lists:
        probes = [probe for probe in N_PROBE if probe <= lists // 2]
        found.append(IndexCandidate(f"IVF{lists},Flat", (tuple({"nprobe": probe} for probe in probes),)))
        found.append(IndexCandidate(f"IVF{lists},SQ8", _probing(probes, 2)))
        # The coarse code needs many candidates, the fine one, the last, few.
        found += [
            IndexCandidate(f"IVF{lists},{code}", _probing(probes, 4 if code == codes[-1] else 16)) for code in codes
        ]
    plain = tuple({"efSearch": ef} for ef in EF_SEARCH)
    found += [IndexCandidate(f"HNSW{links}", (plain,)) for links in LINKS]
    found.append(IndexCandidate("HNSW16_SQ8", (tuple({**search, K_FACTOR: 2} for search in plain),)))
    return found


def count_lists(num_items: int) -> int:
    """Number of inverted lists: the power of two nearest to 4√I that leaves each list enough items; 0 for a small I."""
    if num_items < LISTS_FROM:
        return 0
    wanted = 4 * num_items**0.5
    lower = 1 << (int(wanted).bit_length() - 1)
    lists = lower if wanted / lower < 2**0.5 else 2 * lower
    return min(lists, 1 << ((num_items // POINTS_PER_LIST).bit_length() - 1))


def _factors(*factors: int) -> tuple[Search, ...]:
    return tuple({K_FACTOR: factor} for factor in factors)


def _probing(probes: list[int], factor: int) -> tuple[tuple[Search, ...], ...]:
    """Where more lists bring nothing, the code has lost it, and more candidates find it."""
    return tuple(tuple({"nprobe": probe, K_FACTOR: factor * more} for probe in probes) for more in MORE_CANDIDATES)


def _sub_vectors(dim: int) -> list[int]:
    """Numbers of sub-vectors of one and two numbers each."""
    return [dim // 2, dim] if dim % 2 == 0 else [dim]
