"""Differentially private federated image generation, from Python.

    import dppm

    print(dppm.plan("data=mnist", "privacy.epsilon=1")["epsilon_site"])
    run = dppm.simulate("runs/first", "data=mnist", "sites=20")
    images, labels = dppm.sample(run, "sampler.per_class=100")
    print(dppm.evaluate(run)["accuracy"])

Each function does the same as the command of its name (`dppm plan`, …), without printing. It takes
the same overrides (``dppm config`` lists them), uses the same run folders, and raises the same
errors (`dppm_model.errors`). The parts are importable too: `dppm_model.mechanism`,
`dppm_model.privacy`, `sampler.hmc`; see ``examples/``.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["audit", "evaluate", "load", "plan", "sample", "simulate"]


def plan(*overrides: str) -> dict[str, Any]:
    """Compute the cost of a run before anything is spent.

    Returns
    -------
    The content of the run's ``privacy.json``: ε of each view, δ, unit, assumptions, phases.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of its range.
    DataError
        If the data set is not in the local store.

    Examples
    --------
    >>> small = ["data=tiny", "sites=3", "model.mixture.band=16", "model.mixture.axes=8"]
    >>> promised = plan(*small, "privacy.epsilon=1")
    >>> round(promised["epsilon_secure_sum"], 1), promised["unit"], promised["honest_sites"]
    (1.0, 'record', 3)
    """
    from deploy import simulate as simulation

    config = simulation.resolve(overrides)
    return simulation.privacy_json(simulation.plan_of(config, "plan"), config)


def simulate(folder: str | PathLike[str], *overrides: str) -> Path:
    """Train with virtual sites on this machine, or resume a run that was interrupted.

    Parameters
    ----------
    folder
        The run folder; made if it does not exist.
    overrides
        Leave them out to resume.

    Returns
    -------
    The run folder, with ``model.safetensors`` and ``privacy.json`` in it.

    Raises
    ------
    ConfigError, DataError
        As `plan`.
    RunFolderError
        If the folder holds another run, or another command works in it.
    FederationError
        If the rounds could not be finished. The same call resumes.

    Examples
    --------
    >>> run = simulate("first", *small, "privacy.epsilon=1", "backend=inprocess")
    >>> (run / "model.safetensors").exists(), (run / "privacy.json").exists()
    (True, True)
    """
    from deploy import simulate as simulation

    run, config, _ = simulation.prepare(Path(folder), overrides)
    simulation.simulate(run, config)
    return run.folder


def sample(
    folder: str | PathLike[str], *overrides: str
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Draw images of every class from a trained run; images that exist are not drawn again.

    Returns
    -------
    Images (n, C, H, W) uint8 and their labels (n,).

    Raises
    ------
    RunFolderError
        If the run has no model yet.

    Examples
    --------
    >>> images, labels = sample("first", "sampler.per_class=20", "pool.workers=0")
    >>> images.shape, labels.tolist().count(1)
    ((40, 1, 8, 8), 20)
    """
    from deploy.sampling import draw, retaken, trained
    from sampler.images import load_images

    run = trained(Path(folder), "sample")
    draw(run, retaken(run, overrides, "sampler", "pool", "device"))
    return load_images(run.samples)


def evaluate(folder: str | PathLike[str], *overrides: str) -> dict[str, Any]:
    """Train classifiers on a run's images, test them on real ones, and measure distances.

    Returns
    -------
    The content of ``evaluation.json``. It was computed from real records: ε does not cover it.

    Raises
    ------
    RunFolderError
        If the run has no images yet.
    DataError
        If the real data set is not in the local store.
    """
    from deploy.commands import measure
    from deploy.sampling import retaken, trained

    run = trained(Path(folder), "evaluate")
    settings = retaken(run, overrides, "evaluation", "device")
    return measure(run, settings["evaluation"], settings["device"])


def audit(
    folder: str | PathLike[str],
    *,
    canaries: int = 5000,
    images: int = 400,
    trials: int = 100_000,
    members: int = 2000,
) -> dict[str, Any]:
    """Attack the releases of a run: lower bounds on ε beside the claims.

    Parameters
    ----------
    canaries, images
        Artificial units in or out of the whole run, as worst-case vectors and as images of noise.
    trials
        Simulated rounds with a unit, and as many without it.
    members
        Records whose membership is guessed from the model and its images.

    Returns
    -------
    The content of ``audit.json``.

    Raises
    ------
    RunFolderError
        If there is no model yet.
    ClaimRefuted
        If an attack found more than was claimed.
    """
    from deploy.audit import attack, refuse_refuted
    from deploy.sampling import trained

    run = trained(Path(folder), "audit")
    found = attack(run, members, canaries=canaries, images=images, trials=trials)
    refuse_refuted(found)
    return found


def load(folder: str | PathLike[str]) -> Any:
    """Return the trained model of a run, a `dppm_model.score.model.ScoreModel`.

    Its ``denoise(x, sigma, y)`` is D(x; σ) for x (n, C, H, W) in [-1, 1], sigma (n,), y (n,); the
    score is (D - x)/σ².

    Raises
    ------
    RunFolderError
        If there is no model yet.

    Examples
    --------
    >>> import torch
    >>> model = load("first")
    >>> x, y = torch.zeros(2, *model.shape), torch.tensor([0, 1])
    >>> model.denoise(x, torch.tensor([0.5, 0.5]), y).shape
    torch.Size([2, 1, 8, 8])
    """
    from deploy.sampling import trained
    from dppm_model.score.model import ScoreModel

    return ScoreModel.load(trained(Path(folder), "load").model)
