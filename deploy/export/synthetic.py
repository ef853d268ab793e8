"""The synthetic images of a run, each with the facts that go with it wherever it goes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.config import Config, read_config
from dppm_model.errors import DataError, RunFolderError
from dppm_model.mechanism.base import View
from dppm_model.plan import Plan
from dppm_model.run import Run
from sampler.images import load_shards, manifest_of

SOFTWARE = f"dppm {version('dppm')}"
NOTE = "Synthetic: drawn by a generative model; it is no recording of a person or an object."
_LONGEST = 100  # characters of a folder's name
_SAFE = re.compile(r"\w[\w .+=-]*")


@dataclass(frozen=True)
class SyntheticImage:
    """One image, uint8 (C, H, W): the ``index``-th of class ``label``."""

    pixels: NDArray[np.uint8]
    label: int
    index: int

    @property
    def name(self) -> str:
        """A file name, without its suffix, that no other image of the run has."""
        return f"{self.label:03d}-{self.index:06d}"


@dataclass(frozen=True)
class SyntheticSet:
    """All images of a sampled run, and their public facts.

    ``manifest`` is that of the images, ``privacy`` the run's promise.
    """

    run: Run
    plan: Plan
    config: Config
    privacy: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @classmethod
    def of(cls, run: Run) -> SyntheticSet:
        """Open the images of a run.

        Raises RunFolderError if there are none, or they are of another model than the run's, and
        DataError if they have neither one channel nor three.
        """
        config, manifest = read_config(run.config), manifest_of(run.samples)
        if manifest["model"] != run.model_digest:
            raise RunFolderError(
                f"{run.samples} holds images of another model than {run.model}.",
                f"Remove that folder and run `dppm sample {run.folder}` again.",
            )
        if config.shape[0] not in (1, 3):
            raise DataError(
                f"The images of {run.folder} have {config.shape[0]} channels.",
                "Only grey images and RGB can be exported.",
            )
        return cls(run, run.plan(), config, run.read_json(run.privacy), manifest)

    def __len__(self) -> int:
        return int(self.manifest["classes"]) * self.per_class

    def __iter__(self) -> Iterator[SyntheticImage]:
        """Yield all images, those of one shard in memory at a time.

        Raises RunFolderError if sampling has not finished, or a shard is missing or damaged.
        """
        for shard, images in load_shards(self.run.samples):
            for place, pixels in enumerate(images):
                yield SyntheticImage(pixels, shard.label, shard.first + place)

    @property
    def per_class(self) -> int:
        """How many images each class has."""
        return int(self.manifest["per_class"])

    @property
    def view(self) -> View:
        """The view that holds for anyone who has the images."""
        return self.plan.views[0]

    @property
    def epsilon(self) -> float:
        """The ε in this view; infinite without protection."""
        found = self.privacy[f"epsilon_{self.view}"]
        return math.inf if found is None else float(found)

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """A folder name for each class: the class's own name where every system allows it."""
        names = self.config.class_names
        folded = [name.casefold() for name in names]
        return tuple(
            name
            if _SAFE.fullmatch(name) and len(name) <= _LONGEST and folded.count(folded[i]) == 1
            else f"class-{i:03d}"
            for i, name in enumerate(names)
        )

    def facts(self, image: SyntheticImage) -> dict[str, Any]:
        """Return what goes with an image, in every format under the same names."""
        return {
            "synthetic": True,
            "class": self.config.class_names[image.label],
            "class_index": image.label,
            "index": image.index,
            "seed": self.manifest["seed"],
            "model": self.manifest["model"],
            "epsilon": self.epsilon,
            "delta": self.privacy["delta"],
            "unit": self.privacy["unit"],
            "view": self.view,
            "software": SOFTWARE,
        }
