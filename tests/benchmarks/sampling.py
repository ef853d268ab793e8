"""What sampling costs beside the network: overhead, weak scaling over Ray workers, memory.

    python -m tests.benchmarks.sampling runs/demo
    python -m tests.benchmarks.sampling runs/demo-256 --per-class 8 --name sampling-256

Overhead: seconds of a sampler over seconds of as many bare evaluations of the network on the same
batch, in turn; of the closed form, or of the last stage of a pyramid. Axes: images a second of HMC
on one thread in the model's coordinates, over those in pixels, in turn. Weak scaling: images per
second and worker of two workers over those of one, Ray's start left out. Memory: resident size of
the workers while many images are drawn.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from dppm_model.run import Run
from dppm_model.score.denoiser import Denoiser
from dppm_model.score.model import ScoreModel
from sampler.draw import Worker, load_model
from sampler.generate import generate
from sampler.images import shard_size
from sampler.noise import ImageNoise
from sampler.pool import PoolSettings
from sampler.settings import METHODS, SamplerSettings
from sampler.stages import SAMPLERS, upsampling_settings
from tests.benchmarks.runner import benchmark

TURNS = 7


def overhead(model: ScoreModel) -> dict[str, float]:
    """Median ratio of sampler to bare evaluations, by method."""
    torch.set_num_threads(1)
    batch, turns = shard_size(model.image_shape), TURNS if model.pyramid is None else 3
    y = torch.arange(batch) % model.classes
    names = [(int(label), i) for i, label in enumerate(y)]
    denoiser: Denoiser = model.coordinates
    if model.pyramid is not None:
        c, h, w = model.image_shape
        last = model.pyramid.config.stages - 1
        denoiser = model.pyramid.stage(last, torch.randn(batch, c, h // 2, w // 2))
    x, ratios = torch.randn(batch, *denoiser.shape), {}
    for method in METHODS:
        settings, found = SamplerSettings(method), []
        if model.pyramid is not None:
            settings = upsampling_settings(settings, None)
        for _ in range(turns):
            with torch.inference_mode():
                begun = time.perf_counter()
                _, info = SAMPLERS[method](denoiser, y, ImageNoise(0, names), settings)
                sampled = time.perf_counter() - begun
                begun = time.perf_counter()
                for i in range(info.evaluations):
                    denoiser.denoise(x, torch.full((batch,), 20.0 * 0.9**i), y)
                found.append(sampled / (time.perf_counter() - begun))
        ratios[method] = statistics.median(found)
        print(f"{method:10s} {ratios[method]:.3f} x bare evaluations")
    return ratios


def axes(model: ScoreModel) -> dict[str, float]:
    """Images a second of HMC on the base in its coordinates, and over those in pixels."""
    torch.set_num_threads(1)
    batch, times = shard_size(model.shape), {"pixels": 0.0, "coordinates": 0.0}
    ways = {"pixels": model.denoiser, "coordinates": model.coordinates}
    y = torch.zeros(batch, dtype=torch.int64)
    with torch.inference_mode():
        for turn in range(1 + TURNS):
            for name, denoiser in ways.items():
                noise = ImageNoise(0, [(0, i) for i in range(batch)])
                begun = time.process_time()
                x, _ = SAMPLERS["hmc"](denoiser, y, noise, SamplerSettings())
                denoiser.image(x)
                taken = time.process_time() - begun
                times[name] = min(times[name], taken) if turn > 1 else taken  # the first warms up
    rate, ratio = batch / times["coordinates"], times["pixels"] / times["coordinates"]
    print(f"{rate:.0f} images/s on one thread; {ratio:.2f} x as many as in pixels")
    return {"images_per_second": rate, "over_pixels": ratio}


def resident(stop: threading.Event, sizes: list[float]) -> None:
    """Note the largest resident size (MB) of a Ray worker, four times a second."""
    while not stop.wait(0.25):
        found = [0.0]
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if b"ray::" in (folder / "cmdline").read_bytes():
                    pages = int((folder / "statm").read_text().split()[1])
                    found.append(pages * 4096 / 1e6)
            except OSError:  # it has ended
                continue
        sizes.append(max(found))


def scaling(model: Path, per_class: int) -> dict[str, float]:
    """Images a second of one worker and of two, with the start of Ray measured apart."""
    import ray

    rates, sizes = {}, []
    for workers in (1, 2):
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )
        stop, own = threading.Event(), []
        watcher = threading.Thread(target=resident, args=(stop, own))
        with tempfile.TemporaryDirectory() as folder:
            options = {
                "seed": 0,
                "settings": SamplerSettings(),
                "privacy": {},
                "pool": PoolSettings(workers),
            }
            generate(model, Path(folder) / "warm", per_class=min(10, per_class), **options)
            watcher.start()
            result = generate(model, Path(folder) / "out", per_class=per_class * workers, **options)
        stop.set()
        watcher.join()
        ray.shutdown()
        rates[str(workers)] = result.images / result.seconds
        sizes = own
        print(f"{workers} workers: {rates[str(workers)]:.1f} images/s")
    early, late = statistics.mean(sizes[4:12]), statistics.mean(sizes[-8:])
    found = {
        "images_per_second_1": rates["1"],
        "images_per_second_2": rates["2"],
        "weak_scaling": rates["2"] / 2 / rates["1"],
        "resident_mb_early": early,
        "resident_mb_late": late,
    }
    print(
        f"weak scaling {found['weak_scaling']:.3f}; a worker's memory {early:.0f} -> {late:.0f} MB"
    )
    return found


def measure(run: Path, per_class: int = 500) -> dict[str, Any]:
    """Measure all of it on a run; ``per_class`` images a class and worker."""
    model = Run(run).model
    loaded = ScoreModel.load(model)
    Worker(load_model)  # takes memory as every worker does
    return {"axes": axes(loaded), "overhead": overhead(loaded), "ray": scaling(model, per_class)}


if __name__ == "__main__":
    benchmark(measure)
