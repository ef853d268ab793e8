"""The arrays of a score model: their names, types, shapes, ranges and roles, in one table.

The public configuration decides them all; each part of a model brings its own rows
(`dppm_model.score.part`). Everyone who receives a model checks it against this table: a site before
it spends anything, the server, the sampler, and anyone who loads a file.

The ranges are public and generous. Learners clamp their releases to them (post-processing, which
costs no privacy), so no learner made an array that lies outside.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dppm_model.errors import ModelError

if TYPE_CHECKING:
    from dppm_model.score.model_config import ModelConfig

Arrays = Mapping[str, NDArray[Any]]
# Private: learned from the sites' answers under the budget, or computed from such arrays; messages
# carry those that a question needs. Public: fixed before the first round, and named in the plan by
# its SHA-256; everybody has a copy, and no message carries it. Derived: computed by the server from
# private arrays, for itself and the sampler; no message carries it either.
Role = Literal["private", "public", "derived"]

MOST_WEIGHT = 1024.0  # of a network, in either direction
_HINT = "Load a model that dppm wrote; at a site, ask the server's operator."


@dataclass(frozen=True)
class Rule:
    """A condition on the numbers of an array together.

    Attributes
    ----------
    problem
        Says what is wrong with an array within its range, or returns None.
    mend
        Returns a nearby array that meets the condition. Noise must not end a run, however small
        the budget: a learner may release any estimate.
    draw
        Draws an array that meets the condition: see `ArraySpec.draw`.
    """

    problem: Callable[[NDArray[Any]], str | None]
    mend: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    draw: Callable[[ArraySpec, np.random.Generator, float], NDArray[np.float64]]


@dataclass(frozen=True)
class ArraySpec:
    """The type, shape, range and role of one array.

    Attributes
    ----------
    shape
        Its shape.
    least, most
        The range of every number in it, ends included.
    rule
        A condition on its numbers together, if any.
    dtype
        A little-endian NumPy type.
    role
        Where it comes from, and whether messages carry it: see `Role`.
    digest
        SHA-256 of its bytes, if it is public.
    beside
        Another array that must be present with this one, if any.
    """

    shape: tuple[int, ...]
    least: float
    most: float
    rule: Rule | None = None
    dtype: str = "<f4"
    role: Role = "private"
    digest: str | None = None
    beside: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def problem(self, array: NDArray[Any]) -> str | None:
        """Say what is wrong with an array, or None."""
        if array.dtype != np.dtype(self.dtype):
            return f"of type {array.dtype}, not {np.dtype(self.dtype)}"
        if array.shape != self.shape:
            return f"of shape {array.shape}, not {self.shape}"
        least, most = np.array([self.least, self.most], self.dtype)
        # NaN fails every comparison, so this refuses it as it refuses infinity.
        if array.size and not (least <= array.min() <= array.max() <= most):
            return f"not within {self.least:g} to {self.most:g}, or not finite"
        if self.role == "public" and digest_of(array) != self.digest:
            return "public, but not the one that the plan names by digest"
        return self.rule.problem(array) if self.rule else None

    def nearest(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the nearest array of this range, rule and type; a valid array stays unchanged."""
        clamped: NDArray[Any] = np.clip(array, self.least, self.most).astype(self.dtype)
        if self.rule and self.rule.problem(clamped):
            return self.rule.mend(clamped.astype(np.float64)).astype(self.dtype)
        return clamped

    def draw(self, rng: np.random.Generator, reach: float) -> NDArray[Any]:
        """Draw a valid array at random.

        Parameters
        ----------
        reach
            How far numbers go, as a share of their range: 1 takes them to the edges.
        """
        if self.rule:
            drawn = self.rule.draw(self, rng, reach)
        elif self.least > 0:
            low, high = np.log(self.least) * reach, np.log(self.most) * reach
            drawn = np.exp(rng.uniform(low, high, self.shape))
        else:
            drawn = signed(rng, self.shape, self.most * reach)
        return self.nearest(drawn)


@lru_cache(maxsize=16)
def array_specs(config: ModelConfig) -> Mapping[str, ArraySpec]:
    """Return the table: every array that a model of this configuration may have."""
    rows: dict[str, ArraySpec] = {}
    for part in config.parts:
        rows |= part.specs(config)
    return rows


def network_specs(prefix: str, parameters: Iterable[nn.Parameter]) -> dict[str, ArraySpec]:
    """Return the rows of a network that private rounds train: all its weights in one vector each.

    ``.weights``, where the next gradient is taken; ``.ema``, their moving average, used for
    sampling; and ``.scale``, the factor applied to a gradient before it is clipped.
    """
    size = sum(p.numel() for p in parameters)
    weights = ArraySpec((size,), -MOST_WEIGHT, MOST_WEIGHT)
    return {
        f"{prefix}.weights": weights,
        f"{prefix}.ema": replace(weights, role="derived"),
        f"{prefix}.scale": ArraySpec((1,), 2.0**-40, 2.0**40, dtype="<f8"),
    }


def digest_of(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's bytes, by which a plan names a public one."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def check_arrays(config: ModelConfig, arrays: Arrays, known: Arrays | None = None) -> None:
    """Refuse arrays that are not what the configuration says.

    Parameters
    ----------
    known
        Arrays that were checked before: the same objects are not checked again.

    Raises
    ------
    ModelError
        Names the array and its fault.
    """
    specs = array_specs(config)
    for name, array in arrays.items():
        if known is None or known.get(name) is not array:
            wrong = specs[name].problem(array) if name in specs else "not part of such a model"
            if wrong:
                raise ModelError(f"The model's array {name!r:.80} is {wrong}.", _HINT)
        if (beside := specs[name].beside) and beside not in arrays:
            raise ModelError(f"The model's array {name!r} has no {beside!r}.", _HINT)


def require(arrays: Arrays, names: Collection[str]) -> None:
    """Refuse to continue if any of these arrays is missing.

    Raises
    ------
    ModelError
        If one is missing.
    """
    if missing := sorted(set(names) - arrays.keys()):
        raise ModelError(
            f"The model lacks {', '.join(missing)}.",
            "Finish its training first; a question needs the model of its round.",
        )


def draw_arrays(
    config: ModelConfig, names: Collection[str], rng: np.random.Generator, reach: float
) -> dict[str, NDArray[Any]]:
    """Draw the named arrays that a model of this configuration has and that a server may send.

    Self-checks and tests use them in place of a server's arrays: some have the sizes that training
    produces, some lie at the edges of their ranges.

    Parameters
    ----------
    reach
        See `ArraySpec.draw`.
    """
    specs = array_specs(config)
    return {
        name: specs[name].draw(rng, reach)
        for name in sorted(specs.keys() & set(names))
        if specs[name].role == "private"
    }


def signed(rng: np.random.Generator, shape: tuple[int, ...], most: float) -> NDArray[np.float64]:
    """Draw numbers of both signs, from about a millionth of ``most`` up to it."""
    drawn: NDArray[np.float64] = (
        most * 10 ** (-6 * rng.random(shape)) * rng.choice([-1.0, 1.0], shape)
    )
    return drawn
