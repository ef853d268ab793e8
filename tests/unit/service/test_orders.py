"""Requests: split into aligned shards that cover them once, or refused by field, with a hint."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dppm_model.errors import ConfigError
from sampler.service import sampling_pb2 as pb
from sampler.service.bounds import check_request, request_bounds
from sampler.service.messages import sampler_message, settings_of
from sampler.service.orders import Limits, Order, Served, read_order
from sampler.settings import SamplerSettings

SERVED = Served("digest", 3, (1, 6, 6), {}, SamplerSettings(), 10)
GOOD: dict[str, Any] = {"batches": [pb.Batch(label=2, first=5, count=20)]}


def order(**fields: Any) -> Order:
    request = pb.SampleRequest(**(GOOD | fields))
    check_request(request, request_bounds(SERVED.classes))
    return read_order(request, SERVED, Limits())


@given(first=st.integers(0, 100), count=st.integers(1, 60))
def test_pieces_cover_a_batch_once_by_whole_aligned_shards(first: int, count: int) -> None:
    made = order(batches=[pb.Batch(label=1, first=first, count=count)])
    indices = [p.shard.first + row for p in made.pieces() for row in range(p.start, p.stop)]
    assert indices == list(range(first, first + count))
    assert all(p.shard.first % 10 == 0 and p.shard.count == 10 for p in made.pieces())
    assert made.images == count <= made.cost < count + 20
    assert made.shards == len(list(made.pieces()))


def test_settings_are_the_runs_but_for_what_is_set() -> None:
    tuned = SamplerSettings(num_levels=3, step_size=(0.1, 0.2, 0.3))
    assert settings_of(pb.Sampler(), tuned) == tuned
    assert settings_of(sampler_message(tuned), SamplerSettings()) == tuned
    changed = settings_of(
        pb.Sampler(metropolis=False, step_size=[0.25], momentum_persistence=0.0), tuned
    )
    assert (changed.metropolis, changed.step_size) == (False, 0.25)
    assert changed.momentum_persistence == 0.0
    assert changed.num_levels == 3


@pytest.mark.parametrize(
    ("fields", "says", "hint"),
    [
        ({"batches": []}, "batches has 0 entries", "1 to 1000"),
        ({"batches": [pb.Batch(count=1)] * 1001}, "batches has 1001", "1 to 1000"),
        ({"batches": [pb.Batch(label=3, count=1)]}, r"batches\[0\].label is 3", "0 to 2"),
        ({"batches": [pb.Batch(label=-1, count=1)]}, r"batches\[0\].label is -1", "0 to 2"),
        ({"batches": [*GOOD["batches"], pb.Batch()]}, r"batches\[1\].count is 0", "1 to"),
        ({"batches": [pb.Batch(first=-1, count=1)]}, r"batches\[0\].first is -1", "0 to"),
        ({"batches": [pb.Batch(first=10**9 - 1, count=2)]}, r"batches\[0\].count", "1 to 1"),
        ({"batches": [pb.Batch(count=100_001)]}, "add up to 100001", "at most 100000"),
        ({"seed": -1}, "seed is -1", "0 or more"),
        ({"format": 7}, "format is 7", "PNG"),
        ({"sampler": pb.Sampler(method="magic")}, "sampler.method is 'magic'", "heun"),
        ({"sampler": pb.Sampler(num_levels=1)}, "sampler.num_levels is 1", "2 to"),
        (
            {"sampler": pb.Sampler(num_integration_steps=3)},
            "sampler.num_integration_steps is 3",
            "even",
        ),
        (
            {"sampler": pb.Sampler(step_size=[float("nan")])},
            "sampler.step_size is nan",
            "from 0.001",
        ),
        (
            {"sampler": pb.Sampler(step_size=[0.1, 0.2])},
            "sampler.step_size has 2 numbers",
            "one a level",
        ),
        ({"sampler": pb.Sampler(sigma_max=float("inf"))}, "sampler.sigma_max is inf", "from 0.001"),
        ({"sampler": pb.Sampler(num_levels=500)}, "each octave, is 1500", "at most 1000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(fields: dict[str, Any], says: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        order(**fields)
    assert hint in refusal.value.hint


@pytest.mark.parametrize("value", [0, -1, 1.5, True, 2**31])
def test_limits_refuse(value: Any) -> None:
    with pytest.raises(ConfigError, match="jobs_per_client"):
        Limits(jobs_per_client=value)
