"""Windows: which grey values of a scan become black and white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dppm_model.errors import ConfigError

PERCENTILES = (
    0.5,
    99.5,
)  # of an image's or a volume's values: black and white where no window is known

Rule = Literal["auto", "file", "percentile", "given"]


@dataclass(frozen=True)
class Window:
    """A rule: ``auto`` is the file's window, or all of 8 bits, or the percentiles of each image.

    ``center`` and ``width`` are those of a ``given`` window, in units of the scan such as HU.
    """

    rule: Rule = "auto"
    center: float = 0.0
    width: float = 0.0

    @classmethod
    def of(cls, text: str) -> Window:
        """Read ``auto``, ``file``, ``percentile`` or ``CENTER,WIDTH``; ConfigError otherwise."""
        if text in ("auto", "file", "percentile"):
            return cls(text)  # type: ignore[arg-type]
        try:
            center, width = map(float, text.split(","))
        except ValueError:
            center = width = math.nan
        if not (math.isfinite(center) and math.isfinite(width) and width >= 1):
            raise ConfigError(
                f"--window is {text!r}.",
                "Give auto, file, percentile or CENTER,WIDTH with a width of 1 or more, such as "
                "--window=-600,1500.",
            )
        return cls("given", center, width)


AUTO = Window()
