"""What a person looks at: whether the Markov chain accepts, diverges and mixes.

At high noise levels chains from places far apart should agree (R-hat near 1). At low ones each
keeps its own picture: there the annealing from above, not the chain, finds the share of each.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.files import write_bytes
from dppm_model.score.denoiser import ImageModel
from sampler.anneal import annealed, kernel
from sampler.images import to_pixels
from sampler.kernels import MetropolisInfo
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.sheet import contact_sheet
from sampler.solvers import noise_levels
from sampler.stages import base_settings
from sampler.target import Target

_PROBES = 8  # directions in which chains are compared


@dataclass(frozen=True)
class Level:
    """One noise level of an annealed run."""

    sigma: float
    acceptance: float  # mean acceptance probability
    # its 5 %, 50 % and 95 % quantiles of H(end) - H(start)
    energy_errors: tuple[float, float, float]
    divergences: int  # transitions whose energy error was out of all proportion


def watch(
    model: ImageModel,
    settings: SamplerSettings,
    per_class: int = 16,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[list[Level], NDArray[np.uint8], NDArray[np.int64]]:
    """Anneal a batch of base images on the model's ``device`` and keep what happened.

    Returns the levels; denoised images (levels, n, C, H, W) after each; labels (n,).
    """
    settings, base = base_settings(model, settings), model.coordinates
    names = [(label, i) for label in range(model.classes) for i in range(per_class)]
    y = torch.tensor([label for label, _ in names], device=device)
    levels: list[Level] = []
    frames: list[NDArray[np.uint8]] = []

    def keep(sigma: float, denoised: torch.Tensor, infos: list[MetropolisInfo]) -> None:
        errors = torch.cat([i.delta_energy for i in infos]).cpu()
        low, middle, high = torch.quantile(errors, torch.tensor([0.05, 0.5, 0.95]).double())
        levels.append(
            Level(
                sigma,
                float(torch.cat([i.acceptance_rate for i in infos]).mean()),
                (float(low), float(middle), float(high)),
                int(torch.cat([i.is_divergent for i in infos]).sum()),
            )
        )
        frames.append(to_pixels(base.image(denoised)))

    with torch.inference_mode():
        annealed(base, y, ImageNoise(seed, names, device), settings, watch=keep)
    return levels, np.stack(frames), y.cpu().numpy()


def mixing(
    model: ImageModel,
    settings: SamplerSettings,
    *,
    level: int,
    chains: int = 8,
    draws: int = 400,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Run chains of one class side by side at one noise level, from places far apart.

    They start at noise that is twice as wide as the level, so that chains which agree have
    forgotten where they came from. Compared are random projections of the noisy image.
    ``device`` is the model's.

    Returns ``sigma``, and over the projections the largest R-hat, the smallest effective sample
    size of the second half (Vehtari et al. 2021), and that size for each evaluation of the network.
    """
    settings, base = base_settings(model, settings), model.coordinates
    sigma = noise_levels(settings.sigma_max, settings.sigma_min, settings.num_levels, settings.rho)[
        level
    ]
    noise = ImageNoise(seed, [(0, i) for i in range(chains)], device)
    y = torch.zeros(chains, dtype=torch.int64, device=device)
    probes = torch.from_numpy(
        np.random.default_rng(seed).standard_normal((_PROBES, int(np.prod(base.shape))))
    ).to(device)
    target = Target(base, y, settings.guidance)
    score = partial(target.score, sigma)
    algorithm = kernel(settings)(score, settings.step_sizes(math.prod(model.shape))[level] * sigma)
    with torch.inference_mode():
        state = algorithm.init(2 * sigma * noise.normal(base.shape), noise)
        path = np.empty((_PROBES, chains, draws))
        for t in range(draws):
            state, _ = algorithm.step(noise, state)
            path[:, :, t] = (probes @ state.position.flatten(1).double().T).cpu().numpy()
    from arviz_stats.base import array_stats  # slow to import, and only needed here

    axes = {"chain_axis": 1, "draw_axis": 2}
    late = path[:, :, draws // 2 :]
    effective = float(array_stats.ess(late, method="mean", **axes).min())
    return {
        "sigma": sigma,
        "r_hat": float(array_stats.rhat(late, method="split", **axes).max()),
        "effective_draws": effective,
        "per_evaluation": effective / (target.evaluations * chains / 2),
    }


def film_strip(frames: NDArray[np.uint8], labels: NDArray[np.int64], path: Path) -> None:
    """Write a PNG with one image of each class in a row, from high to low sigma."""
    _, firsts = np.unique(labels, return_index=True)
    strip = frames[:, firsts].swapaxes(0, 1)  # (classes, levels, C, H, W)
    rows = np.repeat(labels[firsts], strip.shape[1])
    contact_sheet(strip.reshape(-1, *strip.shape[2:]), rows, path, columns=strip.shape[1])


def plot(levels: list[Level], mixed: list[dict[str, Any]], path: Path) -> None:
    """Draw acceptance, energy errors and mixing against the noise level, as a PNG."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(9, 7), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    sigma = [level.sigma for level in levels]
    top.plot(sigma, [level.acceptance for level in levels], marker="o")
    top.set(ylabel="acceptance", ylim=(0, 1.02))
    low, median, high = np.array([level.energy_errors for level in levels]).T
    middle.fill_between(sigma, low, high, alpha=0.3, label="5 % to 95 %")
    middle.plot(sigma, median, label="median")
    middle.set(ylabel="energy error")
    middle.legend()
    bottom.plot([m["sigma"] for m in mixed], [m["r_hat"] for m in mixed], marker="s", label="R-hat")
    bottom.axhline(1.01, color="grey", linewidth=0.8)
    bottom.set(xlabel="noise level σ", ylabel="R-hat of 8 chains", xscale="log")
    top.invert_xaxis()
    divergences = sum(level.divergences for level in levels)
    figure.suptitle(f"{divergences} divergences in {len(levels)} levels")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
    write_bytes(path, buffer.getvalue())


def diagnose(
    model: ImageModel,
    settings: SamplerSettings,
    folder: Path,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Watch a run on the model's ``device``, compare chains at a few levels, write both pictures.

    Returns figures for JSON, with the pictures' paths.
    """
    levels, frames, labels = watch(model, settings, device=device)
    few = np.unique(np.linspace(0, len(levels) - 1, 5).astype(int))
    mixed = [mixing(model, settings, level=int(level), device=device) for level in few]
    plot(levels, mixed, folder / "diagnostics.png")
    film_strip(frames, labels, folder / "film.png")
    return {
        "levels": [vars(level) for level in levels],
        "mixing": mixed,
        "divergences": sum(level.divergences for level in levels),
        "plot": str(folder / "diagnostics.png"),
        "film": str(folder / "film.png"),
    }
