"""The entry point of `dppm`: Ctrl-C ends it with one line from the first import on."""

from __future__ import annotations

import sys

from deploy.interrupts import leaving_at_once


def main() -> int:
    """Run the command line and return its exit code."""
    with leaving_at_once():
        from deploy.cli import main as run  # takes a while on a slow disk
    return run()


if __name__ == "__main__":
    sys.exit(main())
