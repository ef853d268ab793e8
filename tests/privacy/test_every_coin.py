"""From a site's records to its report, through the production code, with every coin it can toss.

`round.report` runs once for each possible string of coins: Poisson sampling, the question, the
integer sum, the rotation, randomized response. So the law of a report is exact, and the
hockey-stick curve between neighbouring data sets must lie below the claimed one, in both directions
and views.
Probabilities have 6 bits here instead of 32: the rounding that the accountant pays for counts.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dppm_model.mechanism import binomial
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.directions import DirectionsMechanism
from dppm_model.mechanism.fixed_batches import fixed_batches
from dppm_model.mechanism.quantize import Grid
from dppm_model.phase import PhasePlan
from dppm_model.privacy import gdp
from dppm_model.privacy.directions import mu_directions, pure_epsilon
from dppm_model.records.pixels import to_tensor
from dppm_model.records.shards import open_records
from dppm_model.records.units import Units
from dppm_model.records.writing import write_records
from dppm_model.round import report
from dppm_model.score.unit_batches import try_question
from tests.support.mutations import Make, as_property, times, twin
from tests.support.plan_factory import (
    EPSILONS,
    TOY,
    EveryCoin,
    claimed,
    convolve,
    hockey_stick,
    with_mechanism,
)

BITS = 6
PHASE = replace(with_mechanism(TOY, responses=1), tail=1e-12)
WIDE = with_mechanism(PHASE, range_=2.0)  # in which a person who adds too much is not clamped
DIRECTIONS = replace(PHASE, mechanism=DirectionsMechanism(4, 0.4, 3))


class Pixels:
    """A linear question: the vector of a record is its two pixels, up to twice the clip norm."""

    dimension, device = 2, torch.device("cpu")

    def view(self, pixels: np.ndarray, seeds: torch.Tensor) -> torch.Tensor:
        return to_tensor(pixels)

    def clipped_sum(
        self, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
    ) -> np.ndarray:
        return grid.sum([torch.zeros(1, 2), *(c.flatten(1) for (c,) in fixed_batches((x,), 2))])

    def rows(self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor) -> Iterator[torch.Tensor]:
        yield x.flatten(1)


@pytest.fixture
def few_bits(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> EveryCoin:
    coins, bits = EveryCoin(), getattr(request, "param", BITS)
    monkeypatch.setattr(binomial, "PROBABILITY_BITS", bits)
    monkeypatch.setattr(gdp, "_PROBABILITY_STEP", 2.0**-bits)
    monkeypatch.setattr(binomial, "fair_binomial", coins.fair_binomial)
    for cached in (gdp.site_slope, gdp.sum_slope):
        cached.cache_clear()
    return coins


def report_law(
    pixels: np.ndarray, phase: PhasePlan, coins: EveryCoin, folder: Path, each: int = 1
) -> np.ndarray:
    """Exact law of a site's report, an array over (t_1, …); ``each`` record or three a person."""
    images = pixels.astype(np.uint8).reshape(-1, 1, 1, 2)
    labels, persons = np.zeros(len(images), int), np.arange(len(images)) // each
    write_records(folder, images, labels, name="x", split="train", classes=("a",), persons=persons)
    records = open_records(folder)
    units = Units.of(records, "record", 1) if each == 1 else Units.of(records, "person", 2)
    try_question(Pixels(), phase.grid, (1, 1, 2))  # a unit that fails would be left out, silently
    law = np.zeros((phase.max_count + 1,) * phase.report_length)
    runs = coins.runs(lambda: report(units, Pixels(), phase, b"signs", coins))
    for weight, tallies in runs:
        law[tuple(tallies)] += weight
    assert law.sum() == pytest.approx(1, abs=1e-12)
    return law


