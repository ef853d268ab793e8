"""What benchmarks share: their command line, timing, judging, and their figures' file."""

from __future__ import annotations

import argparse
import inspect
import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_origin

from dppm_model.progress import silent
from dppm_model.records import sources
from sampler.evaluation.classifier import Records
from sampler.evaluation.evaluate import evaluate

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


def benchmark(measure: Callable[..., dict[str, Any] | None]) -> None:
    """Run a benchmark as a command, and record the figures that it returns.

    A parameter of ``measure`` is an argument of the command if it has no default, else an option of
    its annotation's type; a sequence takes several values. Where it returns None, it has recorded
    its figures itself.
    """
    module = sys.modules[measure.__module__]
    assert module.__spec__ is not None
    parser = argparse.ArgumentParser(
        prog=f"python -m {module.__spec__.name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, parameter in inspect.signature(measure, eval_str=True).parameters.items():
        kind: Any = parameter.annotation
        options: dict[str, Any] = {}
        if get_origin(kind) is Sequence:
            options["nargs"] = "+"
        if get_args(kind):  # of Sequence[int] or Path | None
            kind = get_args(kind)[0]
        required = parameter.default is inspect.Parameter.empty
        if not required:
            options["default"] = parameter.default
        flag = name if required else "--" + name.replace("_", "-")
        parser.add_argument(flag, type=kind, **options)
    parser.add_argument("--name", default=module.__spec__.name.split(".")[2])
    arguments = vars(parser.parse_args())
    result = arguments.pop("name")
    figures = measure(**arguments)
    if figures is not None:
        record(result, figures)


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    begun = time.perf_counter()
    result = function()
    return time.perf_counter() - begun, result


def medians(peers: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each peer, which take turns; the first turn is warm-up."""
    turns = [
        {name: timed(function)[0] for name, function in peers.items()} for _ in range(repeats + 1)
    ]
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in peers}


def judged(synthetic: Records, data: str, **options: Any) -> dict[str, Any]:
    """Evaluate images beside a data set, as `dppm evaluate` does; see `evaluate` for options."""
    train, test = (sources.load(data, split) for split in sources.SPLITS)
    return evaluate(
        synthetic,
        (train.images, train.labels),
        (test.images, test.labels),
        dataset=data,
        classes=len(train.manifest.classes),
        cache=sources.data_root() / data / "evaluation",
        progress=silent,
        **options,
    )
