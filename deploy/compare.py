"""`dppm compare RUN RUN …`: finished runs in a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from deploy.pages.run_summary import RunSummary
from deploy.sampling import PROMISED
from deploy.show import epsilon_text, print_json
from deploy.table import MISSING, figure, markdown_table, with_spread
from dppm_model.config import CONF, compose_config
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.run import Run

_TEXTS = 4  # columns aligned left
_FIGURES = (
    *("accuracy", "balanced_accuracy", "accuracy_mlp"),
    *("frechet", "frechet_public", "kid_public", "coverage", "spectrum_distance"),
)
_NOTE = (
    "Accuracies on real test images, of a CNN and an MLP; ± is the standard deviation over "
    "classifier seeds, with the same images. Fréchet distances and coverage are in the features of "
    "the recipe's CNN: compare them within one data set and one recipe. Public Fréchet distances "
    "are in the features of EfficientNet-Lite0 (ImageNet): compare them at one number of images."
)


def compare(runs: Sequence[Path], *, as_json: bool) -> None:
    """`dppm compare RUN RUN …`: print the table, or JSON."""
    opened = [Run(folder) for folder in runs]
    refuse_missing(opened)
    found = [comparison(RunSummary.of(run)) for run in opened]
    if as_json:
        print_json(found)
    else:
        print(table(found))


@cache
def _models() -> dict[str, Any]:
    """Return every model that can be chosen, by name."""
    known = {}
    for path in sorted((CONF / "model").glob("*.yaml")):
        with suppress(ConfigError):  # a part of other models, not a model
            known[path.stem] = compose_config([f"model={path.stem}"])["model"]
    return known


def refuse_missing(runs: Sequence[Run]) -> None:
    """Raise `RunFolderError` if a run lacks a file, naming all missing files and their commands."""
    missing, hints = [], []
    for run in runs:
        trained = dict.fromkeys((run.config, run.privacy, run.metrics), "simulate")
        for path, verb in (trained | {run.evaluation: "evaluate"}).items():
            if not path.is_file():
                missing.append(str(path))
                hints.append(f"`dppm {verb} {run.folder}`")
    if missing:
        raise RunFolderError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            f"Run {', '.join(dict.fromkeys(hints))} first, or leave these runs out.",
        )


def comparison(summary: RunSummary) -> dict[str, Any]:
    """Return the figures of an evaluated run, for JSON and for the table.

    A model whose settings were changed by overrides has no name: it goes by its phases.
    """
    evaluation, privacy = summary.evaluation, summary.privacy
    assert evaluation is not None
    raw, scores = evaluation.raw, evaluation.scores
    own = summary.config.to_dict()["model"]
    value, real = dict[str, Any](), dict[str, Any]()
    for key in _FIGURES:
        score = scores.get(key)
        value[key], real[key] = (score.value, score.real) if score else (None, None)
        if "accuracy" in key and score:
            value[f"{key}_std"], real[f"{key}_std"] = score.std, score.real_std
    return {
        "run": str(summary.run.folder),
        "data": raw["dataset"],
        "model": next((name for name, model in _models().items() if model == own), None),
        "phases": [phase["name"] for phase in privacy["phases"]],
        "public_data": privacy["public_data"],
        **{k: privacy[k] for k in PROMISED},
        "recipe": raw["recipe"],
        "seeds": raw["seeds"],
        **value,
        "synthetic_images": raw["synthetic_images"],
        "training_seconds": summary.seconds,
        "real": real | {"images": raw["train_images"]},
    }


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table with a row for each run and each set of real images."""
    rows = [_row(figures) for figures in found]
    real = [_row(figures, real=True) for figures in found]
    cells = dict.fromkeys(tuple(row.values()) for row in rows + real)  # real ones once
    return f"{markdown_table(tuple(rows[0]), [*cells], left=_TEXTS)}\n\n{_NOTE}"


def _row(figures: Mapping[str, Any], *, real: bool = False) -> dict[str, str]:
    """Write a run by the headings of the table, or the real images beside it."""
    model = figures["model"] or " → ".join(figures["phases"])
    if public := figures["public_data"]:  # a model with public data is another model
        model = f"{model}, public: {', '.join(public)}"
    seeds, shown = len(figures["seeds"]), figures["real"] if real else figures
    return {
        "run": "the real images" if real else figures["run"],
        "data": figures["data"],
        "model": MISSING if real else model,
        "δ, unit": MISSING if real else f"{figures['delta']:g}, {figures['unit']}",
        "ε (release)": "∞" if real else epsilon_text(figures["epsilon_release"]),
        "ε (secure sum)": "∞" if real else epsilon_text(figures["epsilon_secure_sum"]),
        "ε (site)": "∞" if real else epsilon_text(figures["epsilon_site"]),
        "classifiers": f"{figures['recipe']}, {seeds} seed{'s' * (seeds > 1)}",
        "accuracy": with_spread(shown["accuracy"], shown["accuracy_std"]),
        "balanced": with_spread(shown["balanced_accuracy"], shown["balanced_accuracy_std"]),
        "MLP": with_spread(shown["accuracy_mlp"], shown["accuracy_mlp_std"]),
        "Fréchet": figure(shown["frechet"], 2),
        "public": figure(shown["frechet_public"], 2),
        "coverage": figure(shown["coverage"], 3),
        "images": str(shown["images"] if real else figures["synthetic_images"]),
        "training": MISSING if real else f"{figures['training_seconds']:.0f} s",
    }
