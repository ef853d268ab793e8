"""EDM's preconditioning (Karras et al. 2022, Table 1) around a closed-form denoiser.

EDM writes ``D = c_skip x + c_out F(c_in x; c_noise)``. For a Gaussian with independent pixels of
variance sigma_data², c_skip x is the posterior mean and c_out the posterior standard deviation.
Here both come from the closed form, a better prior: ``D = D_base(x) + c_out F(c_in x, D_base;
c_noise)`` with c_out² the mean posterior variance. The loss weight stays 1/c_out², so that the
loss of F = 0 is about one at every sigma.
"""

from __future__ import annotations

import math

import torch

SIGMA_DATA = 0.5  # EDM's, for pixels in [-1, 1]
WAVES = 4  # sines, and as many cosines, of ln sigma


def c_in(sigma: torch.Tensor) -> torch.Tensor:
    """Return the scale that gives the network's input a variance near one; shaped like sigma."""
    return 1 / torch.sqrt(sigma**2 + SIGMA_DATA**2)


def c_noise(sigma: torch.Tensor) -> torch.Tensor:
    """Return the network's noise-level input, c_noise; shaped like sigma."""
    return sigma.log() / 4


def waves(sigma: torch.Tensor) -> torch.Tensor:
    """Return sines and cosines of the noise level (n,), a network's input: (n, 2·`WAVES`)."""
    phase = c_noise(sigma)[:, None] * math.pi / 2 * 2.0 ** torch.arange(WAVES, device=sigma.device)
    return torch.cat([phase.sin(), phase.cos()], dim=1)
