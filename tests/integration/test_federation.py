"""Whole trainings: in one process, resumed after a crash, and through real Flower and Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy import simulate as simulation
from deploy.flower import run_flower, stage_app
from dppm_model.errors import FederationError, RunFolderError
from dppm_model.run import Run
from dppm_model.score.closed_form import closed_form
from dppm_model.score.model import ScoreModel
from server import rounds
from tests.conftest import TINY
from tests.support.flaky_grid import FIELDS, play, twin_of

SCORE = [
    "model=residual",
    "model.phases.score.rounds=3",
    "model.phases.score.sampling_rate=0.2",
    "model.residual.network.channels=4",
    "model.residual.network.blocks=1",
]


def prepare(folder: Path, extra: list[str] | None = None) -> Run:
    return simulation.prepare(folder, [*(extra or []), *TINY])[0]


def train(run: Run, dropped: tuple[int, ...] = ()) -> None:
    """Train in one process, without the sites that have dropped out."""
    play(run, lost=lambda site, *_: site in dropped)


def same_model(a: Run, b: Run) -> bool:
    one, two = ScoreModel.load(a.model).arrays, ScoreModel.load(b.model).arrays
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def test_training_learns_and_accounts_for_every_round(tmp_path: Path, tiny: Path) -> None:
    run = prepare(tmp_path / "run", SCORE)
    train(run)
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
    means = mixture.basis.inverse(mixture.mean)
    assert means[0, 0, 4:, :4].mean() > means[0, 0, 4:, 4:].mean() + 0.3
    assert means[1, 0, :4, 4:].mean() > means[1, 0, 4:, 4:].mean() + 0.3


@pytest.mark.parametrize("round_", [1, 12])
def test_a_killed_run_goes_on_to_the_same_model(
    tmp_path: Path, tiny: Path, round_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the sites have answered and before the snapshot: nothing is spent twice."""
    whole = prepare(tmp_path / "whole", SCORE)
    broken = twin_of(whole, tmp_path / "broken")
    train(whole)
    count, write = 0, rounds.Snapshot.write

    def crash(self: rounds.Snapshot, path: Path) -> None:
        nonlocal count
        if count == round_:
            raise KeyboardInterrupt
        count += 1
        write(self, path)

    monkeypatch.setattr(rounds.Snapshot, "write", crash)
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    monkeypatch.undo()
    assert not broken.model.exists()
    train(broken)
    assert same_model(whole, broken)
    assert len(broken.rounds()) == len(whole.rounds())
    for site in broken.sites.iterdir():
        assert len((site / "ledger.jsonl").read_text().splitlines()) == len(whole.rounds())


def test_too_few_sites_void_the_round_with_a_reason(tmp_path: Path, tiny: Path) -> None:
    run = prepare(tmp_path / "run", ["server.max_retries=0"])
    with pytest.raises(FederationError, match=r"3 must join .1 × Flower error 5"):
        train(run, dropped=(1,))
    assert json.loads((run.status).read_text())["state"] == "failed"


def test_enough_sites_go_on_without_the_dropped_one(tmp_path: Path, tiny: Path) -> None:
    run = prepare(tmp_path / "run", ["privacy.min_survivors=2"])
    train(run, dropped=(1,))
    assert {line["sites"] for line in run.rounds()} == {2}
    assert json.loads(run.privacy.read_text())["honest_sites"] == 2


def test_a_run_folder_of_other_settings_is_refused_and_named(tmp_path: Path, tiny: Path) -> None:
    prepare(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"privacy\.epsilon was 8(\.0)?, now 3"):
        simulation.prepare(tmp_path / "run", [*TINY, "privacy.epsilon=3"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("do not touch")
    with pytest.raises(RunFolderError, match="not a run folder"):
        prepare(tmp_path / "other")


@pytest.mark.flower
def test_real_flower_gives_the_same_model_as_one_process(tmp_path: Path, tiny: Path) -> None:
    """SuperLink, ServerApp and ClientApps in Ray actors; only the coins are replayable."""
    local = prepare(tmp_path / "local")
    remote = twin_of(local, tmp_path / "remote")
    train(local)
    app = stage_app(tmp_path / "app")
    (app / "client" / "seeded.py").write_text(
        "import contextlib, hashlib, io, json, logging\n"
        "from pathlib import Path\n"
        "from uuid import uuid4\n"
        "from flwr.common.serde import recorddict_to_proto\n"
        "from client.app import create_app\n"
        "from dppm_model.mechanism.secure_rng import SecureRNG\n\n\n"
        "class SeededRNG(SecureRNG):\n"
        "    def __init__(self, seed):\n"
        "        super().__init__()\n"
        "        self._seed = seed\n\n"
        "    def _key(self):\n"
        "        return hashlib.sha256(repr(self._seed).encode()).digest()\n\n\n"
        "class Recorded(type(create_app())):\n"
        "    def __call__(self, message, context):\n"
        "        said, handler = io.StringIO(), logging.StreamHandler()\n"
        "        handler.setStream(said)\n"
        "        logging.getLogger().addHandler(handler)\n"
        "        logging.getLogger().setLevel(logging.DEBUG)\n"
        "        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):\n"
        "            reply = super().__call__(message, context)\n"
        "        logging.getLogger().removeHandler(handler)\n"
        "        sent = {name: {key: _size(v) for key, v in r.items()}\n"
        "                for name, r in reply.content.items()}\n"
        "        sent['said'] = said.getvalue()\n"
        "        sent['wire'] = recorddict_to_proto(reply.content).ByteSize()\n"
        "        folder = Path(context.run_config['sites']).parent / 'wire'\n"
        "        folder.mkdir(exist_ok=True)\n"
        "        (folder / str(uuid4())).write_text(json.dumps(sent))\n"
        "        return reply\n\n\n"
        "def _size(v):\n"
        "    return sum(map(_size, v)) if isinstance(v, list) else len(v) "
        "if isinstance(v, bytes) else 8\n\n\n"
        "app = create_app(SeededRNG)\n"
        "app.__class__ = Recorded\n"
    )
    project = app / "pyproject.toml"
    project.write_text(project.read_text().replace('"client.app:app"', '"client.seeded:app"'))
    run_flower(
        app,
        nodes=local.plan().sites,
        run_config={"run": str(remote.folder), "sites": str(remote.sites)},
        log=tmp_path / "flower.log",
        device=torch.device("cpu"),
    )
    assert same_model(local, remote)
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


@pytest.mark.parametrize("fault", ["one field more", "a log line"])
def test_twins_that_say_more_are_caught(tmp_path: Path, tiny: Path, fault: str) -> None:
    run = prepare(tmp_path / "run")
    (tmp_path / "wire").mkdir()
    for i in range(run.plan().sites * (2 * run.plan().rounds + 2)):
        report = {"masked": 10, "digest": 32, "signature": 64}
        sent = {"report": report, "wire": 200, "said": ""}
        if fault == "a log line":
            sent["said"] = "37 records were sampled"
        else:
            report["loss"] = 8
        (tmp_path / "wire" / str(i)).write_text(json.dumps(sent))
    with pytest.raises(AssertionError):
        assert_all_declared(tmp_path / "wire", run)
