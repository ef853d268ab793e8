"""Persons: one vector of norm C each, however many records they own, and the same in any company.

One person owns half of the shard, and their images are all alike, so that nothing of their vectors
cancels: whatever is clipped, summed or sampled record by record instead of person by person shows.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from deploy.simulate import plan_of, resolve
from dppm_model.config import initial_model
from dppm_model.errors import DataError, PlanError
from dppm_model.mechanism.quantize import Grid
from dppm_model.plan import Plan
from dppm_model.planner import summary
from dppm_model.records.shards import Records, open_records
from dppm_model.records.units import Units
from dppm_model.records.writing import write_records
from dppm_model.round import report
from dppm_model.score import class_sums
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import PHASES, write_question
from dppm_model.score.query import Query
from dppm_model.score.unit_batches import UnitBatches
from dppm_model.training.learner import build_learner
from tests.conftest import TINY
from tests.privacy.test_site import make_site
from tests.support.mutations import Make, twin
from tests.support.plan_factory import TOY
from tests.support.seeded_rng import SeededRNG

KINDS = tuple(PHASES)
K = 3
GRID = Grid(0.01, 1 << 24)  # every vector is longer: each is clipped
OWNED = [150, *[5] * 20, *[1] * 50]  # records of each person


@cache
def question(kind: str) -> Query:
    settings = {
        "mixture": {"band": 40, "axes": 16, "components": 2, "principal_axes": 8},
        "residual": {"band": 16, "network": {"kind": "conv", "channels": 16, "blocks": 2}},
        **({"pyramid": {"stages": 1}} if kind == "detail" else {}),
        **({"pretrained": {}} if kind == "fine_tuning" else {}),
    }
    side = 64 if kind == "detail" else 16
    query = build_learner(kind, ScoreModel.initial((1, side, side), 3, settings), 0).query()
    if kind == "score":  # the last layer begins at zero
        generator = torch.Generator().manual_seed(1)
        for p in query.network.parameters():  # type: ignore[attr-defined]
            p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return query


def shard(folder: Path, kind: str = "means") -> Records:
    """The shard; person 0's images are all alike."""
    side = 64 if kind == "detail" else 16
    rng = np.random.default_rng(0)
    owners = rng.permutation(np.repeat(np.arange(len(OWNED)), OWNED))
    images = rng.integers(0, 256, (len(owners), 1, side, side), dtype=np.uint8)
    labels = rng.integers(0, 3, len(owners))
    images[owners == 0], labels[owners == 0] = images[0], 0
    write_records(folder, images, labels, name="x", split="train", classes="abc", persons=owners)
    return open_records(folder)


def without(records: Records, person: int) -> Records:
    assert records.persons is not None
    return records.select(np.flatnonzero(records.persons != person))


def asking(
    records: Records, kind: str, grid: Grid = GRID, some: slice = slice(None), most: int = K
) -> UnitBatches:
    """Ask (some of) the persons, each with the seed of their own."""
    assert records.persons is not None
    units = Units.of(records, "person", most)
    persons = np.random.default_rng(1).integers(0, 2**63 - 1, len(OWNED))
    seeds = persons[np.unique(records.persons)]
    return UnitBatches(units, question(kind), grid, np.arange(len(units))[some], seeds[some])


def vectors(asked: UnitBatches, persons: int) -> np.ndarray:
    return torch.cat(list(asked.vectors(slice(0, persons)))).to(torch.int64).numpy()


def norm(vector: np.ndarray) -> float:
    return float(sum(int(v) ** 2 for v in vector)) ** 0.5


# How much a person moves.


def _each_clipped(_: Any) -> Any:
    def clipped_units(rows: Any, counts: Any, grid: Any) -> Any:
        each = (row for piece in rows for row in piece)
        for count in counts:
            yield sum(grid.quantize(next(each)[None]) for _ in range(count))

    return clipped_units


@twin(
    "a person's records are clipped one by one",
    "dppm_model.mechanism.units:clipped_units",
    _each_clipped,
    only="[3-means]",
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [K, 1])
def test_a_person_who_owns_half_of_a_shard_moves_the_sum_by_at_most_c(
    most: int, kind: str, tmp_path: Path
) -> None:
    """The vectors of those who answer through one record are clipped without being formed."""
    records = shard(tmp_path / "x", kind)
    whole, rest = (asking(r, kind, most=most).total() for r in (records, without(records, 0)))
    assert 0.99 * GRID.steps < norm(whole - rest) <= GRID.steps
    if most == K:
        alone = vectors(asking(records, kind, some=slice(1)), 1)[0]
        np.testing.assert_array_equal(whole - rest, alone)


