"""Every reader meets every kind of damage: what it raises is a refusal, never a traceback."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from client.approvals import read_approvals
from client.policy import Policy
from client.site import site_records
from deploy.cli import main
from deploy.kit.announcement import Announcement
from deploy.kit.control import FlowerControl
from deploy.kit.enrolment import Enrolment, Invitation
from deploy.kit.federation import ServerSettings
from deploy.pages.run_summary import RunSummary
from dppm_model.config import read_config
from dppm_model.errors import DppmError, LedgerError, StorageError, TooFewSites
from dppm_model.folders import read_json_lines
from dppm_model.privacy.ledger import Ledger
from dppm_model.reading import parse_json
from dppm_model.records.shards import open_records
from dppm_model.run import Run
from sampler.draw import read_model
from sampler.images import load_images, manifest_of
from sampler.tune import tuned
from server.securesum.round_checkpoint import RoundCheckpoint
from server.state import Snapshot
from tests.conftest import TINY
from tests.support.fault_injection import ended, forked, left_over, small_files
from tests.support.mutations import twin


def _npy(header: str) -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _tensors(**meta: str) -> bytes:
    return bytes(safetensors.numpy.save({"total": np.zeros(2, np.uint8)}, meta))


EMPTY = ("an empty object",)
DEEP = "[" * 200_000
CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(1000),
    "no text": b"\xff\xfe\x00{",
    "half a character": "é".encode()[:1],
    "deep": DEEP.encode(),
    "deep object": b'{"a":' * 200_000,
    "deep toml": b"a = " + DEEP.encode(),
    "deep yaml": b"a: " + DEEP.encode(),
    "huge whole number": b'{"plan": ' + b"9" * 1_000_000 + b"}",
    "huge toml number": b"federation = " + b"9" * 1_000_000,
    "infinite": b'{"plan": 1e999, "state": 1e999}',
    "not a number": b'{"plan": NaN}',
    "half a surrogate": b'{"dppm": "invitation 1", "federation": "\\ud800"}',
    "a list": b"[]",
    "a list of lists": b"[[[1]]]",
    "an empty object": b"{}",
    "a text": b'"abc"',
    "null": b"null",
    "torn": b'{"a": 1',
    "huge array": _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10**15,), }"),
    "larger array": _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
    "objects": _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }") + b"cos\nsystem\n.",
    "deep header": _npy("(" * 100),
    "no state": _tensors(),
    "deep state": _tensors(plan="p", number="1", materials=DEEP, survivors="null"),
    "huge state": _tensors(plan="p", number="9" * 10_000, materials="{}", survivors="null"),
    "header beyond the end": (2**62).to_bytes(8, "little") + b"{}",
}


@dataclass
class Place:
    """A file of a finished run, or beside it, and who reads it."""

    path: str
    read: Callable[[Path], object]
    healthy: tuple[str, ...] = ()  # contents that are no damage here


def _control(folder: Path) -> None:
    FlowerControl(folder).register({})


PLACES = {
    "plan": Place("plan.json", lambda f: Run(f).plan()),
    "config": Place("config.yaml", lambda f: read_config(f / "config.yaml")),
    "overrides": Place("overrides.json", lambda f: Run(f).read_json(Run(f).overrides)),
    "status": Place("status.json", lambda f: RunSummary.of(Run(f))),
    "privacy": Place("privacy.json", lambda f: RunSummary.of(Run(f))),
    "evaluation": Place("evaluation.json", lambda f: Run(f).read_json(Run(f).evaluation), EMPTY),
    "metrics": Place("metrics.jsonl", lambda f: RunSummary.of(Run(f))),
    "audit log": Place("audit.jsonl", lambda f: read_json_lines(f / "audit.jsonl"), EMPTY),
    "ledger": Place("ledger.jsonl", lambda f: Ledger(f / "ledger.jsonl").debits),
    "mark": Place("ledger.mark", lambda f: Ledger(f / "ledger.jsonl").debits),
    "model": Place("model.safetensors", lambda f: read_model(Run(f).model), (*CONTENTS,)),
    "snapshot": Place("state/round.safetensors", lambda f: Snapshot.read(Run(f).snapshot, "p")),
    "checkpoint": Place(
        "state/exchange.safetensors", lambda f: RoundCheckpoint.read(Run(f).checkpoint, "p")
    ),
    "policy": Place("sites/0000/site.toml", lambda f: Policy.read(f / "sites/0000/site.toml")),
    "index": Place(
        "sites/0000/index.npy",
        lambda f: site_records(f / "sites/0000", Policy.read(f / "sites/0000/site.toml")),
    ),
    "approval": Place("sites/0000/approvals/x.json", lambda f: read_approvals(f / "sites/0000")),
    "manifest": Place("samples/manifest.json", lambda f: manifest_of(f / "samples")),
    "shard": Place("samples/shards/class-000-000000.npz", lambda f: load_images(f / "samples")),
    "steps": Place("steps.json", lambda f: tuned(f / "steps.json", b"", None, {}), EMPTY),
    "invitation": Place("paper", lambda f: Invitation.read(f / "paper")),
    "enrolment": Place("paper", lambda f: Enrolment.read(f / "paper")),
    "announcement": Place("paper", lambda f: Announcement.read(f / "paper")),
    "server.toml": Place("server.toml", ServerSettings.read),
    "shard manifest": Place("shards/manifest.json", lambda f: open_records(f / "shards")),
    "shard images": Place("shards/images.npy", lambda f: open_records(f / "shards")),
    "shard labels": Place("shards/labels.npy", lambda f: open_records(f / "shards")),
    "nodes": Place("nodes.json", _control, EMPTY),
}  # fmt: skip
LINES = ("metrics", "audit log", "ledger")  # a last line without its end is no damage there


@pytest.fixture(scope="module")
def folder(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPPM_DATA", str(tiny_store))
        folder = tmp_path_factory.mktemp("read") / "run"
        assert main(["simulate", str(folder), *TINY]) == 0
        small = ["pool.workers=0", "sampler.per_class=2", "sampler.num_levels=3"]
        assert main(["sample", str(folder), *small]) == 0
    shutil.copytree(tiny_store / "tiny" / "train", folder / "shards")
    return folder


def _refused(place: Place, folder: Path) -> None:
    with pytest.raises(DppmError) as error:
        place.read(folder)
    for text in (error.value.message, error.value.hint):
        assert text and "\n" not in text and len(text) < 1000


@contextlib.contextmanager
def _expecting(what: object, kind: Callable[[str, str], Exception], hint: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise kind(f"{what}: {error}.", hint) from None


@twin(
    "only the errors that a reader expects become refusals",
    "dppm_model.reading:reading",
    lambda _: _expecting,
    only="[invitation]",
)
@pytest.mark.parametrize("name", PLACES)
def test_damage_is_refused(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlowerControl, "_nodes", lambda _: [])
    place = PLACES[name]
    path = folder / place.path
    aside = path.read_bytes() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    try:
        for content, damaged in CONTENTS.items():
            if content not in place.healthy:
                path.write_bytes(damaged + b"\n" * (name in LINES))
                _refused(place, folder)
        path.unlink()
        path.mkdir()
        _refused(place, folder)
        path.rmdir()
        os.mkfifo(path)  # nobody writes to it: who opens it carelessly waits for ever
        _refused(place, folder)
        path.unlink()
        path.symlink_to(path)
        _refused(place, folder)
    finally:
        path.unlink(missing_ok=True)
        if aside is not None:
            path.write_bytes(aside)


@twin("a number in a file may be infinite", "dppm_model.reading:_finite", lambda _: float)
@pytest.mark.parametrize(
    "text", ["1e999", "-1e999", "NaN", "Infinity", '["\\udead"]', "[" * 10**5, "9" * 10**6, b"\xff"]
)
def test_json_is_of_finite_numbers_and_of_whole_characters(text: str | bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_json(text)


def test_json_that_is_sound_is_read_as_ever() -> None:
    value = {"a": [1, 1.5, -2e-300, None, True, "é\u2028😀", "\\ud800 in words"], "b": 10**300}
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only)) == value


@pytest.mark.parametrize("size", [0, 100, 1000, 3000, 10_000])
def test_a_failed_write_is_reported_in_a_line(tmp_path: Path, tiny: Path, size: int) -> None:
    """Whatever file is the first that is too large; afterwards, with room, all goes well."""
    run, (read, write) = tmp_path / "run", os.pipe()

    def work() -> int:
        sys.stderr = os.fdopen(write, "w")
        with small_files(size):
            return main(["simulate", str(run), *TINY])

    code = ended(forked(work))
    os.close(write)
    with os.fdopen(read) as file:
        said = file.read()
    assert "Traceback" not in said
    assert ("Fix: " in said) == (code != 0)
    assert code in (0, StorageError.exit_code, LedgerError.exit_code, TooFewSites.exit_code)
    assert main(["simulate", str(run), *TINY]) == 0
    assert not left_over(run)


def test_a_folder_that_must_not_be_written_is_told_in_a_line(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, hint in ((28, "Free space"), (13, "Let this user"), (30, "Mount"), (24, "ulimit")):

        def refuse(*_: object, number: int = number, **__: object) -> None:
            raise OSError(number, os.strerror(number), "/some/file")

        monkeypatch.setattr("deploy.commands._prepare", refuse)
        assert main(["simulate", str(tmp_path / "run"), *TINY]) == StorageError.exit_code
        said = capsys.readouterr().err
        assert os.strerror(number) in said and hint in said and "Traceback" not in said
