"""`dppm compare RUN RUN …`: finished runs side by side, as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.show import epsilon_text, print_json
from deploy.table import MISSING, figure, markdown_table, with_spread
from dppm_model.config import CONF, compose_config, read_config
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.run import Run

_HEADER = (
    *("run", "data", "model", "δ, unit", "ε (secure sum)", "ε (site)", "classifiers"),
    *("accuracy", "MLP", "Fréchet", "coverage", "images", "training"),
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
    found = [figures_of(run, known) for run in opened]
    if as_json:
        print_json(found)
    else:
        print(table(found))


def models() -> dict[str, Any]:
    """Return every model that can be chosen, by name."""
    known = {}
    for path in sorted((CONF / "model").glob("*.yaml")):
        with suppress(ConfigError):  # a part of others, no choice of its own
            known[path.stem] = compose_config([f"model={path.stem}"])["model"]
    return known


def refuse_missing(runs: Sequence[Run]) -> None:
    """Refuse runs that lack a file, and say which ones and how to get them.

    Raises
    ------
    RunFolderError
        Naming every missing file, of all runs.
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


def figures_of(run: Run, known: Mapping[str, Any]) -> dict[str, Any]:
    """Gather what the table shows of one run, from the run's own files.

    Parameters
    ----------
    known
        Models by name, see `models`; one that was changed by overrides goes by its phases.

    Raises
    ------
    RunFolderError
        If a file is damaged, or was written by another version and lacks a figure.
    """
    privacy, result = run.read_json(run.privacy), run.read_json(run.evaluation)
    tree = read_config(run.config).to_dict()
    try:
        names = [name for name, model in known.items() if model == tree["model"]]
        phases = [phase["name"] for phase in privacy["phases"]]
        distances, coverage = result["distances"], result.get("coverage", {})
        both = {
            kind: {
                "accuracy": result[f"accuracy{kind}"],
                "accuracy_std": result.get(f"accuracy{kind}_std"),
                "accuracy_mlp": result[f"accuracy_mlp{kind}"],
                "accuracy_mlp_std": result.get(f"accuracy_mlp{kind}_std"),
                "frechet": distances[f"frechet{kind}"],
                "coverage": coverage.get(f"coverage{kind}"),
            }
            for kind in ("", "_real")
        }
        return {
            "run": str(run.folder),
            "data": result["dataset"],
            "model": names[0] if names else None,
            "phases": phases,
            "public_data": privacy["public_data"],
            **{k: privacy[k] for k in ("epsilon_secure_sum", "epsilon_site", "delta", "unit")},
            "recipe": result.get("recipe"),  # absent, as are spreads, where an older version judged
            "seeds": result["seeds"],
            **both[""],
            "synthetic_images": result["synthetic_images"],
            "training_seconds": sum(line["seconds"] for line in run.rounds()),
            "real": both["_real"] | {"images": result["train_images"]},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{run.folder}: evaluation.json, privacy.json or metrics.jsonl is damaged, or was "
            f"written by another version ({type(error).__name__}: {error}).",
            f"Run `dppm evaluate {run.folder}` again, or leave this run out.",
        ) from None


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown: a row a run, and one for each ceiling that the real images set."""
    rows = [_row(figures) for figures in found]
    for figures in found:
        row = _real_row(figures)
        if row not in rows:
            rows.append(row)
    return f"{markdown_table(_HEADER, rows, left=_TEXTS)}\n\n{_NOTE}"


def _row(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        figures["run"],
        figures["data"],
        _model(figures),
        f"{figures['delta']:g}, {figures['unit']}",
        epsilon_text(figures["epsilon_secure_sum"]),
        epsilon_text(figures["epsilon_site"]),
        _classifiers(figures),
        *_utility(figures),
        str(figures["synthetic_images"]),
        f"{figures['training_seconds']:.0f} s",
    )


def _model(figures: Mapping[str, Any]) -> str:
    """Name the model, or its phases, and what public data taught it: never one row for both."""
    name = figures["model"] or " → ".join(figures["phases"])
    return f"{name}, public: {', '.join(public)}" if (public := figures["public_data"]) else name


def _real_row(figures: Mapping[str, Any]) -> tuple[str, ...]:
    real = figures["real"]
    return (
        *("the real images", figures["data"], MISSING, MISSING, "∞", "∞", _classifiers(figures)),
        *_utility(real),
        *(str(real["images"]), MISSING),
    )


def _classifiers(figures: Mapping[str, Any]) -> str:
    seeds = len(figures["seeds"])
    return f"{figures['recipe'] or MISSING}, {seeds} seed{'s' * (seeds > 1)}"


def _utility(figures: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        with_spread(figures["accuracy"], figures["accuracy_std"]),
        with_spread(figures["accuracy_mlp"], figures["accuracy_mlp_std"]),
        figure(figures["frechet"], 2),
        figure(figures["coverage"], 3),
    )
