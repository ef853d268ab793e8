"""A server's input is untrusted: a question is the plan's, and arrays are data with a range."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from client import site as module
from client.site import read_question as read_tried
from deploy.simulate import plan_of, resolve
from dppm_model import batch_invariance
from dppm_model.config import initial_model
from dppm_model.errors import ModelError, NotBatchInvariant, PlanError
from dppm_model.plan import Plan
from dppm_model.score import residual
from dppm_model.score.arrays import array_specs, draw_arrays
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.moments import MeansQuery
from dppm_model.score.phases import PHASES, kind_of, read_question, write_question
from dppm_model.score.unit_batches import block_of
from tests.conftest import TINY
from tests.privacy.test_site import make_site
from tests.support.mutations import nothing, twin

Arrays = dict[str, np.ndarray]
CONFIGS = {
    "mlp": ModelConfig.of(
        (1, 16, 16),
        3,
        {
            "mixture": {"band": 16, "axes": 10, "components": 2, "principal_axes": 5},
            "residual": {
                "network": {"kind": "dct_mlp", "channels": 5, "blocks": 1},
                "band": 8,
                "draws": 2,
            },
        },
    ),
    "pyramid": ModelConfig.of((3, 64, 64), 2, {"mixture": {"band": 16}, "pyramid": {"stages": 2}}),
    "pretrained": ModelConfig.of((1, 12, 12), 2, {"mixture": {"band": 16}, "pretrained": {}}),
}
OTHERS = [("pyramid", "detail"), ("pretrained", "fine_tuning")]
CASES = [("mlp", kind) for kind in PHASES if kind not in dict(OTHERS).values()] + OTHERS


def sent(config: ModelConfig, kind: str) -> Arrays:
    asked = kind_of(kind).question
    rng = np.random.default_rng(0)
    return draw_arrays(config, asked.needed | asked.optional, rng, 0.01)


def _nan_is_a_number(old: Any) -> Any:
    return lambda self, array: None if np.isnan(array).any() else old(self, array)


@twin(
    "an array of a model may hold NaN",
    "dppm_model.score.arrays:ArraySpec.problem",
    _nan_is_a_number,
    only="[mlp-score]",
)
@twin(
    "arrays of a model may hold any finite number",
    "dppm_model.score.arrays:ArraySpec.problem",
    lambda old: lambda self, a: old(replace(self, least=-3e38, most=3e38), a),
    only="[mlp-score]",
)
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_question_takes_exactly_its_arrays_each_in_its_range(name: str, kind: str) -> None:
    config = CONFIGS[name]
    arrays = sent(config, kind)
    query = read_question(kind, config, save(arrays))
    assert query.dimension == kind_of(kind).question.dimension_of(config)
    for array_name in kind_of(kind).question.needed:
        less = {n: a for n, a in arrays.items() if n != array_name}
        with pytest.raises(ModelError, match=array_name):
            read_question(kind, config, save(less))
    for array_name, array in arrays.items():
        spec = array_specs(config)[array_name]
        least, most = np.array([spec.least, spec.most], spec.dtype)
        for wrong in (
            with_one(array, np.nan),
            with_one(array, np.inf),
            with_one(array, -np.inf),
            with_one(array, np.nextafter(most, np.inf, dtype=spec.dtype)),
            with_one(array, np.nextafter(least, -np.inf, dtype=spec.dtype)),
            array.astype(np.float16),
            array.astype(np.float64 if array.dtype == np.float32 else np.float32),
            array.view(np.int32),
            array[..., :-1],
            array[None],
            np.zeros(0, array.dtype),
        ):
            changed = {**arrays, array_name: np.ascontiguousarray(wrong)}
            with pytest.raises(ModelError, match=rf"{array_name}|bytes, more than"):
                read_question(kind, config, save(changed))


def with_one(array: np.ndarray, value: float) -> np.ndarray:
    changed = array.copy()
    changed.flat[-1] = value
    return changed


STRUCTURES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "class weights": ("mixture.class_weights", lambda a: a / 2, "do not add up"),
    "component weights": ("mixture.component_weights", lambda a: a * 0, "do not add up"),
    "skew covariance": ("mixture.covariance", lambda a: np.triu(a) + np.eye(10), "not symmetric"),
    "no variance": ("mixture.covariance", lambda a: a * 0, "variance is below"),
    "negative variance": ("mixture.covariance", lambda a: -a, "variance is below"),
    "axes of length zero": ("mixture.principal_axes", lambda a: a * 0, "one is shorter"),
    "relative variance beyond": (
        "mixture.component_covariance",
        lambda a: a * 0 - 1.5,
        "relative variance",
    ),
    "longer axes": ("mixture.axes", lambda a: a * 1.001, "not orthonormal"),
    "one axis twice": ("mixture.axes", lambda a: a[:, [0, *range(15)]], "not orthonormal"),
    "no axes": ("mixture.axes", lambda a: a * 0, "not orthonormal"),
}


@twin(
    "any matrix of numbers in range is a covariance",
    "dppm_model.score.arrays:ArraySpec.problem",
    lambda old: lambda self, a: old(replace(self, rule=None), a),
    only="[skew covariance]",
)
@pytest.mark.parametrize("case", STRUCTURES)
def test_what_must_hold_between_numbers_is_checked(case: str) -> None:
    name, change, message = STRUCTURES[case]
    config = CONFIGS["mlp"]
    kind = (
        "component_covariance"
        if name in ("mixture.principal_axes", "mixture.component_covariance")
        else "score"
    )
    kind = "means" if name == "mixture.class_weights" else kind
    arrays = sent(config, kind)
    arrays[name] = change(arrays[name]).astype(np.float32)
    with pytest.raises(ModelError, match=message):
        read_question(kind, config, save(arrays))


def test_a_spread_without_axes_is_refused() -> None:
    arrays = sent(CONFIGS["mlp"], "score")
    read_question("score", CONFIGS["mlp"], save(arrays))
    del arrays["mixture.principal_axes"]
    with pytest.raises(
        ModelError, match=r"'mixture.component_covariance' has no 'mixture.principal_axes'"
    ):
        read_question("score", CONFIGS["mlp"], save(arrays))


def _settings_that_were_sent(old: Any) -> Any:
    from dppm_model.score.model import read_tensors
    from dppm_model.score.model_config import ModelConfig

    def read(phase: str, config: Any, content: bytes) -> Any:
        sent = read_tensors(content)[0].get("dppm")
        return old(phase, ModelConfig.from_dict(json.loads(sent)) if sent else config, content)

    return read


@twin(
    "a question is built by the settings that the server sends with its arrays",
    "dppm_model.score.phases:read_question",
    _settings_that_were_sent,
)
def test_other_arrays_and_other_settings_have_no_say() -> None:
    """Names that are not the question's, and a configuration in the header, change nothing."""
    config = CONFIGS["mlp"]
    arrays = sent(config, "means")
    stranger = {**arrays, "mixture.axes": np.eye(16, dtype=np.float32)}
    with pytest.raises(ModelError, match=r"does not use"):
        read_question("means", config, save(stranger))
    with pytest.raises(ModelError, match="not part of such a model"):
        read_question("means", config, save({**arrays, "x" * 10**4: np.ones(1, np.float32)}))
    other = config.replace(replace(config.mixture, means_clip_norm=1e6, band=3))
    meta = {"dppm": json.dumps(other.to_dict())}
    query: Any = read_question("means", config, save(arrays, meta))
    assert (query.clip_norm, query.scales.band) == (1.4, 16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"arrays",
        bytes(1000),
        (1 << 62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}" + b"more",
        (10**5).to_bytes(8, "little") + b"[" * 10**5,
        b"\xff" * 10**7,
    ],
    ids=range(7),
)
def test_what_is_no_safetensors_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError):
        read_question("means", CONFIGS["mlp"], content)


