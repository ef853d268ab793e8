"""The split of a data set over the virtual sites of a simulation; seeded, recorded in the run.

If the records name persons, each person is dealt whole, to one site.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import ConfigError, DataError

SCHEMES = ("even", "dirichlet", "sizes", "exclusive")


def partition(
    labels: NDArray[np.int64],
    sites: int,
    *,
    scheme: str,
    seed: int,
    alpha: float = 0.5,
    sizes: Sequence[float] | None = None,
    persons: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Return one sorted index array a site; together they hold every record once.

    Raises ConfigError if a setting is out of range or a site would be empty, and DataError if there
    is not one person per record.

    Parameters
    ----------
    scheme
        ``even``; ``dirichlet``: each class is spread over the sites by a Dirichlet(alpha) draw;
        ``sizes``: in proportion to ``sizes``; ``exclusive``: evenly, but that the first site alone
        has the first class.
    seed
        Of public randomness: the same seed deals the same way.
    persons
        (n,) the person of each record; persons are dealt whole.
    """
    if sites < 1:
        raise ConfigError(f"sites is {sites}.", "Give a whole number above zero.")
    if persons is not None and len(persons) != len(labels):
        raise DataError(f"{len(persons)} persons for {len(labels)} records.", "Import them again.")
    rng = np.random.default_rng(seed)
    if scheme == "even":
        shares = np.full((1, sites), 1 / sites)
    elif scheme == "sizes":
        if sizes is None or len(sizes) != sites or not all(0 < s < math.inf for s in sizes):
            raise ConfigError(
                f"partition.sizes is {sizes} for {sites} sites.",
                "Give one number above zero per site.",
            )
        shares = np.array([sizes], dtype=float) / sum(sizes)
    elif scheme == "exclusive":
        shares = np.full((int(labels.max()) + 1, sites), 1 / sites)
        shares[0] = np.eye(sites)[0]
    elif scheme == "dirichlet":
        if not 0 < alpha < math.inf:
            raise ConfigError(f"partition.alpha is {alpha}.", "Give a number above zero.")
        shares = rng.dirichlet(np.full(sites, alpha), size=int(labels.max()) + 1)
    else:
        raise ConfigError(f"partition.scheme is {scheme!r}.", f"Use {', '.join(SCHEMES)}.")
    # Persons, or records, are dealt; a person counts under their first label.
    owners = np.arange(len(labels)) if persons is None else persons
    units, first, unit_of = np.unique(owners, return_index=True, return_inverse=True)
    site_of = np.empty(len(units), dtype=np.int64)
    groups = labels[first] if len(shares) > 1 else np.zeros(len(units), dtype=np.int64)
    for group, share in enumerate(shares):
        members = rng.permutation(np.flatnonzero(groups == group))
        borders = np.rint(np.cumsum(share) * len(members)).astype(int)[:-1]
        for site, part in enumerate(np.split(members, borders)):
            site_of[part] = site
    parts = [np.flatnonzero(site_of[unit_of] == site) for site in range(sites)]
    if empty := [site for site, part in enumerate(parts) if part.size == 0]:
        raise ConfigError(
            f"partition: site {empty[0]} would get none of {len(labels)} records.",
            "Use fewer sites, a larger partition.alpha, or another seed.",
        )
    return parts
