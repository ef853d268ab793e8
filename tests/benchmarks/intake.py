"""Importing 512×512 images, beside Pillow alone: seconds, processor time and peak memory.

    python -m tests.benchmarks.intake

Pillow alone opens, crops and resizes each file, on one thread, and keeps nothing. Ours also
compares all images with each other, checks, counts, writes the records, reads them back and digests
them; it uses all cores. Every case runs in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import re
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from dppm_model.records.importers import import_dataset

SIDE, SIZE = 512, 256


def make_files(folder: Path, count: int, kind: str) -> None:
    """Write photographs of a kind: smooth fields with a little noise; grey PNG or RGB JPEG."""
    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / f"class-{i % 4}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (8, 8) if kind == "png" else (8, 8, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth, np.int16) + rng.integers(-4, 5, np.asarray(smooth).shape)
        image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        image.save(place / f"{i}.{kind}", **({"quality": 90} if kind == "jpeg" else {}))


def pillow_alone(folder: Path) -> None:
    """Read and resize every file."""
    for path in sorted(folder.rglob("*.*")):
        with Image.open(path) as image:
            np.asarray(ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.LANCZOS))


def imported(folder: Path) -> None:
    """Import the folder."""
    with tempfile.TemporaryDirectory() as store:
        import_dataset(folder, "x", root=Path(store), size=SIZE)


def _costs(function: Callable[[Path], None], folder: Path) -> dict[str, float]:
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    function(folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": time.perf_counter() - begun,
        "processor_seconds": used.ru_utime - before.ru_utime + used.ru_stime - before.ru_stime,
        "peak_mb": _peak_kb() / 1024,
    }


def _peak_kb() -> int:
    """Return the most memory of this process; ru_maxrss counts the one that it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])  # type: ignore[index]


def alone(function: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Run a function in a new process; return its costs."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_costs, function, folder).result()


def measure(
    counts: Sequence[int] = (2000, 5000), kinds: Sequence[str] = ("png", "jpeg")
) -> dict[str, Any]:
    """Measure each kind of file at each count."""
    figures: dict[str, Any] = {"side": SIDE, "size": SIZE}
    for kind in kinds:
        for count in counts:
            with tempfile.TemporaryDirectory() as work:
                make_files(Path(work), count, kind)
                theirs, ours = alone(pillow_alone, Path(work)), alone(imported, Path(work))
            ratio = ours["processor_seconds"] / theirs["processor_seconds"]
            figures[f"{kind} {count}"] = {"pillow": theirs, "ours": ours, "ratio": ratio}
            print(
                f"{count} {kind}: Pillow {theirs['seconds']:.1f} s, {theirs['peak_mb']:.0f} MB; "
                f"ours {ours['seconds']:.1f} s, {ours['peak_mb']:.0f} MB; processor {ratio:.2f} x"
            )
    return figures


if __name__ == "__main__":
    # Here, so that the processes that are measured do without torch.
    from tests.benchmarks.runner import benchmark

    benchmark(measure)
