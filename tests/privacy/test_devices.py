"""Another device: nothing stays on the CPU, arithmetic is exact, a missing device is refused.

There is no accelerator here. `tests.support.elsewhere` is one in name: its numbers are a CPU's, and
it fails where a GPU would. (`tests/privacy/test_gpu.py` asks a real one.)
"""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploy.flower import resources
from dppm_model import batch_invariance
from dppm_model.batch_invariance import check_batch_invariance
from dppm_model.device import device_of
from dppm_model.errors import ConfigError
from dppm_model.mechanism.quantize import Grid
from dppm_model.plan import Plan
from dppm_model.records.shards import open_records
from dppm_model.records.units import Units
from dppm_model.records.writing import write_records
from dppm_model.score.arrays import array_specs, draw_arrays
from dppm_model.score.closed_form import LATER
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.networks import KINDS
from dppm_model.score.phases import build_query, kind_of
from dppm_model.score.residual import ResidualConfig
from dppm_model.score.unit_batches import UnitBatches
from dppm_model.training.learner import build_learner
from tests.privacy.test_sensitivity import CASES, CONFIGS
from tests.privacy.test_site import approve, config, make_site, plan, question  # noqa: F401
from tests.support.elsewhere import DEVICE, Elsewhere, ElsewhereMode
from tests.support.mutations import nothing, twin

GRID = Grid(1.0, 1 << 24)
N = 70  # more than a chunk of a gradient phase
UNET = ModelConfig.of(
    (1, 8, 8), 2, {"mixture": {"band": 16}, "residual": {"network": {"kind": "unet"}, "band": 8}}
)
EVERY = [(CONFIGS[name], kind) for name, kind in CASES] + [(UNET, "score")]
IDS = ["-".join(case) for case in CASES] + ["unet-score"]


def drawn(of: ModelConfig, kind: str) -> ScoreModel:
    """A model with all that a question takes; its closed form has parts of every kind."""
    asked, rng = kind_of(kind).question, np.random.default_rng(0)
    names = asked.needed | (asked.optional & LATER & array_specs(of).keys())
    return ScoreModel(of, {**of.public_arrays, **draw_arrays(of, names, rng, 1e-3)})


