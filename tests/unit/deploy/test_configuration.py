"""`dppm config`: every key is explained, and what the overrides changed is marked."""

import json
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import Field

from deploy.cli import main
from deploy.configuration import composed, keys, type_text
from dppm_model.config import CONF, check_config, compose_config
from dppm_model.errors import ConfigError

PARTIAL = {f"model/{name}" for name in ("score", "upsampling")}  # of others


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{group.name}={choice.stem}"]
        for group in CONF.iterdir()
        for choice in group.glob("*.yaml")
        if f"{group.name}/{choice.stem}" not in PARTIAL
    ],
)
def test_every_key_has_a_type_and_a_meaning(overrides: list[str]) -> None:
    for name, key in keys(overrides).items():
        assert key.type and key.meaning.endswith("."), name


def test_what_the_overrides_changed_is_marked() -> None:
    found = keys(["privacy.epsilon=5", "mechanism=directions", "sites=10"])
    changed = {name for name, key in found.items() if key.changed}
    assert changed == {"privacy.epsilon", "mechanism.name"} | {
        f"mechanism.{name}" for name in ("directions", "slots")
    }
    assert (found["privacy.epsilon"].value, found["privacy.epsilon"].default) == (5.0, 10.0)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Annotated[int, Field(ge=1, lt=1 << 63)], "whole >= 1"),
        (Annotated[float, Field(gt=0, le=1)], "number in (0, 1]"),
        (Literal["a", "b"] | None, "a | b | null"),
        (list[Annotated[float, Field(gt=0)]] | None, "list of number > 0 | null"),
        (tuple[str, ...], "list of text"),
    ],
)
def test_types_are_written_with_their_ranges(kind: Any, text: str) -> None:
    assert type_text(kind) == text


def test_scripts_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "sites=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sites"]["value"] == 3
    assert main(["config", "sites=3", "--yaml"]) == 0
    written = yaml.safe_load(capsys.readouterr().out)
    assert check_config(written) == check_config(compose_config(["sites=3"]))
    assert main(["config", "sites=3"]) == 0
    assert "SuperNodes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("sites=true", r"^sites is True\. Give a whole number"),
        ("sites=2.0", r"^sites is 2\.0\. Give a whole number"),
        ("sites=0", r"^sites is 0\. Give at least 1"),
        ("privacy.epsilon=nan", r"^privacy\.epsilon is nan\. Give a finite number"),
        ("privacy.epsilo=1", r"^privacy\.epsilo is .* Did you mean privacy\.epsilon"),
        ("+privacy.epsilo=1", r"^privacy\.epsilo is not a setting\. Did you mean privacy\.epsilon"),
        ("privacy.epsilon='8'", r"^privacy\.epsilon is '8'\. Give"),
        ("privacy.delta=0", r"^privacy\.delta is 0\. Give"),
        ("privacy.delta=1", r"^privacy\.delta is 1\. Give less than 1"),
        ("privacy.unit=family", r"^privacy\.unit is 'family'"),
        ("backend=pigeon", r"^backend is 'pigeon'\. Give 'flower' or 'inprocess'"),
        ("model.phases.means.rounds=0", r"^model\.phases\.means\.rounds is 0\. Give at least 1"),
        ("~privacy.delta", r"^privacy\.delta is missing"),
        ("facts.classes=[]", r"^facts\.classes is \[\]\. Give names"),
        ("facts.shape=[1,28]", r"^facts\.shape"),
        ("sampler.num_levels=0", r"^sampler\.num_levels is 0\. Give a whole number, 2 to 10000"),
        ("sampler.per_class=0", r"^sampler\.per_class is 0\. Give at least 1"),
        ("sampler.step_size=[0.1]", r"^sampler\.step_size has 1 numbers for 18 levels"),
        ("+sampler.surprise=1", r"^sampler\.surprise is not a sampler setting"),
        ("evaluation.seeds=[0,0]", r"^evaluation\.seeds is \[0, 0\]\. Give different seeds"),
    ],
)
def test_a_refusal_is_one_line_that_names_the_key(override: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refusal:
        composed([override])
    assert "\n" not in str(refusal.value)
