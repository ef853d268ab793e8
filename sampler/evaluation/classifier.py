"""Classifiers of three kinds, and one way to train any of them.

Training sees training images and their labels only. Its constants, the recipes, are a closed
choice, the same for every data set. They were set once, on held-out *training* images. Nothing is
chosen per data set, per run or per budget, so accuracies of one recipe can be compared; flips are
the exception, because only a person knows whether a mirrored image keeps its class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator
from torch import Tensor, nn

from dppm_model.settings import AsTuple, Natural
from dppm_model.settings import Settings as Group

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Records = tuple[Images, Labels]


@dataclass(frozen=True)
class Settings:
    """How one network is trained: AdamW, one-cycle learning rate, cross-entropy, random crops.

    The budget is in steps and not in epochs, so that a small synthetic set is trained as long as a
    large real one.
    """

    kind: str
    """``cnn``, ``mlp`` or ``resnet``."""
    widths: tuple[int, ...]
    """Channels of the three convolutions or stages (multiples of 8), or units of the two hidden
    layers."""
    steps: int
    batch: int
    learning_rate: float
    """The peak of the one-cycle schedule."""
    side: int
    """Larger images are average-pooled until neither side is longer than this."""
    shift: int = 28
    """Images move by at most their side divided by this, anew in each step."""
    flips: bool = False
    """Whether half of the images of each step are mirrored, left to right."""
    weight_decay: float = 0.01
    held_out: float = 0.05
    """Share of the training images that is not trained on but scored, see `Classifier`."""

    def __str__(self) -> str:
        widths = "-".join(map(str, self.widths))
        flips = ", mirrored" if self.flips else ""
        steps = f"{self.steps} steps of {self.batch}"
        return f"{self.kind} {widths}, {steps}, at most {self.side} px{flips}"


@dataclass(frozen=True)
class Recipe:
    """How both classifiers are trained, on synthetic and on real images alike."""

    name: str
    cnn: Settings
    """A network of convolutions, plain or residual, whose features the distances use."""
    mlp: Settings

    def flipped(self) -> Recipe:
        """Return this recipe with mirrored images, for data whose classes a mirror keeps."""
        cnn, mlp = replace(self.cnn, flips=True), replace(self.mlp, flips=True)
        return replace(self, cnn=cnn, mlp=mlp)


_MLP = Settings("mlp", (256, 256), steps=2500, batch=64, learning_rate=2e-3, side=32)

QUICK = Recipe(
    "quick",
    Settings("cnn", (16, 32, 32), steps=3750, batch=64, learning_rate=4e-3, side=64),
    _MLP,
)
"""Half a minute of a core a training; by it, real Fashion-MNIST gives 0.906."""

THOROUGH = Recipe(
    "thorough",
    Settings(
        "resnet",
        (64, 128, 256),
        steps=3000,
        batch=128,
        learning_rate=2e-3,
        side=64,
        shift=8,
        weight_decay=0.05,
    ),
    _MLP,
)
"""About twenty minutes of a core a training; after half the steps, real blood cells of 64 pixels
give 0.963."""

RECIPES = {recipe.name: recipe for recipe in (QUICK, THOROUGH)}


class EvaluationConfig(Group):
    """How images are judged."""

    recipe: Literal["quick", "thorough"] = "quick"
    """How classifiers are trained: a small network in half a minute of a core, or a residual one
    in about twenty."""
    seeds: Annotated[tuple[Natural, ...], AsTuple, Field(min_length=1)]
    """One training each, all different; two or more give a standard deviation."""
    flips: bool = False
    """Mirror half of the training images, left to right; only for data whose classes a mirror
    keeps: photographs of things, but no digits, letters or organs."""
    public_images: Natural = 2000
    """Images of each set that are compared in public features (EfficientNet-Lite0, ImageNet): half
    a minute of a core for 2000, and a minute for the real ones, once; 0 leaves them out."""
    inception: str | None = None
    """A TorchScript file of a network for Fréchet and kernel distances beside those, such as the
    Inception network of published ones: uint8 RGB images (n, 3, H, W) to features (n, f)."""

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):  # duplicates would understate the deviation
            raise ValueError("different seeds: evaluation.seeds=[0,1,2]")
        return seeds


@dataclass(frozen=True)
class Classifier:
    """A trained network with what it takes to prepare images for it."""

    network: nn.Sequential
    settings: Settings
    mean: float
    """Mean pixel (0 to 255) of the training images; ``std`` likewise."""
    std: float
    held_out_accuracy: float
    """Accuracy on held-out *training* images: low means the classifier did not learn its own kind
    of image; high beside a low test accuracy means the images are not like the real ones."""

    @property
    def device(self) -> torch.device:
        """The network's device."""
        return next(self.network.parameters()).device


