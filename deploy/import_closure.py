"""What importing a module reads: the code that runs at a site, or at the server, and no other."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from pathlib import Path

import client

PACKAGES = ("server", "client", "dppm_model")  # of which a bundle is made
_NETWORKS = "dppm_model.score.networks.*"  # which this package finds by itself
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
    """Return the files that importing modules can read, also those imported within functions.

    ``package.*`` stands for all modules of a package. With each file come the ``__init__`` of the
    packages above it. Modules that ``files`` lacks are other people's. What is imported in other
    ways (relative, or by a name made at run time) is not found unless `APPS` names it; at a site it
    is then not there.
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
    """Name all modules that a file imports; what is imported *from* one may be a module, too."""
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
    """SHA-256 of the names and contents of some files."""
    found = hashlib.sha256()
    for name, content in sorted(files.items()):
        found.update(f"{name}\0{len(content)}\0".encode() + content)
    return found.hexdigest()
