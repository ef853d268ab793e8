"""Write a benchmark's figures with all that is needed to read them later."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def command() -> str:
    """Return how this program was called; of absolute paths only the last part."""
    path = Path(sys.argv[0]).resolve().relative_to(Path.cwd()).with_suffix("")
    module = ".".join(path.parts).removesuffix(".__main__")
    arguments = [Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:]]
    return shlex.join(["python", "-m", module, *arguments])


def cpu() -> str:
    """Return the processor's name."""
    return next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )


def record(name: str, figures: dict[str, Any]) -> None:
    """Write ``results/NAME.json``: figures, machine, versions, commit and command."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(
        json.dumps(
            {
                "figures": figures,
                "machine": f"{cpu()}, {platform.platform()}",
                "versions": {p: version(p) for p in ("torch", "numpy", "opacus", "flwr", "ray")},
                "python": platform.python_version(),
                "commit": commit,
                "command": command(),
            },
            indent=2,
        )
        + "\n"
    )