def excess(
    phase: PhasePlan, executed: PhasePlan, coins: EveryCoin, folder: Path, seed: int, each: int = 1
) -> dict[str, float]:
    """How far neighbouring data sets pass the claimed curves, in both views (negative: never)."""
    rng = np.random.default_rng(seed)
    own = rng.choice([0, 30, 128, 200, 255], (2 * each, 2))
    other = rng.choice([0, 128, 255], (each, 2))
    if seed % 2:
        own[-each:] = [255, 255]  # after the rotation all on one coordinate
    laws = [
        report_law(part, executed, coins, folder / f"{seed}-{i}", each)
        for i, part in enumerate((own, own[:-each], other))
    ]
    found = {}
    for view, (one, two) in {
        "site": (laws[0], laws[1]),
        "secure_sum": (convolve(laws[0], laws[2]), convolve(laws[1], laws[2])),
    }.items():
        cost = phase.cost(view, 1)  # type: ignore[arg-type]
        curve = claimed(cost.mu, cost.sampling_rate)
        curve += (1 + np.exp(EPSILONS)) * cost.total_variation
        if cost.pure_epsilon is not None:
            curve = np.where(cost.pure_epsilon <= EPSILONS, 0.0, curve)
        sticks = np.maximum(hockey_stick(one, two), hockey_stick(two, one))
        found[view] = float((sticks - curve).max())
    return found


def _truth(factor: float) -> Make:
    def make(old: Any) -> Any:
        def wrong(self: Any, *args: Any) -> Any:
            return old(replace(self, truth_strength=factor * self.truth_strength), *args)

        return wrong

    return make


def _silent_slots(old: Any) -> Any:
    def encode(self: Any, names: Any, lengths: Any, coins: Any) -> Any:
        if len(names) == 0:
            return np.zeros(self.directions, dtype=np.int64)
        return old(replace(self, slots=len(names)), names, lengths, coins)

    return encode


def _two_slots_each(old: Any) -> Any:
    def encode(self: Any, names: Any, lengths: Any, coins: Any) -> Any:
        both = (np.repeat(of[::-1], 2)[: self.slots] for of in (names, lengths))
        return old(self, *both, coins)

    return encode


def _sampled_twice(old: Any) -> Any:
    def cost(self: Any, *args: Any) -> Any:
        return replace(old(self, *args), sampling_rate=self.sampling_rate)

    return cost


@twin(
    "names are true 1.5 times as often as planned",
    "dppm_model.mechanism.directions:DirectionsMechanism.counts",
    _truth(1.5),
    only="[1.0-directions]",
)
@twin(
    "slots without a sampled record name nothing, so the total is the sampled count",
    "dppm_model.mechanism.directions:DirectionsMechanism.counts",
    _silent_slots,
    only="[0.5-directions]",
)
@twin(
    "a record answers in two slots",
    "dppm_model.mechanism.directions:DirectionsMechanism.counts",
    _two_slots_each,
    only="[1.0-directions]",
)
@twin(
    "twice as many records are sampled as accounted",
    "dppm_model.mechanism.base:RoundSpec.sampling_numerator",
    as_property(lambda value: min(2**32, 2 * value)),
    only="[0.5-directions]",
)
@twin(
    "sampling of names is counted twice: in the response and in composition",
    "dppm_model.phase:PhasePlan.cost",
    _sampled_twice,
    only="[0.5-directions]",
)
@pytest.mark.parametrize("phase", [PHASE, DIRECTIONS], ids=["binomial", "directions"])
@pytest.mark.parametrize("q", [0.5, 1.0])
def test_no_report_passes_the_claim(
    phase: PhasePlan, q: float, few_bits: EveryCoin, tmp_path: Path
) -> None:
    phase = replace(phase, sampling_rate=q)
    for seed in range(6):
        assert max(excess(phase, phase, few_bits, tmp_path, seed).values()) < 1e-12


@pytest.mark.parametrize("phase", [WIDE, DIRECTIONS], ids=["binomial", "directions"])
@pytest.mark.parametrize("q", [0.5, 1.0])
def test_no_report_passes_the_claim_for_a_person_with_three_records(
    phase: PhasePlan, q: float, few_bits: EveryCoin, tmp_path: Path
) -> None:
    phase = replace(phase, sampling_rate=q)
    for seed in range(6):
        assert max(excess(phase, phase, few_bits, tmp_path, seed, each=3).values()) < 1e-12


