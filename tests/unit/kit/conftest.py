"""A federation's folders, made by its operators' own commands."""

from pathlib import Path

import pytest

from tests.conftest import run as typed
from tests.support.real_federation import TINY_FACTS, TINY_MODEL

__all__ = ["announce", "init_server", "init_site", "typed"]

LIMITS = ["--max-epsilon-secure-sum", "20", "--max-epsilon-site", "1000", "--delta", "1e-5"]


def init_server(folder: Path) -> int:
    return typed("server", "init", folder, "--name", "demo", "--address", "fed.example.org:8443")


def init_site(folder: Path, invitation: Path) -> int:
    words = ["--invitation", invitation, "--name", folder.name, "--records", "tiny", "--yes"]
    return typed("site", "init", folder, *words, *LIMITS)


def announce(folder: Path, name: str, *more: str) -> int:
    return typed("server", "announce", folder, name, *TINY_FACTS, *TINY_MODEL, *more)


@pytest.fixture
def fed(tmp_path: Path, tiny: Path) -> Path:
    """A server and three enrolled sites."""
    folder = tmp_path / "fed"
    assert init_server(folder) == 0
    for i in range(3):
        site = tmp_path / f"site-{i}"
        assert init_site(site, folder / "invitation.json") == 0
        assert typed("server", "enrol", folder, site / "enrolment.json", "--yes") == 0
    return folder