def shrink(images: Images, side: int) -> Tensor:
    """Average-pool (n, C, H, W) uint8 until max(H, W) <= side; smaller images stay as they are."""
    factor = math.ceil(max(images.shape[2:]) / side)
    if factor == 1:
        return torch.from_numpy(np.array(images))
    height, width = images.shape[2:]
    size = (math.ceil(height / factor), math.ceil(width / factor))
    out = torch.empty((*images.shape[:2], *size), dtype=torch.uint8)
    for begin in range(0, len(images), 500):
        chunk = torch.from_numpy(np.array(images[begin : begin + 500])).float()
        pooled = nn.functional.adaptive_avg_pool2d(chunk, size)
        out[begin : begin + 500] = pooled.round().to(torch.uint8)
    return out


class Fold(nn.Module):
    """Fold patches into channels so that the grid is at most 16 by 16, for any image size."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.factor = math.ceil(max(height, width) / 16)
        self.padding = (0, -width % self.factor, 0, -height % self.factor)

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, C f², ceil(H/f), ceil(W/f))."""
        padded = nn.functional.pad(x, self.padding)
        return nn.functional.pixel_unshuffle(padded, self.factor)


def build(
    settings: Settings, shape: tuple[int, int, int], classes: int, generator: torch.Generator
) -> nn.Sequential:
    """Untrained network for images of ``shape`` (C, H, W); its last layer reads the features."""
    # Built on the meta device, because the layers' own first weights come from a global RNG.
    layers = {"cnn": _cnn, "mlp": _mlp, "resnet": _resnet}[settings.kind]
    with torch.device("meta"):
        network = layers(settings.widths, shape, classes)
    network.to_empty(device="cpu")
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:  # of a GroupNorm the scale, of anything else the bias
            nn.init.constant_(parameter, float(name.endswith("weight")))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _mlp(widths: tuple[int, ...], shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    first, second = widths
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), first),
        nn.SiLU(),
        nn.Linear(first, second),
        nn.SiLU(),
        nn.Linear(second, classes),
    )


