"""The recipes that classifiers are trained by: a closed choice, the same for every data set.

Their constants were set once, on held-out *training* images of MNIST and Fashion-MNIST. Nothing is
chosen per data set, per run or per budget, so accuracies of one recipe can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from dppm_model.errors import ConfigError
from sampler.evaluation.classifier import Settings


@dataclass(frozen=True)
class Recipe:
    """How both kinds of classifier are trained, on synthetic and on real images alike."""

    name: str
    cnn: Settings
    mlp: Settings


_MLP = Settings("mlp", (256, 256), steps=2500, batch=64, learning_rate=2e-3, side=32)

QUICK = Recipe(
    "quick",
    Settings("cnn", (16, 32, 32), steps=3750, batch=64, learning_rate=4e-3, side=64),
    _MLP,
)
"""Half a minute of a core a training; by it, real Fashion-MNIST gives 0.906."""

THOROUGH = Recipe(
    "thorough",
    Settings("cnn", (32, 64, 64), steps=4000, batch=128, learning_rate=4e-3, side=64),
    _MLP,
)
"""Three minutes of a core a training; by it, real Fashion-MNIST gives 0.923. 2500 steps score 0.009
less on held-out training images."""

RECIPES = {recipe.name: recipe for recipe in (QUICK, THOROUGH)}


def recipe_named(name: object) -> Recipe:
    """Return the recipe of a name.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(f"evaluation.recipe is {name!r}.", f"Use {' or '.join(RECIPES)}.")
    return RECIPES[name]


def check_seeds(seeds: object) -> tuple[int, ...]:
    """Return classifier seeds that can be trained with.

    Raises
    ------
    ConfigError
        No list of different whole numbers: a seed that is there twice would feign a small spread.
    """
    known = list(seeds) if isinstance(seeds, list | tuple) else []
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in known)
    if not known or not whole or len(set(known)) < len(known):
        raise ConfigError(
            f"evaluation.seeds is {seeds!r}.",
            "Name one seed or more, different whole numbers: evaluation.seeds=[0,1,2].",
        )
    return tuple(known)
