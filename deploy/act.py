"""What each `dppm` command does, and how a refusal ends it: one exit code per kind.

Apart from the command line itself (`deploy.cli`), because all of the package is imported here: help
and completion need none of it.
"""

from __future__ import annotations

import argparse
import errno
import signal
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from deploy import commands, sampling
from deploy.audit import audit_run
from deploy.compare import compare
from deploy.kit import commands as kit
from deploy.ledger import show_ledger
from deploy.pages.report import report
from deploy.pages.watch import watch
from deploy.serve import serve
from deploy.show import console, plain
from dppm_model.errors import ConfigError, DppmError, StorageError
from dppm_model.reading import reason


def split_arguments(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Tell the run folder from the overrides: an override has an equals sign."""
    overrides = [a for a in arguments if "=" in a]
    folders = [a for a in arguments if "=" not in a]
    if len(folders) > 1:
        raise ConfigError(
            f"{' and '.join(folders)}: more than one run folder.",
            "Name one; overrides are key=value.",
        )
    return (Path(folders[0]) if folders else None), overrides


def act(arguments: argparse.Namespace) -> int:
    """Do what was typed and return the exit code."""
    # A batch system's SIGTERM ends like Ctrl-C: Flower's and Ray's processes are stopped first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.command == "data":
            commands.data(arguments)
        elif arguments.command in ("server", "site"):
            return kit.act(arguments)
        elif arguments.command == "ledger":
            show_ledger(arguments)
        elif arguments.command == "audit":
            audit_run(arguments)
        elif arguments.command == "compare":
            compare(arguments)
        elif arguments.command == "report":
            report(arguments)
        elif arguments.command == "watch":
            watch(arguments)
        elif arguments.command == "plan":
            commands.plan(arguments)
        elif arguments.command == "serve":
            serve(*split_arguments(arguments.arguments), arguments)
        elif arguments.command == "simulate":
            folder, overrides = split_arguments(arguments.arguments)
            commands.simulate(folder, overrides, as_json=arguments.json, watch=arguments.watch)
        else:
            folder, overrides = split_arguments(arguments.arguments)
            home = sampling if arguments.command in ("sample", "diagnose") else commands
            getattr(home, arguments.command)(folder, overrides, as_json=arguments.json)
    except DppmError as error:
        return _refused(error)
    except OSError as error:  # nobody nearer to it knew what to do about it
        return _refused(_of_machine(error))
    except KeyboardInterrupt:
        console.print("Interrupted. The same command goes on from here.")
        return 130
    return 0


def _refused(error: DppmError) -> int:
    console.print(f"[bold red]{type(error).__name__}[/]: {escape(plain(error.message))}")
    console.print(f"[bold]Fix[/]: {escape(plain(error.hint))}")
    return error.exit_code


_HINTS = {
    errno.ENOSPC: "Make room on that disk; the same command goes on from here.",
    errno.EDQUOT: "Make room in that quota; the same command goes on from here.",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f); the same command then goes on.",
    errno.EACCES: "Let this user read and write there, or work as the folder's owner.",
    errno.EPERM: "Let this user read and write there, or work as the folder's owner.",
    errno.EROFS: "Mount that disk for writing, or name a folder elsewhere.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n); the same command goes on from here.",
    errno.ENFILE: "Close other programs: the machine has no more open files to give.",
    errno.ENOENT: "Name what is there, or run the command that makes it.",
}


def _of_machine(error: OSError) -> DppmError:
    """Say what the machine could not do, with a hint."""
    where = f"{error.filename}: " if error.filename else ""
    hint = _HINTS.get(error.errno or 0, "Look at the disk and its rights; then run it again.")
    return StorageError(f"{where}{reason(error)}.", hint)
