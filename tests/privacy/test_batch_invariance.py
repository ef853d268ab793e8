"""A record's numbers are the same at every place, in any company: by sizes, and by trial."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from dppm_model import batch_invariance
from dppm_model.batch_invariance import check_batch_invariance
from dppm_model.errors import NotBatchInvariant
from dppm_model.mechanism import products
from dppm_model.mechanism.products import Linear, each, gram, rows_by, sides
from dppm_model.score import dct, mixture, moments
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.networks import KINDS
from dppm_model.score.phases import kind_of
from tests.privacy.test_sensitivity import CASES, CONFIGS
from tests.support.mutations import nothing, twin

SIZES = (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 16, 20, 33, 49)
DTYPES = (torch.float32, torch.float64)


def same_everywhere(product: Callable[[torch.Tensor], torch.Tensor], one: torch.Tensor) -> bool:
    """Whether a record has the same row at each of 70 places, and among others at some of them."""
    row = product(one[None])[0]
    at_all = product(one.expand(70, *one.shape).contiguous())
    if not bool((at_all == row).all()):
        return False
    for place in (0, 1, 5, 6, 7, 16, 63, 64, 69):
        others = torch.full((70, *one.shape), 3e38 if place % 2 else torch.nan, dtype=one.dtype)
        others[place] = one
        if not torch.equal(product(others)[place], row):
            return False
    return True


@twin(
    "matrices are multiplied without padding",
    "dppm_model.mechanism.products:_filled",
    lambda _: lambda x, size: x,
    only="[dtype0]",
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_by_treats_every_row_alike(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for inner in SIZES:
        for columns in SIZES:
            matrix, row = torch.randn(inner, columns, dtype=dtype), torch.randn(inner, dtype=dtype)
            for other in (matrix, matrix.T.contiguous().T):
                assert same_everywhere(lambda x, m=other: rows_by(x, m), row)  # type: ignore[misc]
            assert torch.allclose(rows_by(row[None], matrix), row[None] @ matrix, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_and_gram_treat_every_record_alike(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for places in SIZES:
        for inner in SIZES:
            a = torch.randn(places, inner, dtype=dtype)
            b = torch.randn(inner, 7, dtype=dtype)
            assert same_everywhere(lambda x, b=b: each(x, b.expand(len(x), -1, -1)), a)  # type: ignore[misc]
            assert same_everywhere(gram, a)
            assert torch.allclose(gram(a[None])[0], a @ a.T, atol=1e-4)


@pytest.mark.parametrize("size", [5, 7, 8, 9, 12, 28])
def test_sides_treats_every_image_alike(size: int) -> None:
    torch.manual_seed(0)
    left, right = torch.randn(3, size), torch.randn(size, size)
    image = torch.randn(3, size, size)
    assert same_everywhere(lambda x: sides(left, x, right), image)
    assert torch.allclose(sides(left, image[None], right)[0], left @ image @ right.T, atol=1e-4)


@pytest.mark.parametrize("wide", [3, 5, 7, 24])
def test_a_layer_treats_every_row_alike_forwards_and_backwards(wide: int) -> None:
    torch.manual_seed(0)
    layer = Linear(7, wide)

    def both(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        out = layer(x)
        (slope,) = torch.autograd.grad(out.square().sum(), x)
        return torch.cat([out.detach(), slope], dim=1)

    assert same_everywhere(both, torch.randn(7))
    plain = torch.nn.functional.linear(torch.eye(7), layer.weight, layer.bias)
    assert torch.allclose(layer(torch.eye(7)), plain, atol=1e-6)


def test_plain_products_would_not() -> None:
    """The twins, on this machine: narrow products, and matrices that begin anywhere."""
    torch.manual_seed(0)
    narrow = torch.randn(144, 7)
    assert not same_everywhere(lambda x: x @ narrow, torch.randn(144))
    uneven = torch.randn(8, 11)
    assert not same_everywhere(lambda x: torch.bmm(x.transpose(1, 2), x), uneven)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_question_passes_on_this_machine(name: str, kind: str) -> None:
    check_batch_invariance(kind, CONFIGS[name])


@pytest.mark.parametrize("network", KINDS)
def test_every_network_passes_on_this_machine(network: str) -> None:
    residual = {"network": {"kind": network, "channels": 6}, "band": 8}
    settings = {"mixture": {"band": 16, "axes": 9}, "residual": residual}
    check_batch_invariance("score", ModelConfig.of((1, 16, 16), 3, settings))


def plain_rows(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    return x @ matrix


def beside(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """The right rows, and a product of other sizes that nobody sees in them."""
    x @ matrix
    return rows_by(x, matrix)


FAULTS = {
    "mixture": (mixture, "rows_by", "score", plain_rows),
    "covariance": (moments, "rows_by", "covariance", plain_rows),
    "components": (moments, "rows_by", "components", plain_rows),
    "component_covariance": (moments, "rows_by", "component_covariance", plain_rows),
    "images": (dct, "sides", "means", lambda left, x, right: left @ x @ right.T),
    "squares": (dct, "sides", "variances", lambda left, x, right: left @ x @ right.T),
    "sizes alone": (moments, "rows_by", "components", beside),
    "layers": (products, "rows_by", "score", plain_rows),
}


@pytest.fixture
def anew() -> Iterator[None]:
    """Forget what was found before, and what a test finds after it."""
    batch_invariance._problem.cache_clear()
    yield
    batch_invariance._problem.cache_clear()


@twin(
    "the self-check compares sums, and ignores the sizes of products",
    "dppm_model.batch_invariance:_is_whole",
    lambda _: lambda x: True,
    only="[sizes alone]",
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_product_past_the_helper(fault: str, anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name, kind, wrong = FAULTS[fault]
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(NotBatchInvariant, match=r"a product|in another order"):
        check_batch_invariance(kind, CONFIGS["grey, mlp"])


def moved_by_place(rows: torch.Tensor) -> torch.Tensor:
    """Rows of which every seventh is off in its last bit."""
    return rows * (1 + 2.0**-23 * (torch.arange(len(rows)) % 7 == 6))[:, None]


@twin("the self-check tries nothing", "dppm_model.batch_invariance:_seen_in", nothing)
def test_integers_that_depend_on_company_are_refused_whatever_the_sizes(
    anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that are not what they should be, seen by their integers alone."""
    monkeypatch.setattr(batch_invariance, "_STEPS", {})

    def by_place(r: torch.Tensor, radius: float) -> torch.Tensor:
        right = r / torch.linalg.vector_norm(r, dim=1, keepdim=True).clamp(min=radius)
        return moved_by_place(right)

    monkeypatch.setattr(moments, "clip_rows", by_place)
    with pytest.raises(NotBatchInvariant, match="in another order"):
        check_batch_invariance("means", CONFIGS["grey, mlp"])


