"""Every deliberate fault of `tests/twin_faults.py` is caught by the test that is named for it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.twin_faults import TWINS
from tests.twins import table

ROOT = Path(__file__).parents[2]
# A test that ends in one of these has stumbled over the twin, or over itself: it judged nothing.
STUMBLED = re.compile(r" - (Import|ModuleNotFound|Name|Attribute|Type|Syntax)Error")


def pytest_on(*args: str, **env: str) -> tuple[int, str]:
    """Run pytest in a process of its own; return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-m", "", "-p", "no:cacheprovider", *args],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "400"} | env,  # wide enough for whole lines of the summary
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_the_named_test_catches_the_fault(name: str) -> None:
    caught_by = f"tests/{TWINS[name].caught_by}"
    code, printed = pytest_on("-p", "tests.twins", caught_by, DPPM_TWIN=name)
    assert code == 1, printed[-5000:]  # a test has failed; other codes: none was found, and so on
    (failed,) = [
        line for line in printed.splitlines() if line.startswith(("FAILED tests/", "ERROR tests/"))
    ]
    print(failed)
    assert failed.startswith(f"FAILED {caught_by}"), printed[-5000:]
    assert not STUMBLED.search(failed), printed[-5000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_a_fault_the_named_tests_pass() -> None:
    code, printed = pytest_on(*sorted({f"tests/{twin.caught_by}" for twin in TWINS.values()}))
    assert code == 0, printed[-5000:]


def test_the_table_in_privacy_md_is_this_one() -> None:
    assert table() in (ROOT / "PRIVACY.md").read_text()
