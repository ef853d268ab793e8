"""Every field of every request has bounds, which are checked before anything is built."""

import math
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from dppm_model.bounds import Choice, Real, Row, Text, Whole
from dppm_model.errors import ConfigError
from sampler import settings
from sampler.service import sampling_pb2 as pb
from sampler.service.requests import (
    MOST_BYTES,
    Limits,
    ModelInfo,
    SampleRequest,
    Several,
    check_request,
    read_request,
    request_bounds,
    settings_of,
)
from sampler.service.service import sampler_message
from sampler.settings import SamplerSettings
from tests.support.mutations import twin

CLASSES = 3
TABLE = request_bounds(CLASSES)
GOOD = pb.SampleRequest(batches=[pb.Batch(count=1)], sampler=pb.Sampler())
LIMITS = {"int32": 2**31, "int64": 2**63}
SERVED = ModelInfo("digest", CLASSES, (1, 6, 6), {}, SamplerSettings(), 10)
FIELDS: dict[str, Any] = {"batches": [pb.Batch(label=2, first=5, count=20)]}
EXTREME = [math.nan, math.inf, -math.inf, 1e308, -1e308, 1e300, 1e-300, 5e-324, -5e-324, -1.0]


def messages() -> dict[str, Any]:
    """Requests, and every message within one, by name: walked from the service's descriptor."""
    todo = [m.input_type for m in pb.DESCRIPTOR.services_by_name["Sampling"].methods]
    found: dict[str, Any] = {}
    while todo:
        one = todo.pop()
        found[one.name] = one
        todo += [f.message_type for f in one.fields if f.message_type is not None]
    return found


def fields() -> Iterator[tuple[str, FieldDescriptor]]:
    for name, message in messages().items():
        for field in message.fields:
            yield name, field


@twin(
    "a field of a request is not checked",
    "sampler.service.requests:request_bounds",
    lambda old: lambda classes: {**old(classes), "StatusRequest": {}},
)
def test_every_field_of_every_request_has_a_row_and_no_row_is_left_over() -> None:
    assert {name: {f.name for f in m.fields} for name, m in messages().items()} == {
        name: set(rows) for name, rows in request_bounds(CLASSES).items()
    }


@pytest.mark.parametrize(("message", "field"), fields(), ids=lambda x: getattr(x, "name", x))
def test_a_row_is_finite(message: str, field: FieldDescriptor) -> None:
    row: Any = TABLE[message][field.name]
    if field.is_repeated:
        assert isinstance(row, Several) and row.most <= 10_000
        row = row.each
    if isinstance(row, Real):
        assert math.isfinite(row.least) and math.isfinite(row.most) and row.least <= row.most


def requests_with(value: Any, message: str, field: FieldDescriptor) -> list[Any]:
    """Requests with this value in this field."""
    given = [value] if field.is_repeated else value
    if message == "Sampler":
        return [pb.SampleRequest(batches=GOOD.batches, sampler=pb.Sampler(**{field.name: given}))]
    if message == "Batch":
        return [pb.SampleRequest(batches=[pb.Batch(**({"count": 1} | {field.name: given}))])]
    return [
        getattr(pb, message)(
            **({"batches": GOOD.batches} if message == "SampleRequest" else {})
            | {field.name: given}
        )
    ]


def wrong_values(field: FieldDescriptor, row: Row) -> Iterator[Any]:
    if isinstance(row, Real):
        yield from (v for v in EXTREME if not row.least <= v <= row.most)
        yield from (math.nextafter(row.least, -math.inf), math.nextafter(row.most, math.inf))
    elif isinstance(row, Whole):
        top = 2**31 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 2**63
        yield from {
            v
            for v in (-top, -1, row.least - 1, row.most + 1, top - 1)
            if -top <= v < top and not row.least <= v <= row.most
        }
    elif isinstance(row, Choice):
        yield from ("magic", "", "x" * 60_000) if field.enum_type is None else (7, -1, 2**31 - 1)
    elif isinstance(row, Text):
        yield "x" * (row.most + 1)


@twin(
    "NaN is within bounds",
    "dppm_model.bounds:Real.check",
    lambda old: (
        lambda self, name, value, *kind: None if value != value else old(self, name, value, *kind)
    ),
    only="[Sampler-sigma_max]",
)
@pytest.mark.parametrize(("message", "field"), fields(), ids=lambda x: getattr(x, "name", x))
def test_what_is_out_of_bounds_is_refused_by_name(message: str, field: FieldDescriptor) -> None:
    row: Any = TABLE[message][field.name]
    if isinstance(row, Several):
        row = row.each
    if row is None:
        return
    for value in wrong_values(field, row):
        for request in requests_with(value, message, field):
            with pytest.raises(ConfigError) as refusal:
                check_request(request, TABLE)
            assert f"{field.name} is " in refusal.value.message
            assert len(refusal.value.message) < 100  # it travels in a header


