"""Watching a training: a progress bar, and TensorBoard where it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from distill.errors import SettingError


class Tracker:
    """Shows epochs on a terminal (silent elsewhere) and writes TensorBoard events when given a directory."""

    def __init__(self, epochs: int, initial: int, tensorboard: Path | None) -> None:
        """Open the bar and the event file.

        Args:
            epochs: Most epochs there can be.
            initial: Epochs done already.
            tensorboard: Directory of the event files, or None.

        Raises:
            SettingError: TensorBoard is asked for and not installed.
        """
        self._bar = tqdm(total=epochs, initial=initial, desc="training", unit="epoch", disable=None)
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