@pytest.mark.parametrize("kind", KINDS)
def test_every_persons_vector_is_as_short_as_c(kind: str, tmp_path: Path) -> None:
    asked = vectors(asking(shard(tmp_path / "x", kind), kind), len(OWNED))
    assert max(norm(vector) for vector in asked) <= GRID.steps


def _sum_for_mean(_: Any) -> Any:
    def clipped_units(rows: Any, counts: Any, grid: Any) -> Any:
        each = (row for piece in rows for row in piece)
        for count in counts:
            yield grid.quantize(sum(next(each).double() for _ in range(count))[None])

    return clipped_units


@twin(
    "a person's records are summed, not averaged",
    "dppm_model.mechanism.units:clipped_units",
    _sum_for_mean,
    only="[means]",
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_persons_vector_is_the_mean_of_their_records(kind: str, tmp_path: Path) -> None:
    """Against plain sums over records that are asked one by one, where nothing is clipped."""
    records, query, wide = shard(tmp_path / "x", kind), question(kind), Grid(100.0, 1 << 24)
    units = Units.of(records, "person", K)
    seeds = np.random.default_rng(2).integers(0, 2**63 - 1, 3)
    chosen = units.choose(np.arange(3), seeds)
    own, rows = torch.from_numpy(chosen.seeds), []
    for i, record in enumerate(chosen.records):
        y = torch.tensor([records.labels[record]])
        x = query.view(records.pixels(np.array([record])), own[i, None])
        rows += [row.double().numpy() for part in query.rows(x, y, own[i, None]) for row in part]
    expected = [np.mean(rows[start : start + K], axis=0) for start in (0, K, 2 * K)]
    asked = UnitBatches(units, query, wide, np.arange(3), seeds)
    found = wide.to_float(vectors(asked, 3))
    np.testing.assert_allclose(found, expected, atol=2 * 100 / wide.steps)
    assert max(np.linalg.norm(vector) for vector in expected) > 0.1


# What others have to do with it.


def _noise_by_place(old: Any) -> Any:
    def choose(self: Any, *args: Any) -> Any:
        chosen = old(self, *args)
        return chosen._replace(seeds=np.arange(len(chosen.seeds)))

    return choose


def _one_generator_for_all(old: Any) -> Any:
    generator = np.random.default_rng(0)
    return lambda self, unit, _seed: old(self, unit, int(generator.integers(2**62)))


@twin(
    "the noise of a person's records depends on the others",
    "dppm_model.records.units:Units.choose",
    _noise_by_place,
    only="[score]",
)
@twin(
    "the choice of a person's records depends on the others",
    "dppm_model.records.units:Units._own",
    _one_generator_for_all,
    only="[means]",
)
@pytest.mark.parametrize("kind", KINDS)
def test_nobodys_integers_change_when_a_person_leaves(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_sums.MomentQuery, "chunk", 32)  # several chunks of these few, too
    records = shard(tmp_path / "x", kind)
    together = vectors(asking(records, kind), len(OWNED))
    for person in (0, 1, len(OWNED) - 1):
        rest = vectors(asking(without(records, person), kind), len(OWNED) - 1)
        np.testing.assert_array_equal(np.delete(together, person, axis=0), rest)
    for person in (0, 1, len(OWNED) - 1):
        alone = vectors(asking(records, kind, some=slice(person, person + 1)), 1)
        np.testing.assert_array_equal(together[person], alone[0])


@pytest.mark.parametrize("block", [2, 2 * K + 1])
def test_how_many_images_are_read_at_a_time_changes_nothing(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the records of a person are more than that."""
    asked = asking(shard(tmp_path / "x"), "means")
    whole = asked.total()
    monkeypatch.setattr("dppm_model.score.unit_batches.block_of", lambda _: block)
    np.testing.assert_array_equal(asked.total(), whole)


def test_a_person_whose_record_makes_the_question_fail_counts_as_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = shard(tmp_path / "x")
    expected = asking(without(records, 0), "means").total()
    forbidden = torch.from_numpy(records.images[0].copy())
    query = question("means")
    right = query.view

    def fails(pixels: np.ndarray, seeds: torch.Tensor) -> torch.Tensor:
        if (torch.from_numpy(pixels) == forbidden).flatten(1).all(1).any():
            raise IndexError("a record of this kind was sampled")
        return right(pixels, seeds)

    monkeypatch.setattr(query, "view", fails)
    assert len(np.unique(records.persons)) == len(OWNED) and records.persons is not None
    assert records.persons[0] == 0, "the image that fails is of the person who owns half"
    np.testing.assert_array_equal(asking(records, "means").total(), expected)


# Who is sampled, and what is read.


class Watched:
    """Notes which records' images are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[int] = []
        right = Records.pixels

        def pixels(records: Records, index: np.ndarray) -> np.ndarray:
            self.read += index.tolist()
            return right(records, index)

        monkeypatch.setattr(Records, "pixels", pixels)

    def of(self, records: Records) -> np.ndarray:
        """How many images of each person were read; none of them twice."""
        assert records.persons is not None
        assert len(set(self.read)) == len(self.read)
        counts = np.bincount(records.persons[self.read], minlength=len(OWNED))
        self.read.clear()
        return counts


def _gathered(change: Callable[[str, int], tuple[str, int]]) -> Make:
    def make(old: Any) -> Any:
        return classmethod(
            lambda cls, records, unit, most: old.__func__(cls, records, *change(unit, most))
        )

    return make


@twin(
    "all records of a person are asked",
    "dppm_model.records.units:Units.of",
    _gathered(lambda unit, _: (unit, 1 << 30)),
    only="[binomial]",
)
@pytest.mark.parametrize("mechanism", ["binomial", "directions"])
def test_at_most_k_images_of_a_person_are_read(
    mechanism: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, watched = shard(tmp_path / "x"), Watched(monkeypatch)
    asked = asking(records, "means")
    if mechanism == "binomial":
        asked.total()
    else:
        asked.map(lambda part: list(asked.vectors(part)))
    np.testing.assert_array_equal(watched.of(records), np.minimum(OWNED, K))


@twin(
    "records are sampled in place of persons",
    "dppm_model.records.units:Units.of",
    _gathered(lambda _, most: ("record", most)),
)
def test_persons_are_sampled_at_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and the one who owns half: false alarms once in a million, by exact tails."""
    records, watched = shard(tmp_path / "x"), Watched(monkeypatch)
    units, query, rounds = Units.of(records, "person", K), question("means"), 600
    phase = replace(TOY, sampling_rate=0.3, dimension=query.dimension, clip_norm=0.01)
    coins, sampled = SeededRNG("persons"), np.zeros(len(OWNED), dtype=int)
    for _ in range(rounds):
        report(units, query, phase, b"signs", coins)
        read = watched.of(records)
        assert set(read[read > 0] - np.minimum(OWNED, K)[read > 0]) <= {0}  # whole persons
        sampled += read > 0
    for hits, trials in ((sampled.sum(), rounds * len(OWNED)), (sampled[0], rounds)):
        assert binomtest(int(hits), trials, 0.3).pvalue > 5e-7


# The plan and the site.


def _nobody_named(old: Any) -> Any:
    def load(*args: Any) -> Any:
        records = old(*args)
        return replace(records, manifest=replace(records.manifest, persons=False))

    return load


@twin("persons are planned for as records", "dppm_model.records.sources:load", _nobody_named)
def test_who_is_named_is_protected_unless_told_otherwise(people: Path) -> None:
    asked = [*TINY, "data=people"]
    for overrides, unit, most, units in (
        ([], "person", 8, 120),
        (["privacy.unit=person", "privacy.records_per_person=3"], "person", 3, 120),
        (["privacy.unit=record"], "record", 1, 600),
    ):
        plan = plan_of(resolve([*asked, *overrides]), "run")
        assert (plan.unit, plan.records_per_person) == (unit, most)
        assert {phase.records for phase in plan.phases} == {units}
        assert Plan.from_json(plan.to_json()) == plan
        told = summary(plan)
        assert told["unit"] == unit and f"one {unit}" in told["adjacency"]


@pytest.mark.parametrize(
    ("unit", "most"),
    [("family", 1), ("record", 2), ("person", 0), ("person", 2.0), ("person", True)],
)
def test_plans_of_no_such_unit_are_refused(unit: str, most: int, tiny: Path) -> None:
    plan = plan_of(resolve(TINY), "run")
    with pytest.raises(PlanError, match=r"unit|records_per_person"):
        replace(plan, unit=unit, records_per_person=most)  # type: ignore[arg-type]


def test_a_site_whose_records_name_no_persons_refuses_before_anything_is_spent(
    tmp_path: Path, tiny: Path
) -> None:
    config = resolve(TINY)
    plan = replace(plan_of(config, "run-a"), unit="person", records_per_person=8)
    site = make_site(tmp_path, tiny)
    with pytest.raises(DataError, match="names no persons"):
        site.answer(plan, 0, 0, write_question("means", initial_model(config)))
    assert site.ledger.debits == ()
