"""A run goes on, and is judged, with the very records that it was made with, or not at all."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from deploy import simulate as simulation
from dppm_model.records.shards import open_records
from dppm_model.records.writing import write_records
from tests.conftest import TINY, run, tiny_images
from tests.support.mutations import twin


def replaced(store: Path, monkeypatch: pytest.MonkeyPatch, split: str, home: Path) -> None:
    """Point to a copy of the store in which a split has other records of the same name."""
    shutil.copytree(store, home)
    count = open_records(home / "tiny" / split).manifest.count
    images, labels = tiny_images(count, 77)
    write_records(
        home / "tiny" / split, images, labels, name="tiny", split=split, classes=("a", "b")
    )
    monkeypatch.setenv("DPPM_DATA", str(home))


@twin(
    "records of the same name are taken for the same",
    "deploy.simulate:load",
    lambda old: lambda name, split, **_: old(name, split),
)
def test_a_half_trained_run_does_not_go_on_with_other_records(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    simulation.prepare(tmp_path / "r", TINY)
    replaced(tiny, monkeypatch, "train", tmp_path / "store")
    assert run("simulate", tmp_path / "r") == 14
    assert "other records than the run was made with" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("split", ["train", "test"])
def test_results_are_never_measured_on_other_records(
    finished: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, split: str
) -> None:
    replaced(tiny, monkeypatch, split, tmp_path / "store")
    small = ["--canaries", 100, "--images", 20, "--trials", 1000, "--members", 100]
    for command in (["evaluate", finished], ["audit", finished, *small]):
        assert run(*command) == 14
    assert not (finished / "audit.json").exists()
    shutil.rmtree(finished / "private", ignore_errors=True)
    assert run("report", finished) == 0
    assert (finished / "private" / "report.html").exists() == (split == "test")
    said = " ".join(capsys.readouterr().err.split())
    assert ("No page with records" in said) == (split == "train")


def test_a_class_without_training_images_is_refused_before_anything_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    images, _ = tiny_images(100, 0)
    write_records(
        tmp_path / "s" / "gap" / "train",
        images,
        np.arange(100) % 2 + 1,
        name="gap",
        split="train",
        classes=("a", "b", "c"),
    )
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "s"))
    assert run("simulate", tmp_path / "r", *TINY, "data=gap") == 14
    assert "no training image of class 'a'" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "r" / "plan.json").exists()