def _cnn(widths: tuple[int, ...], shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    channels, height, width = shape
    first, second, third = widths
    fold = Fold(height, width)
    cells = math.prod(math.ceil(math.ceil(n / fold.factor) / 2) for n in (height, width))

    def block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        return [convolution, nn.GroupNorm(outputs // 8, outputs), nn.SiLU()]

    return nn.Sequential(
        fold,
        *block(channels * fold.factor**2, first),
        *block(first, second, stride=2),
        *block(second, third),
        nn.Flatten(),
        nn.Linear(third * cells, 128),
        nn.SiLU(),
        nn.Linear(128, classes),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, each after its GroupNorm and SiLU (He et al.)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.GroupNorm(inputs // 8, inputs), nn.SiLU())
        self.skip = (
            nn.Identity()
            if inputs == outputs and stride == 1
            else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
        )
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(outputs // 8, outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, H, W) -> (n, outputs, ceil(H / stride), ceil(W / stride))."""
        normed = self.norm(x)
        skip = x if isinstance(self.skip, nn.Identity) else self.skip(normed)
        return skip + self.branch(normed)  # type: ignore[no-any-return]


def _resnet(widths: tuple[int, ...], shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    channels, height, width = shape
    fold = Fold(height, width)
    stages: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(zip((widths[0], *widths), widths, strict=False)):
        stages += [Residual(inputs, outputs, 2 if i else 1), Residual(outputs, outputs, 1)]
    return nn.Sequential(
        fold,
        nn.Conv2d(channels * fold.factor**2, widths[0], 3, padding=1, bias=False),
        *stages,
        nn.GroupNorm(widths[-1] // 8, widths[-1]),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], classes),
    )


def shift(x: Tensor, generator: torch.Generator, part: int = 28) -> Tensor:
    """Move each image (n, C, H, W) by its side / ``part`` at most; the border pixel is repeated."""
    n, channels, height, width = x.shape
    most = max(1, max(height, width) // part)

    def moved(length: int) -> Tensor:
        offsets = torch.randint(-most, most + 1, (n, 1), generator=generator)
        return (torch.arange(length) + offsets).clamp(0, length - 1)

    rows, columns = moved(height)[:, None, :, None], moved(width)[:, None, None, :]
    images, colours = torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None]
    return x[tuple(index.to(x.device) for index in (images, colours, rows, columns))]


def train_classifier(
    images: Images,
    labels: Labels,
    progress: Callable[[float], None] | None = None,
    *,
    classes: int,
    seed: int,
    settings: Settings,
    device: torch.device | str = "cpu",
) -> Classifier:
    """Train by ``settings``.

    Parameters
    ----------
    images, labels
        (n, C, H, W) uint8 and (n,) int64; the *only* data that training sees.
    seed
        Decides first weights, order, shifts and which images are held out. The same seed on the
        same number of torch threads, or the same kind of GPU, gives the same bits.
    device
        The device of the training, where the network stays.
    progress
        Called with the share of the steps done.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = shrink(images, settings.side), torch.from_numpy(np.array(labels))
    order = torch.randperm(len(x), generator=generator)
    cut = math.ceil(settings.held_out * len(x))
    held_out, kept = order[:cut], order[cut:]
    mean, std = x[kept].float().mean().item(), max(1.0, x[kept].float().std().item())

    network = build(settings, (x.shape[1], x.shape[2], x.shape[3]), classes, generator).to(device)
    x, y = x.to(device), y.to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.steps, pct_start=0.2
    )
    batch = min(settings.batch, len(kept))
    epoch = kept[:0]
    for step in range(settings.steps):
        if len(epoch) < batch:
            epoch = kept[torch.randperm(len(kept), generator=generator)]
        chosen, epoch = epoch[:batch], epoch[batch:]
        moved = shift(x[chosen], generator, settings.shift)
        if settings.flips:
            mirrored = torch.rand((batch, 1, 1, 1), generator=generator) < 0.5
            moved = torch.where(mirrored.to(moved.device), moved.flip(3), moved)
        inputs = (moved.float() - mean) / std
        logits = network(inputs.contiguous(memory_format=torch.channels_last))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits, y[chosen])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if progress is not None and step % 50 == 49:
            progress((step + 1) / settings.steps)

    right = _apply(network, x[held_out], mean, std).argmax(1) == y[held_out].cpu()
    held_out_accuracy = right.float().mean().item()
    return Classifier(network, settings, mean, std, held_out_accuracy)


def predict(classifier: Classifier, images: Images) -> Labels:
    """Most likely class of each image, (n,) int64."""
    return _outputs(classifier, classifier.network, images).argmax(1).numpy()


def accuracy(classifier: Classifier, images: Images, labels: Labels) -> float:
    """Share of images whose predicted class is their label."""
    return float(np.mean(predict(classifier, images) == labels))


def features(classifier: Classifier, images: Images) -> NDArray[np.float64]:
    """Activations before the last layer, (n, f)."""
    return _outputs(classifier, classifier.network[:-1], images).double().numpy()


def _outputs(classifier: Classifier, network: nn.Module, images: Images) -> Tensor:
    small = shrink(images, classifier.settings.side)
    return _apply(network, small, classifier.mean, classifier.std)


@torch.no_grad()
def _apply(network: nn.Module, x: Tensor, mean: float, std: float) -> Tensor:
    """Run uint8 images (n, C, h, w), normalized, through ``network``, 500 at a time: on the CPU."""
    device = next(network.parameters()).device
    chunks = ((chunk.to(device).float() - mean) / std for chunk in torch.split(x, 500))
    outputs = [network(c.contiguous(memory_format=torch.channels_last)).cpu() for c in chunks]
    return torch.cat(outputs)


def mean_and_std(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return ``name`` and ``name_std``: mean and standard deviation over seeds.

    ``values`` has one entry for each seed: a number, or one number for each class; None is not
    known.

    Returns
    -------
    Numbers, or lists of one number a class. The standard deviation is the sample's (n - 1), None
    for a single seed. It describes *one* training over seeds with the same images, not the
    randomness of the private run that made them.
    """
    table = np.asarray(values, dtype=np.float64)  # None becomes nan
    spread = _numbers(table.std(0, ddof=1)) if len(table) > 1 else None
    return {name: _numbers(table.mean(0)), f"{name}_std": spread}


def _numbers(values: Any) -> Any:
    """Numbers for JSON, with None for nan."""
    table = np.asarray(values, dtype=object)
    table[np.isnan(values)] = None
    return table.tolist()
