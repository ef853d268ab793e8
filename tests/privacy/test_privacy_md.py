"""PRIVACY.md keeps its word: every test and every file that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "PRIVACY.md").read_text()


def claims() -> list[list[str]]:
    """Rows of the table of claims: claim, code, test."""
    section = TEXT.split("## What rests on what")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def test_every_claim_names_a_test_that_exists() -> None:
    assert len(claims()) > 20
    for claim, _, test in claims():
        paths = re.findall(r"`(tests/[^`]+)`", test)
        assert paths, claim
        for path in paths:
            assert (ROOT / path).is_file(), path


def test_every_named_test_is_a_function_somewhere() -> None:
    functions = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        functions |= set(re.findall(r"def (test_\w+)\(", path.read_text()))
    assert set(re.findall(r"`(test_\w+)`", TEXT)) <= functions


def test_every_claim_names_code_that_exists() -> None:
    for _, code, _ in claims():
        for name in re.findall(r"`([\w/.]+\.(?:py|toml))`", code):
            found = [p for p in ROOT.rglob(name.split("/")[-1]) if ".venv" not in p.parts]
            assert any(str(p).endswith(name) for p in found), name
