"""String columns and id tables that live in memory-mapped files, so that workers share them.

FORMAT.md says what the files hold: offsets and bytes of the texts, and for an id table the slots of a hash table with
linear probing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from export.bundle.arrays import Array, check_offsets, check_rows, save_array
from export.bundle.errors import DuplicateIds, MalformedArray, RowOutOfRange
from export.bundle.shard import digest_id, hash_id

OFFSETS, BYTES, SLOTS = ".offsets.npy", ".bytes.npy", ".slots.npy"
MINIMUM_SLOTS = 4
BLOCK_ROWS = 1 << 16
"""Rows that are checked together."""
MAXIMUM_STRING_BYTES = 1 << 16
"""A string is read whole, and goes into answers."""
KEPT_STRINGS = 1 << 16
"""Most strings that a column keeps decoded: a few are asked for again and again, and decoding takes the longest."""


class StringColumn:
    """n strings by row number.

    Args:
        path: Where the column is, without its endings; names it in errors.
        offsets: int64, shape (n + 1,).
        data: uint8, the UTF-8 bytes of all strings.

    Raises:
        MalformedArray: `offsets` does not rise from 0 to the number of bytes, or a string is too long.
    """

    endings: ClassVar[tuple[str, ...]] = (OFFSETS, BYTES)

    def __init__(self, path: Path, offsets: Array, data: Array) -> None:
        check_offsets(path.with_name(path.name + OFFSETS), offsets, len(data))
        longest = int(np.diff(offsets).max(initial=0))
        if longest > MAXIMUM_STRING_BYTES:
            raise MalformedArray(f"{path}{BYTES}: a string of {longest} bytes, over {MAXIMUM_STRING_BYTES}; shorten it")
        self.path = path
        self._count = len(offsets) - 1
        # Indexing a memoryview gives a plain int in a third of the time of a NumPy scalar.
        self._offsets = offsets.data
        self._data = data.data
        self._kept: dict[int, str] = {}

    @classmethod
    def from_arrays(cls, path: Path, arrays: Mapping[str, Array]) -> Self:
        """Make a column of the arrays in `arrays`, by file name."""
        return cls(path, *(arrays[path.name + ending] for ending in cls.endings))

    def __len__(self) -> int:
        return self._count

    def get(self, row: int) -> str:
        """The string at `row`.

        Raises:
            RowOutOfRange: `row` is negative or not below the number of strings.
            MalformedArray: The bytes there are not UTF-8.
        """
        try:
            return self._encoded(row).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedArray(f"{self.path}{BYTES}: row {row} is not UTF-8; export the bundle again") from error

    def take(self, rows: Iterable[int]) -> list[str]:
        """The strings at `rows`, in that order; raises what `get` raises."""
        wanted: list[int] = rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
        try:
            return list(map(self._kept.__getitem__, wanted))
        except KeyError:
            return [self._keep(row) for row in wanted]

    def _keep(self, row: int) -> str:
        text = self._kept.get(row)
        if text is None:
            text = self.get(row)
            if len(self._kept) >= KEPT_STRINGS:
                self._kept.clear()
            self._kept[row] = text
        return text

    def _encoded(self, row: int) -> bytes:
        if not 0 <= row < self._count:
            raise RowOutOfRange(f"{self.path}: no row {row} where there are {self._count}; give a row number below")
        return bytes(self._data[self._offsets[row] : self._offsets[row + 1]])

    def verify(self) -> None:
        """Read every string.

        Raises:
            MalformedArray: One is not UTF-8.
        """
        for start, raw, ends in self._blocks():
            begins = ends[:-1][ends[1:] > ends[:-1]]
            heads = np.frombuffer(raw, dtype=np.uint8)[begins]
            try:
                raw.decode("utf-8")
                if ((heads & 0xC0) != 0x80).all():  # no string begins inside a character
                    continue
            except UnicodeDecodeError:
                pass
            for row in range(start, start + len(ends) - 1):
                self.get(row)

    def _blocks(self) -> Iterator[tuple[int, bytes, npt.NDArray[np.int64]]]:
        """A thousand times fewer steps than rows: the first row of some, their bytes, and where each of them ends."""
        for start in range(0, self._count, BLOCK_ROWS):
            offsets = np.asarray(self._offsets[start : min(start + BLOCK_ROWS, self._count) + 1])
            yield start, bytes(self._data[offsets[0] : offsets[-1]]), offsets - offsets[0]


class IdTable(StringColumn):
    """n distinct strings by row number, and back.

    Args:
        path: Where the table is, without its endings; names it in errors.
        offsets: int64, shape (n + 1,).
        data: uint8, the UTF-8 bytes of all ids.
        slots: int32, shape (S,).

    Raises:
        MalformedArray: S is not a power of two of at least 2n, or `slots` does not hold n rows.
        RowOutOfRange: A slot names a row that is not there.
    """

    endings: ClassVar[tuple[str, ...]] = (OFFSETS, BYTES, SLOTS)

    def __init__(self, path: Path, offsets: Array, data: Array, slots: Array) -> None:
        super().__init__(path, offsets, data)
        slots_path = path.with_name(path.name + SLOTS)
        size = len(slots)
        if size < 2 * self._count or size < 1 or size & (size - 1):
            raise MalformedArray(
                f"{slots_path}: {size} slots must be a power of two of at least {2 * self._count};"
                " export the bundle again"
            )
        check_rows(slots_path, slots, self._count, lowest=-1)
        if int(np.count_nonzero(slots >= 0)) != self._count:
            raise MalformedArray(f"{slots_path}: must hold each of {self._count} rows once; export the bundle again")
        self._slots = slots.data
        self._mask = size - 1

    def index_of(self, outside_id: str) -> int:
        """The row of `outside_id`, or -1 when it is unknown."""
        # Half of the slots are empty (checked above), so probing ends. A lone surrogate matches no UTF-8.
        wanted = outside_id.encode("utf-8", "surrogatepass")
        slot = hash_id(wanted) & self._mask
        while (row := self._slots[slot]) >= 0:
            if self._data[self._offsets[row] : self._offsets[row + 1]] == wanted:
                return int(row)
            slot = (slot + 1) & self._mask
        return -1

    def index_many(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """The rows of `ids`, int64 of shape (len(ids),), -1 for an unknown id."""
        return np.fromiter((self.index_of(id_) for id_ in ids), dtype=np.int64)

    def verify(self) -> None:
        """Look every id up, all at once: a million in a second.

        Raises:
            DuplicateIds: Two rows have the same id.
            MalformedArray: An id is not UTF-8, or the slots do not lead to its row.
        """
        super().verify()
        hashes = self._hash_all()
        self._refuse_twins(hashes)
        slots = np.asarray(self._slots)
        taken = np.flatnonzero(slots >= 0)
        found = np.full(self._count, -1, dtype=np.int64)
        found[slots[taken]] = taken
        # Probing goes from an id's own slot on and ends at the first empty one: none may be between.
        home = (hashes & np.uint64(self._mask)).astype(np.int64)
        empty = np.concatenate([[0], np.cumsum(slots < 0)])
        between = empty[np.maximum(found, 0)] - empty[home] + np.where(found < home, empty[-1], 0)
        lost = np.flatnonzero((found < 0) | (between > 0))
        if len(lost):
            raise MalformedArray(f"{self.path}{SLOTS}: does not lead to row {lost[0]}; export the bundle again")

    def _hash_all(self) -> npt.NDArray[np.uint64]:
        hashes = np.empty(self._count, dtype=np.uint64)
        for start, raw, ends in self._blocks():
            bounds = ends.tolist()
            digests = b"".join(digest_id(raw[begin:end]) for begin, end in pairwise(bounds))
            hashes[start : start + len(bounds) - 1] = np.frombuffer(digests, dtype="<u8")
        return hashes

    def _refuse_twins(self, hashes: npt.NDArray[np.uint64]) -> None:
        order = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(np.diff(hashes[order]) == 0)
        for first, second in zip(order[same].tolist(), order[same + 1].tolist(), strict=True):
            if self._encoded(first) == self._encoded(second):
                raise DuplicateIds(
                    f"{self.path}: rows {first} and {second} have the same id {self.get(second)!r}; make the ids unique"
                )


def write_string_column(path: Path, strings: Sequence[str]) -> None:
    """Write the two files of a string column.

    Args:
        path: Where, without the endings.
        strings: One per row.

    Raises:
        MalformedArray: A string cannot be written as UTF-8.
    """
    _write_encoded(path, _encode(path, strings))


def _write_encoded(path: Path, encoded: Sequence[bytes]) -> None:
    lengths = np.fromiter((len(text) for text in encoded), dtype=np.int64, count=len(encoded))
    save_array(path.with_name(path.name + OFFSETS), np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
    save_array(path.with_name(path.name + BYTES), np.frombuffer(b"".join(encoded), dtype=np.uint8))


def write_id_table(path: Path, ids: Sequence[str]) -> None:
    """Write the three files of an id table.

    Args:
        path: Where, without the endings.
        ids: One per row, distinct.

    Raises:
        DuplicateIds: An id stands twice.
        MalformedArray: An id cannot be written as UTF-8.
    """
    if len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DuplicateIds(f"{path}: id {twice!r} stands for two rows; make the ids unique")
    encoded = _encode(path, ids)
    _write_encoded(path, encoded)
    save_array(path.with_name(path.name + SLOTS), _build_slots(encoded))


def _encode(path: Path, strings: Sequence[str]) -> list[bytes]:
    try:
        return [text.encode("utf-8") for text in strings]
    except UnicodeEncodeError as error:
        raise MalformedArray(f"{path}: {error.object!r} is not valid Unicode; clean the text") from error


def _build_slots(encoded: Sequence[bytes]) -> npt.NDArray[np.int32]:
    size = MINIMUM_SLOTS
    while size < 2 * len(encoded):
        size *= 2
    slots = np.full(size, -1, dtype=np.int32)
    homes = np.fromiter((hash_id(text) & (size - 1) for text in encoded), dtype=np.int64, count=len(encoded))
    rows = np.arange(len(encoded))
    # One round per probe distance: the first row that wants an empty slot takes it, the others move on.
    while len(rows):
        wanted, first = np.unique(homes, return_index=True)
        free = slots[wanted] < 0
        slots[wanted[free]] = rows[first[free]]
        left = np.ones(len(rows), dtype=bool)
        left[first[free]] = False
        rows, homes = rows[left], (homes[left] + 1) & (size - 1)
    return slots
