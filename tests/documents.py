"""The project's Markdown: its fences, the commands in them, its links, and its pictures."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a fence may be written in: typed, run, drawn; or (without a name) shown, never typed.
LANGUAGES = ("bash", "python", "mermaid", "")
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
    inner = [p for folder in [*folders, ROOT / "tests"] for p in folder.rglob("*.md")]
    return {str(p.relative_to(ROOT)): p.read_text() for p in sorted(tops + inner)}


def fences(text: str) -> list[Fence]:
    """Return the fenced blocks in order."""
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


# Pictures: a box is `id["file.py<br>…"]`, and a solid arrow from file to file says: imports.

_BOX = re.compile(r'(\w+)\["([^"]+)"\]')
_ARROW = re.compile(r"(\w+) *--> *(\w+)")


@dataclass(frozen=True)
class Picture:
    """The boxes that are files or folders, by their id; and the solid arrows between these."""

    boxes: dict[str, str]
    arrows: list[tuple[str, str]]


def picture(text: str) -> Picture:
    """Read the pictures of a folder's README."""
    drawn = "\n".join(fence.text for fence in fences(text) if fence.language == "mermaid")
    labels = {name: label.split("<br>")[0] for name, label in _BOX.findall(drawn)}
    boxes = {
        name: label for name, label in labels.items() if label.endswith(("/", ".py", ".proto"))
    }
    plain = _BOX.sub(r"\1", drawn)
    arrows = [(a, b) for a, b in _ARROW.findall(plain) if a in boxes and b in boxes]
    return Picture(boxes, arrows)


def wrong_in(drawn: Picture, folder: Path) -> list[str]:
    """Say where a picture and its folder differ: what is missing, unknown, or not imported."""
    wrong = [
        f"{label} is not there" for label in drawn.boxes.values() if not (folder / label).exists()
    ]
    inside = [folder / label for label in drawn.boxes.values() if label.endswith("/")]
    own = [p for p in folder.rglob("*.py") if not p.name.startswith("__") and "_pb2" not in p.name]
    for path in own:
        name = str(path.relative_to(folder))
        if name not in drawn.boxes.values() and not any(path.is_relative_to(i) for i in inside):
            wrong.append(f"{name} is not in the picture")
    for a, b in drawn.arrows:
        begin, end = (folder / drawn.boxes[x] for x in (a, b))
        if begin.exists() and not any(
            _is_in(name, end) for path in _modules(begin) for name in imports(path)
        ):
            wrong.append(f"{drawn.boxes[a]} does not import {drawn.boxes[b]}")
    return wrong


def _modules(path: Path) -> Iterator[Path]:
    return path.rglob("*.py") if path.is_dir() else iter([path])


def _is_in(name: str, target: Path) -> bool:
    parts = target.resolve().relative_to(ROOT).with_suffix("").parts
    return tuple(name.split(".")[: len(parts)]) == parts


def imports(path: Path) -> set[str]:
    """Return the names of modules that a file imports, and of what it takes from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found
