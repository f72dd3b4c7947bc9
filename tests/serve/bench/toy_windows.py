"""Windows of known latencies."""

from __future__ import annotations

import numpy as np

from serve.bench.windows import Window


def window(latencies: list[float], seconds: float = 1.0, **more: object) -> Window:
    values = np.array(latencies)
    return Window(values, np.zeros(len(values)), np.zeros((len(values), 5)), seconds, **more)  # type: ignore[arg-type]
