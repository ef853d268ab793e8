"""DP-MERF: match one noisy mean embedding of the records (Harder, Adamczewski and Park 2021).

Random Fourier features phi(x) = sqrt(2/D) [cos(Wx), sin(Wx)], W ~ N(0, 1/l²), have norm one, and
their inner products approximate the Gaussian kernel of length l (Rahimi and Recht 2007). A record
adds phi(x) (x) e_y to the sum of its class: a vector of norm one. The sums are released once, with
the classes' counts, and a generator is trained to have the same mean embedding of each class, which
costs no more privacy. Add or remove one record is the adjacency here, so sums are released, where
the paper replaces one record and releases means.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.benchmarks.peers.accounting import epsilon_of, noise_for
from tests.benchmarks.peers.peer import ADJACENCY, Task, Trained

_BLOCK = 2000  # records that are embedded at once


@dataclass(frozen=True)
class Recipe:
    """D features of length l; the generator's training; the counts' scale a.

    The counts take a²/(1 + a²) of the budget (of 1/noise²): one per cent.
    """

    features: int = 5_000
    length: float = 20.0  # in pixels' units of [-1, 1]: two digits are about so far apart
    counts_scale: float = 0.1
    steps: int = 1000
    per_class: int = 50
    learning_rate: float = 0.01
    code: int = 5


def frequencies(pixels: int, recipe: Recipe, seed: int) -> Tensor:
    """Draw W (pixels, D/2): public."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pixels, recipe.features // 2, generator=generator) / recipe.length


def embed(x: Tensor, w: Tensor) -> Tensor:
    """phi: (n, C, H, W) -> (n, D), each of norm one."""
    phase = x.flatten(1) @ w
    return torch.cat([phase.cos(), phase.sin()], dim=1) / math.sqrt(w.shape[1])


def statistic(x: Tensor, y: Tensor, classes: int, w: Tensor, counts_scale: float) -> Tensor:
    """Return what is released, before its noise: (classes, D + 1), sums and scaled counts."""
    total = torch.zeros(classes, 2 * w.shape[1] + 1, dtype=torch.float64)
    for images, labels in zip(x.split(_BLOCK), y.split(_BLOCK), strict=True):
        own = functional.one_hot(labels, classes).float()
        total[:, :-1] += own.T @ embed(images, w)
        total[:, -1] += counts_scale * own.sum(0)
    return total


def sensitivity(counts_scale: float) -> float:
    """L2 norm of what one record adds: (phi (x) e_y, a e_y)."""
    return math.sqrt(1 + counts_scale**2)


def means(released: Tensor, counts_scale: float) -> Tensor:
    """Divide noisy sums by noisy counts: (classes, D)."""
    counts = (released[:, -1:] / counts_scale).clamp(min=1.0)
    return (released[:, :-1] / counts).float()


class Generator(nn.Module):
    """Code and class -> image: two linear layers, then twice an upsampling and a convolution."""

    def __init__(self, shape: tuple[int, int, int], classes: int, code: int) -> None:
        super().__init__()
        self.shape, self.classes, self.code = shape, classes, code
        self.small = tuple(math.ceil(n / 4) for n in shape[1:])
        self.first = nn.Linear(code + classes, 200)
        self.norm = nn.BatchNorm1d(200)
        self.second = nn.Linear(200, 16 * math.prod(self.small))
        self.convolutions = nn.ModuleList(
            [nn.Conv2d(16, 8, 5, padding=2), nn.Conv2d(8, shape[0], 5, padding=2)]
        )

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Map z (n, code) and y (n,) to (n, C, H, W) in [-1, 1]."""
        x = torch.cat([z, functional.one_hot(y, self.classes)], dim=1)
        x = functional.relu(self.second(functional.relu(self.norm(self.first(x)))))
        x = x.view(len(z), 16, *self.small)
        for number, convolution in enumerate(self.convolutions):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear")
            x = convolution(functional.relu(x) if number else x)
        return x[:, :, : self.shape[1], : self.shape[2]].tanh()


def fit(generator: Generator, target: Tensor, w: Tensor, recipe: Recipe, seed: int) -> None:
    """Minimise the squared distance of mean embeddings, summed over classes (the paper's Eq. 5)."""
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(generator.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    y = torch.arange(generator.classes).repeat_interleave(recipe.per_class)
    for _ in range(recipe.steps):
        z = torch.randn(len(y), recipe.code, generator=draws)
        phi = embed(generator(z, y), w).view(generator.classes, recipe.per_class, -1)
        optimizer.zero_grad()
        (phi.mean(1) - target).square().sum().backward()
        optimizer.step()
        schedule.step()
    generator.eval()


def train(task: Task) -> Trained:
    """Release once within the task's epsilon, then fit; ``task.rounds`` are steps here."""
    recipe = Recipe(steps=task.rounds or Recipe.steps)
    w = frequencies(task.x[0].numel(), recipe, task.seed)
    noise = noise_for(task.epsilon, task.delta)
    released = statistic(task.x, task.y, task.classes, w, recipe.counts_scale)
    released += noise * sensitivity(recipe.counts_scale) * torch.randn(released.shape)
    torch.manual_seed(task.seed)  # first weights
    generator = Generator(task.shape, task.classes, recipe.code)
    fit(generator, means(released, recipe.counts_scale), w, recipe, task.seed)

    def draw(y: Tensor, seed: int) -> Tensor:
        codes = torch.randn(len(y), recipe.code, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            return generator(codes, y)

    return Trained(
        draw,
        "a curator who holds all records",
        ADJACENCY,
        epsilon_of(noise, task.delta),
        asdict(recipe) | {"noise_multiplier": noise},
    )
