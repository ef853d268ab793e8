"""The documents are right: every command parses and every link leads somewhere.

That the commands also do what is said is shown by `integration/test_readme.py`, which types them.
"""

import pytest

from tests.integration.test_readme import TURNS
from tests.support.cli_lint import wrong_commands
from tests.support.doc_runner import INSTEAD, instead, is_elsewhere, plain
from tests.support.documents import commands, dead_links, documents, fences

DOCUMENTS = documents()


def typed_in(name: str) -> list[str]:
    return [c for f in fences(DOCUMENTS[name]) if f.language == "bash" for c in commands(f)]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_of_a_document_can_be_typed(name: str) -> None:
    assert not wrong_commands(name, DOCUMENTS[name])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    assert not dead_links(name, DOCUMENTS[name])


def test_what_is_typed_otherwise_is_still_in_the_documents() -> None:
    for name, words in INSTEAD.items():
        lines = " ".join(plain(line) for line in typed_in(name))
        assert not [written for written in words if written not in lines]


@pytest.mark.parametrize("name", INSTEAD)
def test_what_is_typed_instead_parses_too(name: str) -> None:
    lines = [instead(name, line, {"port": 1, "inner": 2}) for line in typed_in(name)]
    assert not wrong_commands(name, "\n".join(["```bash", *lines, "```\n"]))


def test_what_runs_elsewhere_is_there_word_for_word() -> None:
    there = {plain(line) for line in typed_in("deploy/README.md")}
    moved = {plain(line) for line in typed_in("README.md") if is_elsewhere("README.md", line)}
    assert moved and moved <= there


def test_every_command_of_a_deployment_has_its_turn() -> None:
    lines = [plain(line) for line in typed_in("deploy/README.md")]
    for line in lines:
        assert sum(line.startswith(begin) for _, begin in TURNS) == 1, line
    for _, begin in TURNS:
        assert sum(line.startswith(begin) for line in lines) == 1, begin


# Broken twins


def typed(line: str) -> str:
    return f"```bash\n{line}\n```\n"


WRONG = {
    typed("dppm plan --jason"): "--jason",
    typed("dppm plan privacy.epsilonn=1"): "privacy.epsilon",
    typed("dppm sample runs/demo privacy.epsilon=1"): "after training",
    typed("make demo-512"): "no target demo-512",
    typed('make demo ARGS="privacy.epsilonn=1"'): "privacy.epsilon",
    typed("python -m tests.benchmarks.nothing"): "no module",
    typed("rm -rf runs"): "knows what rm is",
    typed("make demo && make test"): "one plain command a line",
    typed("grpcurl -d '{}' 127.0.0.1:1 dppm.sampling.v1.Sampling/Draw"): "sampling.proto",
    "```sh\nmake demo\n```\n": "no test runs it",
    "```\ndppm plan\n```\n": "call the fence bash",
    "- so:\n\n  ```bash\n  dppm plan\n  ```\n": "at the beginning of its lines",
    "```python\nprint(\n```\n": "Python",
    "Say `dppm evaluate RUN evaluation.sedes=[0]`.": "evaluation.seeds",
    "Set `sampler.stepp=auto`.": "sampler.stepp",
    "See `pytest tests/unit/nothing`.": "tests/unit/nothing",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_command_is_found(text: str) -> None:
    assert not wrong_commands("good", typed("make demo\ndppm sample runs/demo"))
    (found,) = wrong_commands("bad", text)
    assert WRONG[text] in found


def test_a_dead_link_is_found() -> None:
    good = "[a](CONTRIBUTING.md), [b](CONTRIBUTING.md#house-rules), [c](#own)\n\n## Own\n"
    assert not dead_links("README.md", good)
    for link in ("CONTRIBUTE.md", "CONTRIBUTING.md#house-rulez", "#owm", "../elsewhere.md"):
        assert len(dead_links("README.md", f"[a]({link})\n\n## Own\n")) == 1
