"""Every fenced command of every README is typed, in order, by a reader with a folder of their own.

    pytest -s -m slow tests/integration/test_readme.py

`tests/support/doc_runner.py` holds the few things that are typed otherwise than written
(`INSTEAD`). The commands of `deploy/README.md` go between machines: they are
typed here by the operators of a server and of two hospitals, each in a folder and with a HOME of
their own, on one machine. A document that gets its first fence is read from then on. What takes
seconds only (that commands parse, that names exist) is checked for all documents by
`tests/unit/test_documents.py`.
"""

import shutil
from pathlib import Path

import pytest

from deploy.processes import end_leftovers, free_port
from dppm_model.errors import DownloadError
from dppm_model.records.importers import import_dataset
from dppm_model.records.sources import fetch
from dppm_model.run import Run
from tests.support.doc_runner import Reader, copy_of_the_project, plain, reader, some_scans
from tests.support.documents import commands, documents, fences
from tests.support.real_federation import REAL

DEPLOYMENT = "deploy/README.md"
# Who types which command of it, in the order in which it happens; see the picture on that page.
TURNS = [
    ("server", "dppm server init"),
    ("sites", "dppm data import"),
    ("sites", "dppm site init"),
    ("server", "dppm server enrol"),
    ("server", "dppm server announce"),
    ("sites", "dppm site approve"),
    ("server", "dppm server run"),
    ("sites", "dppm site preflight"),
    ("sites", "dppm site run"),
    ("server", "dppm server status"),
    ("sites", "dppm site status"),
    ("server", "dppm sample"),
    ("sites", "dppm site ledger"),
]
SITES = ("st-mary", "charite")
WITH_FENCES = [n for n, t in documents().items() if n != DEPLOYMENT and fences(t)]

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.ray, pytest.mark.timeout(7200)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return copy_of_the_project(tmp_path)


@pytest.mark.parametrize("document", WITH_FENCES)
def test_every_command_does_what_is_written(document: str, tree: Path, tmp_path: Path) -> None:
    try:
        fetch("mnist")
    except DownloadError as error:
        pytest.skip(str(error))
    with reader(document, tree, tmp_path) as someone:
        if document == "docs/how_it_works.md":  # images in place of letters: an hour less
            shapes = some_scans(tmp_path / "shapes", each=40)
            store = tmp_path / "home" / "store"
            import_dataset(shapes, "shapes", root=store, size=128, test_fraction=0.3)
        someone.read(documents()[document])


@REAL[-1]  # nginx
def test_a_federation_by_the_page_for_operators(tree: Path, tmp_path: Path) -> None:
    homes = {name: tmp_path / name for name in ("server", *SITES)}
    ports = {"port": free_port(), "inner": free_port()}
    people: dict[str, Reader] = {}
    for seed, (name, home) in enumerate(homes.items()):
        some_scans(home / "scans", seed)
        people[name] = Reader(DEPLOYMENT, tree, home, home, ports)
    text = documents()[DEPLOYMENT]
    lines = [c for f in fences(text) if f.language == "bash" for c in commands(f)]
    fed, first = homes["server"] / "fed", Run(homes["server"] / "fed" / "runs" / "first")
    try:
        for who, begin in TURNS:
            (line,) = [line for line in lines if plain(line).startswith(begin)]
            for name in SITES if who == "sites" else ("server",):
                people[name].type(line.replace(SITES[0], name) if who == "sites" else line)
            if begin == "dppm server init":
                for site in SITES:
                    shutil.copy(fed / "invitation.json", homes[site])
            if begin == "dppm site init":
                for site in SITES:
                    mail = homes["server"] / f"from-{site}"
                    mail.mkdir()
                    shutil.copy(homes[site] / site / "enrolment.json", mail)
            if begin == "dppm server announce":
                for site in SITES:
                    shutil.copy(first.folder / "announcement.zip", homes[site])
            if begin == "dppm site status":
                people["server"].ended("dppm server run", 1200)
                for site in SITES:
                    people[site].interrupt("dppm site run")
        assert len(first.rounds()) == first.plan().rounds
        assert all(r["sites"] == len(SITES) for r in first.rounds())
        assert (first.folder / "samples.png").is_file()
    finally:
        for someone in people.values():
            someone.leave()
        end_leftovers(fed / "flower" / "sessions", fed)
