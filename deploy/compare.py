"""`dppm compare RUN RUN …`: finished runs in a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.pages.run_summary import RunSummary
from deploy.show import epsilon_text, print_json
from deploy.table import MISSING, figure, markdown_table, with_spread
from dppm_model.config import CONF, compose_config
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.run import Run

_HEADER = (
    "run",
    "data",
    "model",
    "δ, unit",
    "ε (secure sum)",
    "ε (site)",
    "classifiers",
    "accuracy",
    "MLP",
    "Fréchet",
    "coverage",
    "images",
    "training",
)
_TEXTS = 4  # columns aligned left
_NOTE = (
    "Accuracies on real test images, of a CNN and an MLP; ± is the standard deviation over "
    "classifier seeds, with the same images. Fréchet distances and coverage are in the features of "
    "the recipe's CNN: compare them within one data set and one recipe."
)


def compare(runs: Sequence[Path], *, as_json: bool) -> None:
    """Print the table, or JSON.

    Raises
    ------
    RunFolderError
        If a run has not been trained and evaluated, or a file is damaged.
    """
    opened = [Run(folder) for folder in runs]
    refuse_missing(opened)
    known = models()
    found = [comparison(RunSummary.of(run), known) for run in opened]
    if as_json:
        print_json(found)
    else:
        print(table(found))


def models() -> dict[str, Any]:
    """Return every model that can be chosen, by name."""
    known = {}
    for path in sorted((CONF / "model").glob("*.yaml")):
        with suppress(ConfigError):  # a part of other models, not a model
            known[path.stem] = compose_config([f"model={path.stem}"])["model"]
    return known


def refuse_missing(runs: Sequence[Run]) -> None:
    """Refuse runs that lack a file.

    Raises
    ------
    RunFolderError
        If so; it names every missing file of all runs, and how to make it.
    """
    missing, hints = [], []
    for run in runs:
        for path, verb in (
            (run.config, "simulate"),
            (run.privacy, "simulate"),
            (run.metrics, "simulate"),
            (run.evaluation, "evaluate"),
        ):
            if not path.is_file():
                missing.append(str(path))
                hints.append(f"`dppm {verb} {run.folder}`")
    if missing:
        raise RunFolderError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.",
            f"Run {', '.join(dict.fromkeys(hints))} first, or leave these runs out.",
        )


def comparison(summary: RunSummary, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of an evaluated run, for JSON and for the table.

    Parameters
    ----------
    known
        Models by name, see `models`; one that was changed by overrides is named by its phases.
    """
    evaluation, privacy = summary.evaluation, summary.privacy
    assert evaluation is not None
    raw, scores = evaluation.raw, evaluation.scores
    names = [name for name, model in known.items() if model == summary.config.to_dict()["model"]]
    both: dict[str, dict[str, Any]] = {"value": {}, "real": {}}
    for key in ("accuracy", "accuracy_mlp", "frechet", "coverage"):
        score = scores[key]
        both["value"][key], both["real"][key] = score.value, score.real
        if key.startswith("accuracy"):
            both["value"][f"{key}_std"], both["real"][f"{key}_std"] = score.std, score.real_std
    return {
        "run": str(summary.run.folder),
        "data": raw["dataset"],
        "model": names[0] if names else None,
        "phases": [phase["name"] for phase in privacy["phases"]],
        "public_data": privacy["public_data"],
        **{k: privacy[k] for k in ("epsilon_secure_sum", "epsilon_site", "delta", "unit")},
        "recipe": raw["recipe"],
        "seeds": raw["seeds"],
        **both["value"],
        "synthetic_images": raw["synthetic_images"],
        "training_seconds": summary.seconds,
        "real": both["real"] | {"images": raw["train_images"]},
    }


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table with a row for each run and each set of real images."""
    rows = [_row(figures) for figures in found]
    real = [_real_row(figures) for figures in found]
    return f"{markdown_table(_HEADER, [*rows, *dict.fromkeys(real)], left=_TEXTS)}\n\n{_NOTE}"


def _row(figures: Mapping[str, Any]) -> tuple[str, ...]:
    model = figures["model"] or " → ".join(figures["phases"])
    if public := figures["public_data"]:  # a model with public data is another model
        model = f"{model}, public: {', '.join(public)}"
    return (
        figures["run"],
        figures["data"],
        model,
        f"{figures['delta']:g}, {figures['unit']}",
        epsilon_text(figures["epsilon_secure_sum"]),
        epsilon_text(figures["epsilon_site"]),
        _classifiers(figures),
        *_utility(figures),
        str(figures["synthetic_images"]),
        f"{figures['training_seconds']:.0f} s",
    )


def _real_row(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        "the real images",
        figures["data"],
        MISSING,
        MISSING,
        "∞",
        "∞",
        _classifiers(figures),
        *_utility(figures["real"]),
        str(figures["real"]["images"]),
        MISSING,
    )


def _classifiers(figures: Mapping[str, Any]) -> str:
    seeds = len(figures["seeds"])
    return f"{figures['recipe']}, {seeds} seed{'s' * (seeds > 1)}"


def _utility(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        with_spread(figures["accuracy"], figures["accuracy_std"]),
        with_spread(figures["accuracy_mlp"], figures["accuracy_mlp_std"]),
        figure(figures["frechet"], 2),
        figure(figures["coverage"], 3),
    )
