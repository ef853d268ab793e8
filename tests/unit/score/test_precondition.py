"""Around a Gaussian with independent pixels, the closed form is EDM's preconditioning."""

import pytest
import torch

from dppm_model.score.model import ScoreModel
from dppm_model.score.precondition import SIGMA_DATA, c_in, c_noise

SIGMA = torch.tensor([0.02, 0.3, 1.0, 7.0, 80.0])


def test_scales_are_those_of_edm() -> None:
    """Karras et al. 2022, Table 1, last column."""
    torch.testing.assert_close(c_in(SIGMA), (SIGMA**2 + SIGMA_DATA**2) ** -0.5)
    torch.testing.assert_close(c_noise(SIGMA), SIGMA.log() / 4)
    x = SIGMA_DATA * torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    for sigma in SIGMA:
        # The standard error of the variance is sqrt(2/1e5) = 0.45 %; 3 % is beyond six of them.
        assert float((c_in(sigma) * (x + sigma * noise)).var()) == pytest.approx(1, rel=0.03)


def test_base_and_posterior_deviation_play_c_skip_and_c_out() -> None:
    """EDM: c_skip = s²/(sigma² + s²), c_out = sigma·s/sqrt(sigma² + s²), with s = sigma_data."""
    model = ScoreModel.initial((1, 4, 4), 2, {"mixture": {"band": 16, "background": 0.0}})
    white = torch.eye(16).expand(2, 16, 16) * SIGMA_DATA**2
    model = model.replace({"mixture.covariance": white.numpy().astype("f4")})
    x, y = (
        torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)),
        torch.zeros(5).long(),
    )
    s2, t2 = SIGMA_DATA**2, SIGMA**2
    c_skip = (s2 / (t2 + s2))[:, None, None, None]
    torch.testing.assert_close(model.denoise(x, SIGMA, y), c_skip * x, rtol=1e-4, atol=1e-5)
    c_out = SIGMA * SIGMA_DATA / torch.sqrt(t2 + s2)
    torch.testing.assert_close(
        model.denoiser.error_std(SIGMA).flatten(), c_out, rtol=1e-4, atol=1e-5
    )
