"""The score network that three of the peers train: ours of ``model=residual``, standing alone.

EDM (Karras et al. 2022, Eq. 7 and Table 1) writes ``D(x; s) = c_skip x + c_out F``. Our network F
also sees a base-denoised image; without our closed form that is c_skip x, the posterior mean of
EDM's own prior, a Gaussian of independent pixels of variance sigma_data².
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dppm_model.score.networks import first_weights
from dppm_model.score.precondition import SIGMA_DATA
from dppm_model.score.residual import ResidualConfig
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.stages import draw_images

# Of ln sigma in training. EDM's -1.2 and 1.2 spend a short training on fine noise: the digits got
# strokes, but not the shape of their class.
P_MEAN, P_STD = 1.0, 1.0
SIGMA_LOW, SIGMA_HIGH = 0.02, 20.0  # of the sampler; beyond, the network sees the end of the range
SAMPLER = SamplerSettings("heun", num_levels=18, sigma_min=SIGMA_LOW, sigma_max=SIGMA_HIGH)


def new_network(shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """Build the `ConvResidual` of our recipe with its first weights; its last layer is zero."""
    config = ResidualConfig(band=max(shape[1:]), sigma_low=SIGMA_LOW, sigma_high=SIGMA_HIGH)
    _, network = config.build(shape, classes)
    nn.utils.vector_to_parameters(first_weights(network, seed), network.parameters())
    return network


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return c_skip and c_out (EDM, Table 1), each (n, 1, 1, 1), of sigma (n,)."""
    total = sigma.square() + SIGMA_DATA**2
    c_skip, c_out = SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt()
    return c_skip[:, None, None, None], c_out[:, None, None, None]


def losses(network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Return lambda(s) |D(x + s n; s) - x|² per record (n,): EDM, Eq. 2 and 8, lambda = 1/c_out².

    One noise level and one noise a record; the mean is over pixels.
    """
    sigma = (P_MEAN + P_STD * torch.randn(len(x), generator=generator)).exp()
    noise = torch.randn(x.shape, generator=generator)
    noisy = x + sigma[:, None, None, None] * noise
    c_skip, c_out = preconditioning(sigma)
    base = c_skip * noisy
    wrong = network(noisy, base, sigma, y) - (x - base) / c_out
    return wrong.square().flatten(1).mean(dim=1)


class Average:
    """Exponential moving average of a network's weights, which is what is sampled from."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.sum = torch.zeros_like(nn.utils.parameters_to_vector(network.parameters()))

    def update(self, network: nn.Module) -> None:
        """Take in the weights as they are now."""
        self.steps += 1
        with torch.no_grad():
            now = nn.utils.parameters_to_vector(network.parameters())
            self.sum.lerp_(now, 1 - self.decay)

    @property
    def weights(self) -> Tensor:
        """The mean, without the zeros it began with (Kingma and Ba 2015, Section 3)."""
        return self.sum / (1 - self.decay**self.steps)


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Rise to the peak, then fall along a cosine to a tenth of it."""
    falling = 0.55 + 0.45 * math.cos(math.pi * step / steps)
    return peak * min(1.0, (step + 1) / warmup) * falling


class ScoreNetwork:
    """A trained network as the `Denoiser` that our samplers draw from."""

    pyramid = None

    def __init__(self, shape: tuple[int, int, int], classes: int, weights: Tensor) -> None:
        self.shape = self.image_shape = shape
        self.classes = classes
        self.network = new_network(shape, classes, seed=0)
        nn.utils.vector_to_parameters(weights.detach().clone(), self.network.parameters())

    def denoise(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """D(x; sigma)."""
        c_skip, c_out = preconditioning(sigma)
        base = c_skip * x
        return base + c_out * self.network(x, base, sigma, y)

    def class_shift(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """Refuse: guidance is not used here."""
        raise NotImplementedError

    @property
    def coordinates(self) -> ScoreNetwork:
        """Draw pixels, nothing else."""
        return self

    def image(self, x: Tensor) -> Tensor:
        """Draw pixels, nothing else."""
        return x

    decode = image

    def draw(self, y: Tensor, seed: int) -> Tensor:
        """Draw images of the classes y by EDM's Heun solver (Algorithm 1)."""
        noise = ImageNoise(seed, [(int(label), i) for i, label in enumerate(y)])
        with torch.inference_mode():
            return draw_images(self, y, noise, SAMPLER)[0]