@twin(
    "θ is off by five per cent",
    "dppm_model.mechanism.binomial:BinomialMechanism.numerators",
    _truth(1.05),
    only="[1.0-14]",
)
@pytest.mark.parametrize("few_bits", [14], indirect=True)
@pytest.mark.parametrize("fault", [1.0, 1.05])
def test_the_claim_is_tight(fault: float, few_bits: EveryCoin, tmp_path: Path) -> None:
    """A short record that moves one answer up to 1/2 + theta: five per cent more truth is seen."""
    response = BinomialMechanism(range_=1.0, truth_strength=0.25, responses=1)
    phase = replace(PHASE, mechanism=response, clip_norm=0.1, sampling_rate=1.0)
    executed = with_mechanism(phase, truth_strength=0.25 * fault)
    white = np.full((10, 2), 255)
    laws = [report_law(white[:n], executed, few_bits, tmp_path / f"{n}") for n in (9, 10)]
    near = np.linspace(0, 0.1, 100)  # where "no" becomes a little less likely
    found = hockey_stick(*laws, near) - claimed(phase.cost("site", 1).mu, 1.0, near)
    assert found.max() > 1e-4 if fault > 1 else -1e-3 < found.max() < 1e-12


def _others_count_as_uniform(old: Any) -> Any:
    return cache(lambda truth, k, answers, tau: old(truth, k, 20 * answers, tau))


@twin(
    "twenty times as many slots are counted as there are",
    "dppm_model.privacy.directions:mu_directions",
    _others_count_as_uniform,
    only="[5-0.3-2]",
)
@twin(
    "the ε of a name at δ = 0 is a tenth too small",
    "dppm_model.privacy.directions:pure_epsilon",
    times(0.9),
    only="[0-0.8-4]",
)
@pytest.mark.parametrize(("truth", "directions"), [(0.3, 2), (0.1, 8), (0.8, 4), (1e-4, 2)])
@pytest.mark.parametrize("others", [0, 1, 5])
def test_directions_cost_enough_for_any_slots(truth: float, directions: int, others: int) -> None:
    """Other slots may tell any names with up to ``truth``: the worst is no worse than claimed.

    Whole histograms are enumerated, with the record in question and without it.
    """
    rng = np.random.default_rng(others)
    mu = mu_directions(truth, directions, others + 1, 1e-15)
    curve = claimed(mu, 1.0) + 2e-15 * (1 + np.exp(EPSILONS))
    curve = np.where(pure_epsilon(truth, directions) <= EPSILONS, 1e-15, curve)
    uniform = np.full(directions, 1 / directions)
    told = (1 - truth) * uniform + truth * np.eye(directions)[0]
    for _ in range(4):
        laws = []
        names = rng.integers(0, directions, others)
        shares = truth * rng.choice([0.0, 0.5, 1.0], others)[:, None]
        rest = (1 - shares) * uniform + shares * np.eye(directions)[names]
        for own in (told, uniform):
            law: dict[tuple[int, ...], float] = {(0,) * directions: 1.0}
            for slot in (own, *rest):
                grown: dict[tuple[int, ...], float] = {}
                for counts, weight in law.items():
                    for k in range(directions):
                        more = (*counts[:k], counts[k] + 1, *counts[k + 1 :])
                        grown[more] = grown.get(more, 0.0) + weight * slot[k]
                law = grown
            laws.append(law)
        keys = sorted(laws[0].keys() | laws[1].keys())
        one, two = (np.array([law.get(key, 0.0) for key in keys]) for law in laws)
        for a, b in ((one, two), (two, one)):
            assert (hockey_stick(a, b) - curve).max() < 1e-12
    if others == 0:  # and it is tight: a twentieth less is not enough
        assert (hockey_stick(one, two) - claimed(0.95 * mu, 1.0)).max() > 0
