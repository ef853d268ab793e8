"""Templates to text: everything is escaped but our own drawings and style."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Card:
    """One of the large figures above: its element's id, what it is, the figure, and a note."""

    key: str
    name: str
    value: str
    note: str = ""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = (_TEMPLATES / "page.css").read_text()
    return environment


def render(template: str, **values: Any) -> str:
    """Fill in a template; a value that it names and does not get is an error."""
    return _environment().get_template(template).render(**values)


def script() -> str:
    """Return the live page's program."""
    return (_TEMPLATES / "live.js").read_text()
