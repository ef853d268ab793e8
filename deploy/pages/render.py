"""Fill in templates: HTML, in which all but our own drawings is escaped, and Markdown."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from deploy.show import epsilon_text
from deploy.table import figure, markdown_table

TEMPLATES = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is None or name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["css"] = (TEMPLATES / "page.css").read_text()
    environment.globals["markdown_table"] = markdown_table
    environment.filters |= {"epsilon": epsilon_text, "figure": figure}
    return environment


def render(template: str, **values: Any) -> str:
    """Fill in a template; it is an error if a value that it names is missing."""
    return _environment().get_template(template).render(**values)
