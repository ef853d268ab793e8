"""An accuracy over several classifier seeds: its mean, and its spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def over_seeds(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return ``name`` and ``name_std``: mean and standard deviation over seeds.

    Parameters
    ----------
    values
        One entry a seed: a number, or one number a class.

    Returns
    -------
    Numbers, or lists of one number a class. The standard deviation is the sample's (n - 1), None
    for a single seed. It is that of *one* training, seen over seeds with the same images: it does
    not contain the luck of the private run that made them.
    """
    table = np.asarray(values, dtype=np.float64)
    spread = table.std(0, ddof=1).tolist() if len(table) > 1 else None
    return {name: table.mean(0).tolist(), f"{name}_std": spread}
