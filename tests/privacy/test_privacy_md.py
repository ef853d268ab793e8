"""PRIVACY.md keeps its word: all that it names exists, and all that is said to stand there does."""

import ast
import re
from pathlib import Path

from tests.support.mutations import table

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


# Numbered statements: each names its function and its test, and is named by that function.
STATEMENT = re.compile(r"\*\*((?:Theorem|Lemma) \d+) \(")
NAMED = re.compile(r"\[code:\s+`([\w/.]+)`\s+`(\w+)`;\s+test:\s+`([\w/.]+)`\s+`(\w+)`\]")
# "Theorem 1", "Lemmas 1 to 11", "Theorems 2 and 3"; not those of somebody's paper.
CITED = re.compile(
    r"(?<!et al\., )(?<!\d{4}, )\b(Theorem|Lemma|Step)s? (\d+)(?:(?: to | and |, )(\d+))?"
)
FOLDERS = ("dppm_model", "client", "server", "sampler", "deploy", "tests")


def statements() -> dict[str, list[tuple[str, ...]]]:
    """Return what each numbered statement names, up to the next statement or heading."""
    found = {}
    marks = [*STATEMENT.finditer(TEXT)]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        text = TEXT[mark.start() : following.start() if following else None].split("\n## ")[0]
        assert mark[1] not in found, f"{mark[1]} is there twice"
        found[mark[1]] = NAMED.findall(text)
    return found


def cited(text: str) -> set[str]:
    """Every numbered statement that a text refers to."""
    found = set()
    for kind, first, last in CITED.findall(text):
        found |= {f"{kind} {first}"} | ({f"{kind} {last}"} if last else set())
    return found


def docstrings(path: Path) -> dict[str, str]:
    """Docstrings of a module's functions and methods, by name."""
    tree = ast.parse(path.read_text())
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {n.name: ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, kinds)}


def test_every_statement_names_its_function_and_its_test_and_is_named_by_it() -> None:
    found = statements()
    numbers = {int(name.split()[1]) for name in found if name.startswith("Lemma")}
    assert numbers == set(range(1, len(numbers) + 1))
    for name, named in found.items():
        assert named, f"{name} names neither code nor test"
        for path, function, test_path, test in named:
            documents = docstrings(ROOT / path)
            assert function in documents, f"{name}: {path} has no {function}"
            assert name in cited(documents[function]), f"{path} {function} does not say {name}"
            assert test in docstrings(ROOT / test_path), f"{name}: {test_path} has no {test}"


def test_every_reference_to_a_statement_resolves() -> None:
    known = set(statements())
    texts = [ROOT / name for name in ("PRIVACY.md", "README.md", "CONTRIBUTING.md")]
    texts += [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
    for path in texts:
        if path != Path(__file__):
            assert cited(path.read_text()) <= known, f"{path}: {cited(path.read_text()) - known}"
            assert not re.search(r"\bPROOF\b", path.read_text()), f"{path}: there is no PROOF"


def test_a_reference_is_seen_however_it_is_written() -> None:
    """The twins of the search itself."""
    assert cited("by Theorem 9 and Lemmas 41 to 43") == {"Theorem 9", "Lemma 41", "Lemma 43"}
    assert cited("Naeem et al., Lemma 2; Balle and Wang 2018, Theorem 8") == set()
    assert cited("PRIVACY.md, Step 7") == {"Step 7"}


# Broken twins.


def test_the_table_of_twins_is_that_of_the_tests() -> None:
    assert table() in TEXT
