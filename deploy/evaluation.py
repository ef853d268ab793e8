"""What `dppm evaluate` leaves for people: ``evaluation.md``, and a page of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.show import epsilon_text
from deploy.table import MISSING, figure, markdown_table, with_spread
from dppm_model.files import write_bytes
from dppm_model.run import Run
from sampler.evaluation.ceiling import Records
from sampler.evaluation.detail import SIDES
from sampler.evaluation.page import write_page

Row = tuple[str, str, str]


def report_path(run: Run) -> Path:
    """Where the table is."""
    return run.folder / "evaluation.md"


def page_path(run: Run) -> Path:
    """Where the page of synthetic images is."""
    return run.folder / "evaluation.png"


def private_page_path(run: Run) -> Path:
    """Where the page with real images is: for those only who may see them."""
    return run.folder / "private" / "evaluation.png"


def write_report(
    run: Run, result: Mapping[str, Any], names: Sequence[str], synthetic: Records, test: Records
) -> None:
    """Write all three files.

    Parameters
    ----------
    result
        What `sampler.evaluation.evaluate.evaluate` returned.
    names
        One a class.
    synthetic, test
        (images, labels) that were judged, and that they were judged on.
    """
    privacy = run.read_json(run.privacy)
    write_bytes(report_path(run), report(run.folder.name, result, privacy, names).encode())
    title = f"{run.folder.name}: {result['synthetic_images']} synthetic images, {result['dataset']}"
    for path, real in ((page_path(run), None), (private_page_path(run), test)):
        write_page(
            *(path, result, names, synthetic),
            title=title,
            lines=headline(result, privacy),
            real=real,
        )


def headline(result: Mapping[str, Any], privacy: Mapping[str, Any]) -> list[str]:
    """Say in three lines what a run achieved and what it cost."""
    distances, coverage = result["distances"], result["coverage"]
    seeds = len(result["seeds"])
    return [
        f"ε = {epsilon_text(privacy['epsilon_secure_sum'])} (secure sum), "
        f"{epsilon_text(privacy['epsilon_site'])} (a site's own reports); "
        f"δ = {privacy['delta']:g}, unit: {privacy['unit']}",
        f"accuracy {spread_of(result, 'accuracy')} trained on them, "
        f"{spread_of(result, 'accuracy_real')} trained on real images "
        f"({result['recipe']} recipe, {seeds} seed{'s' * (seeds > 1)})",
        f"Fréchet distance {figure(distances['frechet'], 2)} "
        f"(real: {figure(distances['frechet_real'], 2)}), "
        f"coverage {figure(coverage['coverage'], 3)} "
        f"(real: {figure(coverage['coverage_real'], 3)})",
    ]


def report(
    name: str, result: Mapping[str, Any], privacy: Mapping[str, Any], names: Sequence[str]
) -> str:
    """Return the Markdown of ``evaluation.md``."""
    seeds = ", ".join(map(str, result["seeds"]))
    spread = "± is the standard deviation over these seeds, with the same images"
    if len(result["seeds"]) == 1:
        spread = "a single one, so no spread is known"
    nearest, coverage = result["nearest"], result["coverage"]
    paragraphs = (
        f"# Evaluation of {name} ({result['dataset']})",
        markdown_table(("", "synthetic", "real"), figures(result)),
        f"Accuracies are measured on {result['test_images']} real test images, by classifiers "
        f"trained on synthetic or on real images ({result['recipe']} recipe, seeds {seeds}: "
        f"{spread}). CNN: {result['classifier']}. MLP: {result['classifier_mlp']}.",
        f"Distances, density and coverage (k = {coverage['neighbours']}) are between images and "
        "real test images; under *real*, as many real training images stand in their place. "
        f"Features: {result['distances']['features']}.",
        f"Nearest training record: {nearest['unit']}; under *real*, of test images. "
        f"{nearest['exact_copies']} exact copies among {nearest['images']} images; "
        f"{100 * nearest['closer_than_test']:.1f} % are nearer to a record than all but 1 % of the "
        "test images are. Copies would show here; that none shows proves nothing.",
        "## Privacy",
        _privacy(privacy),
        f"Adjacency: {privacy['adjacency']}. Public data, which the model started from: "
        f"{', '.join(privacy['public_data']) or 'none'}. These ε say what the images reveal. The "
        "figures of this page were measured on real data and are not covered by them.",
        "## By class",
        _classes(result, names),
    )
    return "\n\n".join(paragraphs) + "\n"


def figures(result: Mapping[str, Any]) -> list[Row]:
    """Return each figure of synthetic and of real images, as text: (what, synthetic, real)."""
    distances, coverage, nearest = (result[k] for k in ("distances", "coverage", "nearest"))
    rows: list[Row] = [
        ("images", str(result["synthetic_images"]), str(result["train_images"])),
        *(
            (name, spread_of(result, key), spread_of(result, f"{key}_real"))
            for name, key in (("accuracy, CNN", "accuracy"), ("accuracy, MLP", "accuracy_mlp"))
        ),
        *(
            (name, figure(found[key], digits), figure(found[f"{key}_real"], digits))
            for name, found, key, digits in (
                ("Fréchet distance", distances, "frechet", 3),
                ("kernel distance", distances, "kernel", 4),
                ("density, mean over classes", coverage, "density", 3),
                ("coverage, mean over classes", coverage, "coverage", 3),
            )
        ),
        *(
            (name, figure(nearest["synthetic"][key], 3), figure(nearest["real_test"][key], 3))
            for name, key in (
                ("nearest training record, median", "median"),
                ("nearest training record, closest 1 %", "percentile_1"),
            )
        ),
    ]
    if detail := result.get("detail"):
        keys = [(f"accuracy at {side} pixels", f"accuracy_{side}", 4) for side in SIDES]
        keys.append(("Fréchet distance of crops", "frechet_crops", 2))
        rows += [(n, figure(detail[k], d), figure(detail[f"{k}_real"], d)) for n, k, d in keys]
        decibel = detail["spectrum"]["largest_db_below_a_quarter"]
        rows.append(("spectrum, largest difference (dB)", figure(decibel, 1), MISSING))
    return rows


def _privacy(privacy: Mapping[str, Any]) -> str:
    views = (
        (f"secure sum, {privacy['honest_sites']} honest sites", "epsilon_secure_sum"),
        ("a site's own reports", "epsilon_site"),
    )
    return markdown_table(
        ("who sees", "ε", "δ", "unit"),
        [(v, epsilon_text(privacy[k]), f"{privacy['delta']:g}", privacy["unit"]) for v, k in views],
    )


def _classes(result: Mapping[str, Any], names: Sequence[str]) -> str:
    coverage = result["coverage"]
    columns = [
        (result["accuracy_per_class"], result["accuracy_per_class_std"]),
        (result["accuracy_real_per_class"], result["accuracy_real_per_class_std"]),
        *(
            (coverage[f"{key}{kind}_per_class"], None)
            for key in ("coverage", "density")
            for kind in ("", "_real")
        ),
    ]
    return markdown_table(
        ("class", "accuracy", "real", "coverage", "real", "density", "real"),
        [
            (name, *(with_spread(v[row], s and s[row], 3) for v, s in columns))
            for row, name in enumerate(names)
        ],
    )


def spread_of(result: Mapping[str, Any], key: str) -> str:
    """Write an accuracy with its spread over seeds, where that is known."""
    return with_spread(result[key], result[f"{key}_std"])
