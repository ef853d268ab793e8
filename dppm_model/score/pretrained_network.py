"""The network F of a denoiser that was trained on public images, told by a closed form which it is.

    D(x; sigma, y) = D_closed(x; sigma, y) + s F(r, D_closed, mean_y, std_y; sigma, s)

with s(sigma) the closed form's typical error, and r = (x - D_closed)/sqrt(sigma² + s²) what it took
for noise. Everything that F knows of a data set comes from the closed form: the mean and the
standard deviation of each pixel of a class are inputs beside the image.

Images of any size become 16 × 16 places or so (squares of 2 × 2 or 4 × 4 pixels are folded into
channels), so that one body serves small and large images: only the outermost layers differ. Grey
images are seen as RGB with three equal channels, and their F is the mean of three.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from dppm_model.errors import ConfigError
from dppm_model.mechanism.products import Linear
from dppm_model.score.mixture import Mixture
from dppm_model.score.precondition import WAVES, waves

SIZES = {"small": (64, 96), "base": (128, 192)}  # channels at the finer and the coarser places
FOLDS = (2, 4)  # pixels a side of a place
_LARGEST = {2: 40, 4: 96}  # pixels of the longer side that each fold is for
_RGB, _IMAGES, _PLANES = 3, 4, 2  # channels; images that F sees; planes that tell a place
_GROUPS = 8  # of channels, normalised together
_BEFORE, _WITHIN, _AFTER = 2, 3, 2  # blocks: fine places, coarse places, fine places
TRAINED = ("up.", "after.")  # what private rounds train, beside the last layer


def fold_of(shape: tuple[int, int, int]) -> int:
    """Return the pixels a side that make one place of images (C, H, W).

    Raises
    ------
    ConfigError
        If the network is not for such images.
    """
    fold = next((f for f in FOLDS if max(shape[1:]) <= _LARGEST[f]), None)
    if shape[0] not in (1, _RGB) or fold is None:
        raise ConfigError(
            f"The pretrained network is for grey and RGB images of at most {_LARGEST[4]} pixels a "
            f"side, not for {shape}.",
            "Use model=pretrained_pyramid for larger images, or another model=….",
        )
    return fold


class PretrainedNetwork(nn.Module):
    """The network; it begins at zero, since its last layer does.

    Parameters
    ----------
    size
        One of `SIZES`.
    """

    def __init__(self, size: str) -> None:
        super().__init__()
        fine, coarse = SIZES[size]
        self.conditioning = Linear(4 * WAVES, fine)
        self.inner = nn.ModuleDict(
            {str(f): _conv(_IMAGES * _RGB * f * f + _PLANES, fine) for f in FOLDS}
        )
        self.before = _blocks(fine, fine, _BEFORE)
        self.down = _conv(fine, coarse)
        self.within = _blocks(coarse, fine, _WITHIN)
        self.up = nn.Conv2d(coarse, 4 * fine, 1)
        self.after = _blocks(fine, fine, _AFTER)
        self.outer = nn.ModuleDict({str(f): _conv(fine, _RGB * f * f) for f in FOLDS})

    def forward(
        self,
        noise: torch.Tensor,
        base: torch.Tensor,
        maps: torch.Tensor,
        sigma: torch.Tensor,
        error: torch.Tensor,
    ) -> torch.Tensor:
        """Return F, (n, C, H, W).

        Parameters
        ----------
        noise, base
            (n, C, H, W) r and D_closed.
        maps
            (n, 2, C, H, W) mean and standard deviation of the class.
        sigma, error
            (n,) noise level, and s.
        """
        channels, height, width = base.shape[1:]
        fold = fold_of((channels, height, width))
        e = functional.silu(self.conditioning(torch.cat([waves(sigma), waves(error)], dim=1)))
        seen = torch.stack([noise, base, maps[:, 0], maps[:, 1]], dim=1)
        seen = seen.expand(-1, -1, _RGB, -1, -1).flatten(1, 2)
        x = functional.pixel_unshuffle(_padded(seen, 2 * fold), fold)
        x = self.inner[str(fold)](_placed(x))
        x = x.contiguous(memory_format=torch.channels_last)
        for block in self.before:
            x = block(x, e)
        skip, x = x, self.down(functional.avg_pool2d(x, 2))
        for block in self.within:
            x = block(x, e)
        x = skip + functional.pixel_shuffle(self.up(x), 2)
        for block in self.after:
            x = block(x, e)
        x = functional.pixel_shuffle(self.outer[str(fold)](functional.silu(_normal(x))), fold)
        x = x[:, :, :height, :width]
        return x if channels == _RGB else x.mean(dim=1, keepdim=True)


def network_inputs(
    x: torch.Tensor,
    sigma: torch.Tensor,
    y: torch.Tensor,
    mixture: Mixture,
    maps: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Let the closed form do its part.

    Parameters
    ----------
    x, sigma, y
        (n, C, H, W) noisy images, (n,) noise levels, (n,) labels.
    maps
        `class_maps` of the mixture.

    Returns
    -------
    What `PretrainedNetwork` takes: r, D_closed, maps of the labels, sigma, s.
    """
    base = mixture.denoise(x, sigma, y)
    error = mixture.posterior_variance(sigma).sqrt()
    scale = torch.sqrt(sigma**2 + error**2)[:, None, None, None]
    return (x - base) / scale, base, maps[y], sigma, error


class _Block(nn.Module):
    """Two convolutions of normalised places, the second modulated by noise level and error."""

    def __init__(self, channels: int, conditions: int) -> None:
        super().__init__()
        self.film = Linear(conditions, 2 * channels)
        self.first, self.last = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(e)[:, :, None, None].chunk(2, dim=1)
        h = _normal(self.first(functional.silu(_normal(x)))) * (1 + scale) + shift
        out: torch.Tensor = x + self.last(functional.silu(h))
        return out


def _blocks(channels: int, conditions: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(_Block(channels, conditions) for _ in range(count))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _normal(x: torch.Tensor) -> torch.Tensor:
    return functional.group_norm(x, _GROUPS)


def _padded(x: torch.Tensor, multiple: int) -> torch.Tensor:
    """Repeat the last row and column until both sides are multiples."""
    height, width = x.shape[2:]
    return functional.pad(x, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def _placed(x: torch.Tensor) -> torch.Tensor:
    """Add two planes that tell each place where it is."""
    n, _, h, w = x.shape
    rows = torch.linspace(-1, 1, h, device=x.device)[:, None].expand(n, 1, h, w)
    columns = torch.linspace(-1, 1, w, device=x.device).expand(n, 1, h, w)
    return torch.cat([x, rows, columns], dim=1)


def first_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights that public training begins with: variance 1/fan-in, ends zero."""
    with torch.no_grad():
        for name, p in network.named_parameters():
            zero = p.ndim == 1 or name.startswith("outer.") or ".last." in name
            drawn = torch.randn(p.shape, generator=generator) * p[0].numel() ** -0.5
            p.copy_(torch.zeros_like(p) if zero else drawn)
