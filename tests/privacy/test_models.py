"""A question knows nothing but the record and what the server sends: nothing is left over."""

import numpy as np
import pytest
import torch

from dppm_model.score.closed_form import closed_form
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.pyramid import build_upsampler
from dppm_model.score.residual import ResidualConfig
from tests.support.mutations import twin


@twin(
    "a network starts from uninitialised memory",
    "dppm_model.score.pyramid:zeroed",
    lambda _: lambda network: network.to_empty(device="cpu"),
    only="[detail]",
)
@pytest.mark.parametrize("kind", ["detail", "residual"])
def test_weights_that_are_not_sent_are_zero_not_what_was_freed(kind: str) -> None:
    """Freed memory may have held records; weights from it would make answers depend on them."""

    def build() -> torch.nn.Module:
        if kind == "detail":
            return build_upsampler(1, {})
        return ResidualConfig().build((1, 28, 28), 10)[1]

    sizes = [tuple(p.shape) for p in build().parameters()]
    for _ in range(3):
        secrets = [torch.full(size, 0.123) for size in sizes for _ in range(4)]
        del secrets
        assert all(bool((p == 0).all()) for p in build().parameters())


@twin(
    "a closed form is cached by its arrays alone",
    "dppm_model.score.closed_form:_key",
    lambda _: (
        lambda model: b"".join(
            a.tobytes() for name, a in sorted(model.arrays.items()) if name.startswith("mixture.")
        )
    ),
)
def test_another_model_never_finds_the_closed_form_of_the_last_one() -> None:
    """If it did, whether a record was sampled in the last round would show in this one."""
    settings = {"mixture": {"band": 16, "axes": 8}}
    start = ScoreModel.initial((1, 16, 16), 2, settings)
    assert closed_form(ScoreModel.from_bytes(start.to_bytes())) is closed_form(start)
    for changed in (
        ScoreModel(ModelConfig.of((1, 8, 32), 2, settings), start.arrays),
        start.replace({"mixture.axis_variance": np.full(16, 2.0, np.float32)}),
        start.replace({"mixture.axes": np.roll(np.eye(16, dtype=np.float32), 1, 1)}),
    ):
        before, found = closed_form(start), closed_form(changed)
        assert found is not before
        x = torch.linspace(-1, 1, 256).reshape(1, *changed.config.shape)
        question = x, torch.ones(1), torch.zeros(1, dtype=torch.int64)
        assert torch.equal(found.denoise(*question), changed.denoiser.denoise(*question))
