"""Whole trainings: in one process, and through real Flower and Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy import simulate as simulation
from deploy.flower import run_flower, stage_app
from dppm_model.fault_points import FaultPoint, watched
from dppm_model.run import Run
from dppm_model.score.closed_form import closed_form
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import write_question
from tests.conftest import TINY
from tests.support.flaky_grid import FIELDS, Killed, assert_same_model, dies, play, twin_of

SCORE = [
    "model=residual",
    "model.phases.score.rounds=3",
    "model.phases.score.sampling_rate=0.2",
    "model.residual.network.channels=4",
    "model.residual.network.blocks=1",
]


def prepare(folder: Path, extra: list[str] | None = None) -> Run:
    return simulation.prepare(folder, [*(extra or []), *TINY])[0]


def test_training_learns_and_accounts_for_every_round(tmp_path: Path, tiny: Path) -> None:
    run = prepare(tmp_path / "run", SCORE)
    play(run)
    plan, lines = run.plan(), run.rounds()
    assert [line["phase"] for line in lines] == [
        p.name for p in plan.phases for _ in range(p.rounds)
    ]
    privacy = json.loads(run.privacy.read_text())
    assert lines[-1]["epsilon_secure_sum"] == privacy["epsilon_secure_sum"] <= 8
    assert lines[-1]["epsilon_site"] == privacy["epsilon_site"]
    spent = [line["epsilon_secure_sum"] for line in lines]
    assert spent == sorted(spent)
    for site in run.sites.iterdir():
        assert len((site / "ledger.jsonl").read_text().splitlines()) == len(lines)
    # The class means that came out of the noise look like the classes.
    model = ScoreModel.load(run.model)
    mixture = closed_form(model)
    means = mixture.from_axes(mixture.mean)
    assert means[0, 0, 4:, :4].mean() > means[0, 0, 4:, 4:].mean() + 0.3
    assert means[1, 0, :4, 4:].mean() > means[1, 0, 4:, 4:].mean() + 0.3


def test_sites_are_asked_what_the_learner_takes_their_answers_for(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both rounds of variances ask by the same ones; the result of the first is for nobody yet."""
    asked = []

    def recorded(phase: str, model: ScoreModel) -> bytes:
        asked.append((phase, model.arrays["mixture.variance"]))
        return write_question(phase, model)

    monkeypatch.setattr("server.rounds.write_question", recorded)
    run = prepare(tmp_path / "run")
    play(run)
    first, second = (variance for phase, variance in asked if phase == "variances")
    assert np.array_equal(first, second)
    assert not np.array_equal(second, ScoreModel.load(run.model).arrays["mixture.variance"])


def test_a_killed_run_goes_on_to_the_same_model(tmp_path: Path, tiny: Path) -> None:
    """Killed in a round of gradients: the learner's whole state is in the snapshot."""
    whole = prepare(tmp_path / "whole", SCORE)
    broken = twin_of(whole, tmp_path / "broken")
    play(whole)
    with watched(dies(FaultPoint.SERVER_LEARNED, whole.plan().rounds - 1)), pytest.raises(Killed):
        play(broken)
    play(broken)
    assert_same_model(broken, whole)


@pytest.mark.flower
def test_real_flower_gives_the_same_model_as_one_process(tmp_path: Path, tiny: Path) -> None:
    """SuperLink, ServerApp and ClientApps in Ray actors; only the coins are replayable."""
    local = prepare(tmp_path / "local")
    remote = twin_of(local, tmp_path / "remote")
    play(local)
    app = stage_app(tmp_path / "app")
    support = Path(__file__).parents[1] / "support"
    for name in ("seeded_rng", "recorded_app"):
        code = (support / f"{name}.py").read_text().replace("tests.support", "client")
        (app / "client" / f"{name}.py").write_text(code)
    project = app / "pyproject.toml"
    project.write_text(project.read_text().replace('"client.app:app"', '"client.recorded_app:app"'))
    run_flower(
        app,
        nodes=local.plan().sites,
        run_config={"run": str(remote.folder), "sites": str(remote.sites)},
        log=tmp_path / "flower.log",
        device=torch.device("cpu"),
    )
    assert_same_model(local, remote)
    assert_all_declared(remote.folder / "wire", remote)


def assert_all_declared(folder: Path, run: Run) -> None:
    """Every byte that left a site is in a declared field, or in the names of these; no log line."""
    sent = [json.loads(p.read_text()) for p in folder.iterdir()]
    plan = run.plan()
    assert len(sent) == plan.sites * (2 * plan.rounds + 2)  # two a round, and the set-up
    for reply in sent:
        wire = reply.pop("wire")
        assert reply.pop("said") == ""  # a log line of a client is a message to whoever reads it
        (kind,) = [k for k, names in FIELDS.items() if reply.keys() <= names.keys()]
        assert all(set(reply[name]) == FIELDS[kind][name] for name in reply)
        declared = sum(size for record in reply.values() for size in record.values())
        assert declared <= wire < declared + 300  # names, types, lengths
