"""The recipe: what a number of records can pay for, from public facts alone."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.simulate import plan_of, resolve
from dppm_model.config import Config, check_config, compose_config
from dppm_model.errors import ConfigError, PlanError
from dppm_model.planning.recipe import Recipe, choose_recipe
from dppm_model.records.writing import write_records
from dppm_model.score.phases import PHASES, kind_of
from tests.benchmarks.recipes import table
from tests.conftest import TINY, run, tiny_images

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 64, 64)]
UNITS = [500, 1_000, 5_000, 20_000, 60_000, 250_000, 1_000_000]
MU = 1.6  # about epsilon = 8 at delta = 1e-5
ORDER = [
    "means-first",
    "variances",
    "means",
    "pooled_covariance",
    "covariance",
    "components",
    "component_covariance",
]


def chosen(units: int, mu: float = MU, shape: Any = SHAPES[1], **given: int) -> Recipe:
    return choose_recipe(shape, 10, units, mu, given)


def sound(recipe: Recipe, shape: tuple[int, int, int]) -> None:
    settings = recipe.settings
    assert 1 <= settings["axes"] <= settings["band"] <= np.prod(shape)
    assert 0 <= settings["principal_axes"] <= settings["axes"]
    assert (settings["components"] > 1) == ("components" in recipe.phases)
    assert sum(p["budget_fraction"] for p in recipe.phases.values()) == pytest.approx(1)
    for phase in recipe.phases.values():
        assert phase["budget_fraction"] > 0 and phase["rounds"] >= 1
        assert 0 < phase["sum_alignment"] <= 1
    assert recipe.reasons and all(reason.endswith(".") for reason in recipe.reasons)


@pytest.mark.parametrize("shape", [*SHAPES, (1, 4, 4)])
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("mu", [0.4, MU, 50.0])
def test_any_number_of_units_has_a_recipe_or_is_told_what_would_be_enough(
    shape: tuple[int, int, int], units: int, mu: float
) -> None:
    try:
        sound(chosen(units, mu, shape), shape)
    except PlanError as refused:
        enough = int(re.search(r"Plan for (\d+) units", refused.hint)[1])  # type: ignore[index]
        assert units < enough < 10 * units
        sound(chosen(enough, mu, shape), shape)
        with pytest.raises(PlanError):
            chosen(enough - 1, mu, shape)


def test_ten_classes_of_five_hundred_records_are_enough_at_a_usual_epsilon() -> None:
    assert chosen(500).settings["components"] == 1


@pytest.mark.parametrize("given", [{}, {"components": 1}, {"components": 8}])
@pytest.mark.parametrize("shape", SHAPES)
def test_more_units_and_more_budget_pay_for_more(
    shape: tuple[int, int, int], given: dict[str, int]
) -> None:
    for key in ("band", "axes", "components"):
        by_units = [chosen(n, MU, shape, **given).settings[key] for n in UNITS]
        by_budget = [
            chosen(60_000, mu, shape, **given).settings[key] for mu in np.geomspace(0.1, 50, 20)
        ]
        for found in (by_units, by_budget):
            assert found == sorted(found)
            assert found[-1] > 2 * found[0] or key in given


def test_band_and_axes_do_not_shrink_where_components_begin() -> None:
    """But for the little that the first of them takes at once."""
    found = [chosen(int(n)).settings for n in np.geomspace(20_000, 80_000, 400)]
    assert (found[0]["components"], found[-1]["components"]) == (1, 20)
    for before, after in pairwise(found):
        assert after["components"] >= before["components"]
        for key in ("band", "axes"):
            assert after[key] >= 0.98 * before[key]


def test_components_come_with_the_units_of_a_class() -> None:
    found = [chosen(n).settings["components"] for n in (*UNITS, 10**7)]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1, 20)
    fewer = [
        choose_recipe(SHAPES[0], k, 60_000, MU, {}).settings["components"] for k in (1, 10, 99)
    ]
    assert fewer == sorted(fewer, reverse=True)


def test_what_is_given_is_not_chosen() -> None:
    given = {"band": 50, "axes": 7, "components": 3, "principal_axes": 0}
    found = chosen(60_000, **given)
    assert found.settings == given
    assert "components" in found.phases and "component_covariance" not in found.phases
    assert chosen(60_000, band=10**4, shape=(1, 4, 4)).settings["band"] == 16


def test_the_documents_have_the_choice_for_some_numbers_of_records() -> None:
    assert table() in Path("docs/results.md").read_text(encoding="utf-8")


def test_the_phases_are_those_of_the_configuration_in_its_order() -> None:
    assert list(chosen(10**6).phases) == ORDER
    assert list(compose_config([])["model"]["phases"]) == ORDER
    assert all(kind_of(name).name in PHASES for name in ORDER)


# --- in a configuration -------------------------------------------------------------------------

FACTS = [
    "facts.shape=[1,8,8]",
    "facts.classes=2",
    "facts.records=600",
    "privacy.unit=record",
    "privacy.records_per_person=1",
]


def configured(*overrides: str) -> Config:
    return check_config(compose_config([*FACTS, *TINY, *overrides]))


def asked(*overrides: str) -> list[str]:
    return [request.name for request in configured(*overrides).phase_requests()]


def test_the_recipe_fills_what_is_null_and_nothing_else() -> None:
    bare = check_config(compose_config(FACTS))
    mixture = bare.score_model().mixture
    assert {key: getattr(mixture, key) for key in bare.recipe.settings} == bare.recipe.settings
    for request in bare.phase_requests():
        chosen = bare.recipe.phases[request.name]
        assert {key: getattr(request, key) for key in chosen} == chosen
    found = configured("model.phases.means.rounds=5")
    assert (found.score_model().mixture.band, found.score_model().mixture.axes) == (16, 8)
    (means,) = (r for r in found.phase_requests() if r.name == "means")
    assert means.rounds == 5
    assert means.budget_fraction == found.recipe.phases["means"]["budget_fraction"]


def tuned(*overrides: str) -> Config:
    facts = ["data=x", "facts.shape=[3,32,32]", "facts.classes=8", "privacy.unit=record"]
    one = ["privacy.records_per_person=1", "model=pretrained"]
    return check_config(compose_config([*facts, *one, *overrides]))


def test_the_closed_form_below_a_network_is_planned_with_what_the_rounds_leave() -> None:
    """Half of mu² is as many units fewer by the root of two."""
    half = tuned("facts.records=20000")
    assert half.recipe.phases["fine_tuning"]["budget_fraction"] == 1
    mu = half.privacy_request().total_mu / 2**0.5
    assert half.recipe.settings == choose_recipe((3, 32, 32), 8, 20_000, mu, {}).settings
    mixture = tuned("facts.records=20000", "model=mixture").recipe.settings
    assert half.recipe.settings["band"] < mixture["band"]


def test_private_rounds_begin_where_they_pay() -> None:
    """A plan asks for them with as many units as a smaller plan said would be enough."""
    few = tuned("facts.records=1000")
    assert "fine_tuning" not in [request.name for request in few.phase_requests()]
    assert few.score_model().parts[1].group == "pretrained"
    found = re.search(r"say of them; ([\d,]+) would be enough", " ".join(few.recipe.reasons))
    assert found
    enough = int(found[1].replace(",", ""))
    assert 1000 < enough < 2000
    request = tuned(f"facts.records={enough}").phase_requests()[-1]
    assert (request.name, request.rounds, request.sampling_rate) == ("fine_tuning", 80, 0.25)
    below = tuned(f"facts.records={enough - 1}")
    assert below.phase_requests()[-1].name == "covariance"
    assert tuned("facts.records=100000").phase_requests()[-1].sampling_rate == 0.02


def test_a_plan_says_why(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", *TINY) == 0
    shown = " ".join(capsys.readouterr().err.split())
    for reason in resolve(TINY).recipe.reasons:
        assert reason in shown


def test_a_configuration_with_other_facts_has_another_recipe() -> None:
    config = configured()
    few = config.recipe
    more = config.replace(facts=config.facts.replace(records=60_000))
    assert more.recipe.phases["means"]["budget_fraction"] < few.phases["means"]["budget_fraction"]
    assert config.recipe == few


def test_a_phase_that_is_deleted_is_not_asked() -> None:
    assert "variances" in asked()
    assert asked("~model.phases.variances") == [name for name in asked() if name != "variances"]


def test_a_phase_that_the_recipe_leaves_out_is_asked_if_it_is_given() -> None:
    one = "model.mixture.components=1"
    phase = "model.phases.components"
    whole = [f"{phase}.budget_fraction=0.2", f"{phase}.rounds=3", f"{phase}.sum_alignment=0.3"]
    assert "components" not in asked(one)
    assert "components" in asked(one, *whole)
    for left_out in range(3):
        half = whole[:left_out] + whole[left_out + 1 :]
        missing = whole[left_out].partition("=")[0]
        with pytest.raises(ConfigError, match=re.escape(f"{missing} is not given")):
            asked(one, *half)


def test_too_few_records_are_refused_before_anything_is_spent() -> None:
    with pytest.raises(PlanError, match="10 units of 2 classes are too few"):
        configured("facts.records=10").phase_requests()


def test_nothing_follows_from_labels_or_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stores of the same public facts: one of two equal classes, one of a single bright record."""
    plans = []
    for name in ("even", "odd"):
        images, labels = tiny_images(600, 0)
        if name == "odd":
            images, labels = images // 255, np.zeros_like(labels)
            images[0], labels[0] = 255, 1
        for split in ("train", "test"):
            write_records(
                tmp_path / name / "tiny" / split,
                images,
                labels,
                name="tiny",
                split=split,
                classes=("a", "b"),
            )
        monkeypatch.setenv("DPPM_DATA", str(tmp_path / name))
        config = resolve(["data=tiny", "sites=3", "privacy.epsilon=8"])
        plans.append((config.recipe, config.score_model(), plan_of(config, "x").phases))
    (recipe, model, phases), (same, same_model, same_phases) = plans
    assert (recipe, model) == (same, same_model)
    assert [(p.name, p.mechanism, p.rounds) for p in phases] == [
        (p.name, p.mechanism, p.rounds) for p in same_phases
    ]
