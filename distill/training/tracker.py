"""Where a training stands: bars on a terminal, silent elsewhere, and events for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tqdm import tqdm

from distill.errors import SettingError

LONG_EPOCH = 5.0
"""Seconds after which an epoch gets a bar of its own."""
T = TypeVar("T")


def follow_steps(batches: Iterable[T], total: int) -> Iterable[T]:
    """Go through an epoch's batches, below a bar where that takes long."""
    steps: Iterable[T] = tqdm(
        batches, total=total, desc="this epoch", unit="step", leave=False, disable=None, delay=LONG_EPOCH
    )
    return steps


class Tracker:
    """Shows epochs on a terminal (silent elsewhere) and writes TensorBoard events when given a directory."""

    def __init__(self, epochs: int, initial: int, tensorboard: Path | None, *, shown: bool = True) -> None:
        """Open the bar and the event file.

        Args:
            epochs: Length of the bar; training may end before.
            initial: Epochs done by an earlier sitting.
            tensorboard: Directory of the event files, or None.
            shown: Whether there is a bar at all.

        Raises:
            SettingError: TensorBoard is asked for and not installed.
        """
        self._bar = tqdm(total=epochs, initial=initial, desc="training", unit="epoch", disable=None if shown else True)
        self._writer = None
        if tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise SettingError("tensorboard: not installed; pip install 'lowpass[tensorboard]'") from error
            self._writer = SummaryWriter(str(tensorboard))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def advance(self, loss: float) -> None:
        """One epoch is done with this mean loss per interaction."""
        self._bar.set_description(f"training, loss {loss:.4f}")
        self._bar.update()

    def evaluated(self, row: Mapping[str, float]) -> None:
        """An epoch was evaluated; `row` is its line of the history."""
        self._bar.set_postfix(
            {name: f"{value:.4f}" for name, value in row.items() if name.startswith(("NDCG", "Recall"))}
        )
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, int(row["epoch"]))
