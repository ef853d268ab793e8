"""Import closures: exactly the code that runs at a site, or at the server."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from pathlib import Path

import client

PACKAGES = ("server", "client", "dppm_model")  # the packages of a bundle
_NETWORKS = "dppm_model.score.networks.*"  # imported by names made at run time
APPS = {  # the modules that pyproject.toml names, and what they import by names made at run time
    "site": ("client.app", _NETWORKS),
    "server": ("server.app", _NETWORKS, "dppm_model.training.*"),
}
Files = Mapping[str, bytes]  # path, as in a bundle, to content


def installed() -> dict[str, bytes]:
    """Read the Python files of `PACKAGES` in this installation."""
    root = Path(client.__file__).parents[1]
    paths = (path for name in PACKAGES for path in (root / name).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


def closure(files: Files, *modules: str) -> dict[str, bytes]:
    """Return the files that importing modules can read, including imports within functions.

    ``package.*`` stands for all modules of a package. The ``__init__`` files above each module are
    included. Modules that ``files`` lacks are third-party. Other imports (relative, or by a name
    made at run time) are found only if `APPS` names them; otherwise they are missing at a site.
    """
    found: dict[str, bytes] = {}
    waiting = [module for module in modules if not module.endswith(".*")]
    for package in set(modules) - set(waiting):
        folder = package.removesuffix("*").replace(".", "/")
        inside = (path for path in files if path.startswith(folder))
        waiting += [path.removesuffix(".py").replace("/", ".") for path in inside]
    while waiting:
        parts = waiting.pop().split(".")
        for n in range(1, len(parts) + 1):
            stem = "/".join(parts[:n])
            for path in (f"{stem}.py", f"{stem}/__init__.py"):
                if path in files and path not in found:
                    found[path] = files[path]
                    waiting += _imported(files[path])
    return dict(sorted(found.items()))


def _imported(source: bytes) -> set[str]:
    """Return all modules that a file may import; a name imported from one may be a module."""
    found: set[str] = set()
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def lines(files: Files) -> int:
    """Count the lines of some files."""
    return sum(content.count(b"\n") for content in files.values())


def digest(files: Files) -> str:
    """Return the SHA-256 of the names and contents of some files."""
    found = hashlib.sha256()
    for name, content in sorted(files.items()):
        found.update(f"{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()