def test_the_largest_good_request_fits() -> None:
    batch = pb.Batch(label=CLASSES - 1, first=10**9 - 1, count=10**9)
    chosen = {}
    for name, row in settings.BOUNDS.items():
        if isinstance(row, Whole | Real):
            chosen[name] = row.most
        elif isinstance(row, Choice):
            chosen[name] = max(map(str, row.options), key=len)
    steps = [4.0] * settings.MOST_LEVELS
    request = pb.SampleRequest(
        batches=[batch] * 1000,
        seed=2**63 - 1,
        sampler=pb.Sampler(**(chosen | {"step_size": steps})),
    )
    check_request(request, TABLE)
    assert request.ByteSize() < MOST_BYTES
    for wrong in ({"batches": [batch] * 1001}, {"sampler": pb.Sampler(step_size=[*steps, 1.0])}):
        with pytest.raises(ConfigError, match=r"has 10*1 entries"):
            check_request(pb.SampleRequest(**({"batches": [batch]} | wrong)), TABLE)


WHOLE = [name for name, row in settings.BOUNDS.items() if isinstance(row, Whole)]


@twin(
    "a sampler may have any number of noise levels",
    "sampler.settings:BOUNDS",
    lambda old: {**old, "num_levels": replace(old["num_levels"], most=2**62)},
    only="[num_levels]",
)
@pytest.mark.parametrize("name", WHOLE)
def test_settings_build_nothing_that_is_as_long_as_a_number_is_large(name: str) -> None:
    """2^31 - 1 levels were 16 GB of step sizes before they were refused."""
    for value in (2**31 - 1, 2**24, settings.BOUNDS[name].most + 1):  # type: ignore[attr-defined]
        tracemalloc.start()
        try:
            with pytest.raises(ConfigError, match=f"sampler.{name} is {value}"):
                SamplerSettings(**{name: value})
            assert tracemalloc.get_traced_memory()[1] < 100_000
        finally:
            tracemalloc.stop()


def test_a_request_is_small_before_it_has_passed_the_quotas() -> None:
    """A list of the shards of 100,000 large images took 40 MB."""
    served = replace(SERVED, shard_size=1)
    request = pb.SampleRequest(batches=[pb.Batch(count=100_000)])
    tracemalloc.start()
    try:
        made = read_request(request, served, Limits())
        assert made.cost == made.shards == 100_000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    request = pb.SampleRequest()
    try:
        request.ParseFromString(content)
    except Exception:
        return
    begun = time.monotonic()
    try:
        check_request(request, TABLE)
        read_request(request, SERVED, Limits())
    except ConfigError as error:
        assert error.message and error.hint
    assert time.monotonic() - begun < 1


def asked(**fields: Any) -> SampleRequest:
    request = pb.SampleRequest(**(FIELDS | fields))
    check_request(request, request_bounds(SERVED.classes))
    return read_request(request, SERVED, Limits())


@given(first=st.integers(0, 100), count=st.integers(1, 60))
def test_pieces_cover_a_batch_once_by_whole_aligned_shards(first: int, count: int) -> None:
    made = asked(batches=[pb.Batch(label=1, first=first, count=count)])
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
        ({"batches": [*FIELDS["batches"], pb.Batch()]}, r"batches\[1\].count is 0", "1 to"),
        ({"batches": [pb.Batch(first=10**9 - 1, count=2)]}, r"batches\[0\].count", "1 to 1"),
        ({"batches": [pb.Batch(count=100_001)]}, "add up to 100001", "at most 100000"),
        (
            {"sampler": pb.Sampler(num_integration_steps=3)},
            "sampler.num_integration_steps is 3",
            "even",
        ),
        (
            {"sampler": pb.Sampler(step_size=[0.1, 0.2])},
            "sampler.step_size has 2 numbers",
            "one per level",
        ),
        ({"sampler": pb.Sampler(num_levels=100)}, "each stage, is 1200", "at most 1000"),
        (
            {"sampler": pb.Sampler(num_levels=500, guidance=1)},
            "each stage, is 1500",
            "at most 1000",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(fields: dict[str, Any], says: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        asked(**fields)
    assert hint in refusal.value.hint


@pytest.mark.parametrize("value", [0, -1, 1.5, True, 2**31])
def test_limits_refuse(value: Any) -> None:
    with pytest.raises(ConfigError, match="jobs_per_client"):
        Limits(jobs_per_client=value)
