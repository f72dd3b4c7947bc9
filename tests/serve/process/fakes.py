"""Workers without processes."""

from __future__ import annotations

from dataclasses import dataclass, field

from serve.process.worker import Ended, Report


@dataclass
class FakeWorker:
    """Ends when told to; says of its series what it was given."""

    number: int
    report: Report
    pid: int
    text: str | None = None
    exit_code: int = 0
    is_deaf: bool = False
    hangs: bool = False
    asked: int = 0
    told: list[str] = field(default_factory=list)

    def terminate(self) -> None:
        self.told.append("terminate")
        if not self.is_deaf:
            self.report(Ended(self.number))

    def kill(self) -> None:
        self.told.append("kill")
        self.exit_code = -9
        self.report(Ended(self.number))

    def reap(self) -> int:
        return self.exit_code

    def is_alive(self) -> bool:
        return not self.hangs

    def ask_series(self) -> None:
        self.asked += 1

    def series(self, give_up: float) -> str | None:
        return self.text