@pytest.fixture
def plan(tiny: Path) -> Plan:
    return plan_of(resolve(TINY), "run-a")


WRONG = {
    "nothing": lambda good: b"",
    "one not finite": lambda good: save(
        {**load(good), "mixture.mean": load(good)["mixture.mean"] * np.float32(np.nan)}
    ),
    "another shape": lambda good: save({**load(good), "mixture.mean": np.ones((2, 9), np.float32)}),
    "one more": lambda good: save({**load(good), "residual.scale": np.ones(1)}),
}


def _debit_when_asked(old: Any) -> Any:
    def check(self: Any, plan: Any, number: int) -> None:
        old(self, plan, number)
        if number == 0:
            self.ledger.debit(plan.debit(0, 0))

    return check


@twin(
    "a round is debited before its question is checked",
    "client.site:Site.check_budget",
    _debit_when_asked,
    only="[another shape]",
)
@pytest.mark.parametrize("case", WRONG)
def test_a_question_that_is_refused_costs_nothing(
    tmp_path: Path, tiny: Path, plan: Plan, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no record is looked at: the ledger is as it was, and no report is there."""
    site = make_site(tmp_path, tiny)
    good = write_question("means", initial_model(resolve(TINY)))
    monkeypatch.setattr(module, "report", lambda *_: pytest.fail("records were asked"))
    with pytest.raises(ModelError):
        site.answer(plan, 0, 0, WRONG[case](good))
    assert site.ledger.debits == () and not list(tmp_path.rglob("*.npy"))
    monkeypatch.undo()
    site.answer(plan, 0, 0, good)  # the twin
    assert len(site.ledger.debits) == 1


@twin("a round is debited before its question is tried", "client.site:try_question", nothing)
def test_a_question_that_fails_costs_nothing(
    tmp_path: Path, tiny: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unit by unit, its time would tell how many were sampled, and zeros would cost a round."""
    site = make_site(tmp_path, tiny)
    good = write_question("means", initial_model(resolve(TINY)))

    def fail(*_: object) -> None:
        raise ValueError("as planted")

    monkeypatch.setattr(MeansQuery, "clipped_sum", fail)
    read_tried.cache_clear()  # it was tried before
    with pytest.raises(ModelError, match="as planted"):
        site.answer(plan, 0, 0, good)
    assert site.ledger.debits == () and not list(tmp_path.rglob("*.npy"))


@twin(
    "the memory of a round grows with the number of units that were sampled",
    "dppm_model.score.unit_batches:block_of",
    lambda _: lambda shape: 1024,
    only="[shape2-10]",
)
@pytest.mark.parametrize(
    ("shape", "images"), [((1, 28, 28), 1024), ((3, 256, 256), 128), ((3, 1024, 1024), 10)]
)
def test_memory_is_bounded_for_images_of_any_size(shape: tuple[int, int, int], images: int) -> None:
    assert block_of(shape) == images and 4 * math.prod(shape) * images <= 1 << 27


def _made_at_once(old: Any) -> Any:
    def made(*sizes: Any) -> Any:
        from dppm_model.score import residual

        band, network = old(*sizes)
        return band, residual.zeroed(network)

    return made


@twin(
    "a plan's network is allocated before the plan is approved",
    "dppm_model.score.residual:ResidualConfig.lay_out",
    _made_at_once,
)
def test_the_size_of_a_network_is_known_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is read before it is approved; 44 GiB of weights would be the site's end."""
    monkeypatch.setattr(residual, "zeroed", lambda _: pytest.fail("made"))
    settings = {"network": {"kind": "conv", "channels": 4096, "blocks": 64}, "band": 28}
    huge = ModelConfig.of((1, 28, 28), 10, {"mixture": {}, "residual": settings})
    assert array_specs(huge)["residual.weights"].shape[0] > 10**10


@twin("a site answers without batch invariance", "client.site:check_batch_invariance", nothing)
def test_a_machine_that_is_not_batch_invariant_answers_nothing(
    tmp_path: Path, tiny: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path, tiny)
    good = write_question("means", initial_model(resolve(TINY)))
    monkeypatch.setattr(batch_invariance, "_problem", lambda *_: "as planted")
    with pytest.raises(NotBatchInvariant, match="as planted"):
        site.answer(plan, 0, 0, good)
    with pytest.raises(NotBatchInvariant):
        site.precompute_costs(plan)
    assert site.ledger.debits == () and not list(tmp_path.rglob("*.npy"))


@twin("a plan may miscount its coordinates", "dppm_model.plan:Plan._check_questions", nothing)
def test_the_plan_pins_the_model(plan: Plan) -> None:
    """Another setting is another plan: its digest changes, and dimensions must be the model's."""
    for change in (
        {"classes": 3},
        {"parts": (replace(plan.model.mixture, means_clip_norm=2.0),)},
        {"shape": (1, 16, 16)},
    ):
        assert replace(plan, model=replace(plan.model, **change)).digest != plan.digest
    wider = replace(plan, model=replace(plan.model, shape=(1, 16, 16)))
    with pytest.raises(PlanError, match="has 130 coordinates, the plan's model needs 514"):
        Plan.from_json(wider.to_json())
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("part", ["residual", "public"])
@pytest.mark.parametrize("nothing", [False, 0, 0.0, "", [], {}])
def test_there_is_one_way_to_say_nothing(plan: Plan, part: str, nothing: object) -> None:
    raw = json.loads(plan.to_json())
    (raw["model"] if part == "public" else raw["model"]["parts"])[part] = nothing
    with pytest.raises(PlanError):
        Plan.from_json(json.dumps(raw, sort_keys=True))


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every number in a JSON value, by its path."""
    if isinstance(value, dict):
        return [p for key, part in value.items() for p in paths(part, (*at, key))]
    if isinstance(value, list):
        return [p for i, part in enumerate(value) for p in paths(part, (*at, i))]
    return [at] if isinstance(value, int | float) else []


@twin("a plan may write a whole number as 3.0 or true", "dppm_model.bounds:Whole.check", nothing)
def test_a_plan_says_each_number_in_one_way_only(plan: Plan) -> None:
    """3.0 or true for a whole number, 1 for 1.0, huge numbers and deep JSON: all refused."""
    raw = json.loads(plan.to_json())
    for path in paths(raw):
        for change in (lambda v: float(v) if type(v) is int else int(v), bool, str, lambda _: None):
            changed = json.loads(plan.to_json())
            place = changed
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = change(place[path[-1]])
            text = json.dumps(changed, sort_keys=True)
            assert text != plan.to_json()
            with pytest.raises(PlanError):
                Plan.from_json(text)
    for wrong in ("[" * 10**5, "9" * 10**5, plan.to_json().replace("1e-05", "1e999"), "null", ""):
        with pytest.raises(PlanError):
            Plan.from_json(wrong)


def test_the_server_and_the_sampler_read_models_by_the_same_table(tmp_path: Path) -> None:
    model = ScoreModel.start(CONFIGS["mlp"])
    for name, value in (("mixture.mean", np.inf), ("mixture.variance", 0.0)):
        bad = {**model.arrays, name: with_one(model.arrays[name], value)}
        content = save(bad, {"dppm": json.dumps(model.config.to_dict())})
        (tmp_path / "model").write_bytes(content)
        with pytest.raises(ModelError, match=name):
            ScoreModel.from_bytes(content)
        with pytest.raises(ModelError, match=name):
            ScoreModel.load(tmp_path / "model")
        with pytest.raises(ModelError, match=name):
            model.replace({name: bad[name]})
    released = model.released({"mixture.mean": with_one(model.arrays["mixture.mean"], 1e9)})
    assert released.arrays["mixture.mean"].max() == pytest.approx(4 * 16)