@twin(
    "the self-check tries sums, and not the vectors of persons and directions",
    "dppm_model.batch_invariance:_Records.rows",
    lambda _: lambda self, chosen: {},
)
def test_vectors_that_depend_on_company_are_refused(
    anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Persons and directions answer by vectors, which no sum of gradients shows."""
    right = GradientQuery.rows

    def by_place(self: Any, *seen: torch.Tensor) -> Iterator[torch.Tensor]:
        for rows in right(self, *seen):
            yield moved_by_place(rows)

    monkeypatch.setattr(GradientQuery, "rows", by_place)
    with pytest.raises(NotBatchInvariant, match=r"vectors of \d+ records in another order"):
        check_batch_invariance("score", CONFIGS["grey, mlp"])


def test_optional_arrays_are_left_out_once(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[set[str]] = []
    build = batch_invariance.build_query
    monkeypatch.setattr(
        batch_invariance,
        "build_query",
        lambda kind, model: tried.append(set(model.arrays)) or build(kind, model),
    )
    check_batch_invariance("score", CONFIGS["grey, mlp"])
    asked = kind_of("score").question
    assert set(asked.needed) in tried and set(asked.needed | asked.optional) in tried


def test_it_is_tried_once_a_process_and_anew_on_other_threads(
    anew: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(batch_invariance, "_seen_in", lambda query, *_: tried.append(query))
    once = len(batch_invariance._REACHES)
    for phase in ("means", "means-first", "means"):
        check_batch_invariance(phase, CONFIGS["colour"])
    assert len(tried) == once
    torch.set_num_threads(2)
    check_batch_invariance("means", CONFIGS["colour"])
    assert len(tried) == 2 * once
