"""The site's kernel: what `client.app` imports is all that a site has to read and to trust."""

import ast
from pathlib import Path

from tests.support.documents import ROOT

MOST_LINES = 11_800
SERVER_ONLY = ("training", "planner", "planning", "requests", "config", "run", "audit")


def path_of(module: str) -> Path | None:
    """Return the file of a module of ours, or of a package's ``__init__``."""
    stem = ROOT / module.replace(".", "/")
    return next((p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None)


def named_in(path: Path) -> set[str]:
    """Return all that a file imports, also within functions; what is imported *from* it too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def closure(start: str) -> dict[str, Path]:
    """Return every module of ours that importing ``start`` reads, with the packages above it."""
    found: dict[str, Path] = {}
    todo = [start]
    while todo:
        parts = todo.pop().split(".")
        for name in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
            path = path_of(name)
            if path is not None and name not in found:
                found[name] = path
                todo += named_in(path)
    return found


def test_a_site_reads_nothing_of_the_servers() -> None:
    kernel = closure("client.app")
    assert not [name for name in kernel if name.split(".")[0] in ("server", "sampler", "deploy")]
    assert not [
        name for name in kernel if name.split(".")[1:2] and name.split(".")[1] in SERVER_ONLY
    ]
    assert "dppm_model.training.learner" in closure("server.app")  # the twin


def test_the_kernel_is_short() -> None:
    lines = {
        name: len(path.read_text().splitlines()) for name, path in closure("client.app").items()
    }
    assert sum(lines.values()) <= MOST_LINES, sorted(lines.items(), key=lambda item: -item[1])[:20]
