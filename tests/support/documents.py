"""The project's Markdown: its fences, the commands in them, and its links."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Fence:
    """A fenced block, and the line of the document it begins at."""

    language: str
    text: str
    line: int


def documents() -> dict[str, str]:
    """Return every Markdown file of the project, by its path."""
    tops = [*ROOT.glob("*.md")]
    folders = [p for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").is_file()]
    folders += [ROOT / "docs", ROOT / "tests"]
    inner = [path for folder in folders for path in folder.rglob("*.md")]
    return {str(p.relative_to(ROOT)): p.read_text() for p in sorted(tops + inner)}


def fences(text: str) -> list[Fence]:
    return [
        Fence(found[1], found[2], text[: found.start()].count("\n") + 1)
        for found in _FENCE.finditer(text)
    ]


def commands(fence: Fence) -> list[str]:
    """Return what is typed: a command each, continued lines joined, comments left to the shell."""
    lines = fence.text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def spans(text: str) -> list[str]:
    """Return the code spans of the running text, each on one line."""
    return [" ".join(found[1].split()) for found in _SPAN.finditer(_FENCE.sub("", text))]


def anchors(text: str) -> set[str]:
    """Return what GitHub lets one link to: the headings, as it rewrites them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", _FENCE.sub("", text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.append(slug if slug not in found else f"{slug}-{found.count(slug)}")
    return set(found)


def dead_links(name: str, text: str) -> list[str]:
    """Return the links of a document that lead nowhere in this project."""
    dead = []
    for link in _LINK.findall(_SPAN.sub("", _FENCE.sub("", text))):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        inside = target.resolve().is_relative_to(ROOT)
        if not inside or not target.exists():
            dead.append(f"{name}: {link} leads nowhere")
        elif anchor and anchor not in anchors(target.read_text() if path else text):
            dead.append(f"{name}: {link}: there is no such heading")
    return dead


def imports(path: Path) -> set[str]:
    """Return the names of modules that a file imports, and of what it takes from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found
