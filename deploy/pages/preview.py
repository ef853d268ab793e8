"""A few images of the model as it stands: released by finished phases, so they cost nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from deploy.pages.pictures import Picture, sheets
from dppm_model.plan import Plan
from dppm_model.records.pixels import to_pixels
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.stages import draw_base
from server.state import Snapshot

_PER_CLASS, _LEVELS = 8, 12


class Preview:
    """Draws again only when the model has changed.

    Parameters
    ----------
    names
        One a class.
    """

    def __init__(self, run: Run, plan: Plan, names: Sequence[str]) -> None:
        self._run, self._plan, self._names = run, plan, names
        self._of = ""
        self._sheets: list[Picture] = []

    def sheets(self) -> list[Picture]:
        """Return a picture a class, of the model after the last finished phase; or none so far.

        Of a pyramid only the base is drawn: its stages take long.
        """
        content = self._model()
        if content is None:
            return []
        digest = hashlib.sha256(content).hexdigest()
        if digest != self._of:
            self._of, self._sheets = digest, _drawn(ScoreModel.from_bytes(content), self._names)
        return self._sheets

    def _model(self) -> bytes | None:
        if self._run.model.exists():
            return self._run.model.read_bytes()
        snapshot = Snapshot.read(self._run.snapshot, self._plan.digest)
        return None if snapshot is None or snapshot.phase == 0 else snapshot.model


def _drawn(model: ScoreModel, names: Sequence[str]) -> list[Picture]:
    y = torch.arange(len(names)).repeat_interleave(_PER_CLASS)
    noise = ImageNoise(0, [(int(c), i % _PER_CLASS) for i, c in enumerate(y)])
    with torch.inference_mode():
        x = draw_base(model, y, noise, SamplerSettings("heun", num_levels=_LEVELS))
    return sheets(to_pixels(x), y.numpy(), names)
