"""The entry point of `dppm`: Ctrl-C ends it with one line from the first import on."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line and return its exit code."""
    try:
        from deploy.cli import main as run  # takes a while on a slow disk
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
