"""One way to add a command to a command line: its text, its examples, and ``--json``."""

from __future__ import annotations

import argparse
from typing import Any

PAGE_ADDRESS = "127.0.0.1:8600"  # of the live page


def add_verb(
    verbs: Any, command: str, name: str, text: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command.

    Parameters
    ----------
    verbs
        What `add_subparsers` gave.
    command
        What is typed before each example.
    examples
        One a line.
    """
    sub: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=text,
        description=text,
        epilog="examples:\n" + "\n".join(f"  {command} {e}" for e in examples.split("\n")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("--json", action="store_true", help="print JSON on standard output")
    return sub