def units(folder: Path, of: ModelConfig, most: int) -> Units:
    """N records; or those of a few persons."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, *of.shape), dtype=np.uint8)
    labels, names = rng.integers(0, of.classes, N), tuple("abc"[: of.classes])
    owners = rng.integers(0, 9, N)
    write_records(folder, pixels, labels, name="x", split="train", classes=names, persons=owners)
    return Units.of(open_records(folder), "record" if most == 1 else "person", most)


def asked(
    who: Units, model: ScoreModel, kind: str, device: torch.device | str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    seeds = np.arange(len(who)) * 7919
    batches = UnitBatches(
        who, build_query(kind, model).to(device), GRID, np.arange(len(who)), seeds
    )
    vectors = torch.cat([v.cpu() for v in batches.vectors(slice(0, len(who)))])
    return batches.total(), vectors.numpy()


def _clipped_where_no_device_is_named(_: Any) -> Any:
    def clip_rows(r: torch.Tensor, clip_norm: float) -> torch.Tensor:
        return r / torch.linalg.vector_norm(r, dim=1, keepdim=True).maximum(torch.ones(len(r), 1))

    return clip_rows


@twin(
    "a question makes a tensor where no device is named",
    "dppm_model.score.moments:clip_rows",
    _clipped_where_no_device_is_named,
    only="[colour-means-records]",
)
@pytest.mark.parametrize("most", [1, 3], ids=["records", "persons"])
@pytest.mark.parametrize(("of", "kind"), EVERY, ids=IDS)
def test_questions_run_on_one_device(of: ModelConfig, kind: str, most: int, tmp_path: Path) -> None:
    who, model = units(tmp_path / "x", of, most), drawn(of, kind)
    here = asked(who, model, kind)
    with ElsewhereMode():
        there = asked(who, model, kind, DEVICE)
    for a, b in zip(here, there, strict=True):
        # Convolutions take other kernels there: channels need not be last.
        near = 1e-3 * GRID.steps if kind in {"score", "fine_tuning"} else 0
        assert a.any() and np.linalg.norm(a - b) <= near


@pytest.mark.parametrize("kind", ["means", "score"])
def test_a_learner_asks_and_learns_from_another_device(kind: str) -> None:
    settings = {"mixture": {"band": 16}, "residual": {"network": {"kind": "dct_mlp"}, "band": 8}}
    start = ScoreModel.initial((1, 8, 8), 2, settings)

    def learnt(model: ScoreModel) -> ScoreModel:
        learner = build_learner(kind, model, 0)
        estimate = np.random.default_rng(0).normal(size=learner.query().dimension) / 100
        learner.step(estimate, 0.01)
        return learner.result()

    here = learnt(start)
    with ElsewhereMode():
        there = learnt(start.to(DEVICE))
        assert there.device == DEVICE
    assert here.to_bytes() == there.to_bytes()


def test_networks_are_asked_elsewhere_whichever_they_are() -> None:
    asked = {of.part(ResidualConfig).network.kind for of, kind in EVERY if kind == "score"}
    assert asked == KINDS.keys()


# A device's arithmetic, and whether it is there.


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine with two GPUs that nobody uses; what is set for them is undone."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    rough = (
        (matmul, "allow_tf32", True),
        (cudnn, "allow_tf32", True),
        (cudnn, "benchmark", True),
        (cudnn, "deterministic", False),
    )
    before = [getattr(flags, name) for flags, name, _ in rough]
    for flags, name, value in rough:
        setattr(flags, name, value)
    yield
    torch.use_deterministic_algorithms(False)
    for (flags, name, _), value in zip(rough, before, strict=True):
        setattr(flags, name, value)


def exact() -> bool:
    """Whether a GPU would compute in full float32, by the same algorithm each time."""
    cudnn = torch.backends.cudnn
    rough = torch.backends.cuda.matmul.allow_tf32 or cudnn.allow_tf32 or cudnn.benchmark
    return cudnn.deterministic and not rough and torch.are_deterministic_algorithms_enabled()


@twin("a GPU uses TF32, and sums in any order", "dppm_model.device:_compute_exactly", nothing)
@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:1"])
def test_a_gpu_computes_exactly(name: str, two_gpus: None) -> None:
    assert not exact()
    assert device_of("cpu").type == "cpu" and not exact()
    assert device_of(name).type == "cuda" and exact()
    assert torch.get_float32_matmul_precision() == "highest"
    assert "CUBLAS_WORKSPACE_CONFIG" in os.environ
    assert not torch.cuda.is_initialized()


@pytest.mark.parametrize(
    "name", ["mps", "tpu", "cuda:", "cuda:x", "cuda:01", "cuda:200", "cpu:0", "", 3, "cuda:2"]
)
def test_other_devices_are_refused(name: Any, two_gpus: None) -> None:
    """``mps`` has no float64."""
    with pytest.raises(ConfigError, match="device is"):
        device_of(name)


def test_a_site_refuses_a_device_that_is_not_there(
    tmp_path: Path,
    tiny: Path,
    plan: Plan,  # noqa: F811
    question: bytes,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    site = make_site(tmp_path, tiny)
    approve(tmp_path, plan)
    site.authorize(plan)
    site.policy = replace(site.policy, device="cuda")
    for ask in (lambda: site.authorize(plan), lambda: site.answer(plan, 0, 0, question)):
        with pytest.raises(ConfigError, match="not there"):
            ask()
    assert not site.ledger.debits
    site.authorize(plan, opens=True)  # sums of earlier answers are still opened
    with pytest.raises(ConfigError, match="device is 'mps'"):
        replace(site.policy, device="mps")


def test_a_gpu_is_not_used_before_a_fork(
    tmp_path: Path,
    tiny: Path,
    plan: Plan,  # noqa: F811
    two_gpus: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, tried = make_site(tmp_path, tiny), []
    monkeypatch.setattr("client.site.check_batch_invariance", lambda *found: tried.append(found))
    for name, times in (("cuda", 0), ("cpu", len(plan.phases))):
        site.policy = replace(site.policy, device=name)
        site.precompute_costs(plan)
        assert len(tried) == times


@twin(
    "a GPU answers because the CPU passed its self-check",
    "dppm_model.batch_invariance:_problem",
    lambda old: cache(lambda kind, of, _, machine: old(kind, of, "cpu", machine)),
)
def test_each_device_is_tried_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    batch_invariance._problem.cache_clear()
    monkeypatch.setattr(batch_invariance, "_seen_in", lambda query, *_: tried.append(query.device))
    with ElsewhereMode():
        for where in ("cpu", DEVICE, DEVICE, "cpu"):
            check_batch_invariance("means", CONFIGS["colour"], where)
    batch_invariance._problem.cache_clear()
    once = len(batch_invariance._REACHES)
    assert tried == [torch.device("cpu")] * once + [DEVICE] * once


def test_the_self_check_runs_there() -> None:
    batch_invariance._problem.cache_clear()
    with ElsewhereMode():
        check_batch_invariance("component_covariance", CONFIGS["colour"], DEVICE)
    batch_invariance._problem.cache_clear()


def test_virtual_sites_share_the_gpus(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for name, nodes, together in (("cuda", 100, 8), ("cuda", 5, 5), ("cuda", 1, 1)):
        share = np.float32(resources(torch.device(name), nodes).rpartition("=")[2])
        assert together <= int(2 / share) and share < 1
        assert share * together > 0.99 * min(2, together)  # of a GPU nothing is left
    for name in ("cpu", "cuda:1"):
        assert resources(torch.device(name), 10).endswith("num-gpus=0.0")


def test_bytes_of_another_device_cannot_be_read() -> None:
    with ElsewhereMode():
        there = torch.zeros(3, device=DEVICE)
        assert isinstance(there, Elsewhere) and isinstance(there + 1, Elsewhere)
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()
        assert there.cpu().numpy().shape == (3,)
        with pytest.raises(AssertionError, match="of the CPU"):
            there + torch.zeros(3)
