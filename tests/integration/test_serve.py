"""`dppm serve` as a process: says where it is, serves, and leaves nothing behind."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from dppm_model.run import Run
from sampler.images import load_images
from sampler.service.client import SamplingClient
from tests.conftest import TINY

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("serve") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPPM_DATA", str(tiny_store))
        assert main(["simulate", str(folder), *TINY]) == 0
    return Run(folder)


@contextmanager
def serving(*arguments: str, ends_by: signal.Signals) -> Iterator[str]:
    """Run the command, give its address, and see it end well within ten seconds."""
    command = [sys.executable, "-m", "deploy.cli", "serve", *arguments, "--json"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=pipe,
        stderr=pipe,
        text=True,
        # A shell lets its background jobs ignore SIGINT, the tests' process perhaps among them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        yield json.loads("".join(process.stdout.readline() for _ in range(4)))["address"]
        process.send_signal(ends_by)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "grpcurl -plaintext" in said and "Stopped." in said
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("ends_by", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_the_runs_images_and_stops(run: Run, ends_by: signal.Signals) -> None:
    folder = str(run.folder)
    with (
        serving(
            folder, "sampler.num_levels=5", "--address", "127.0.0.1:0", ends_by=ends_by
        ) as address,
        SamplingClient(address) as client,
    ):
        images = list(client.sample({1: 7}, first=90))
        promised = client.describe().privacy
        client.sample({0: 90_000})  # is under way when the signal comes
    assert promised.epsilon_site == run.read_json(run.privacy)["epsilon_site"]
    few = ["sampler.num_levels=5", "sampler.per_class=100", "pool.workers=0"]
    assert main(["sample", folder, *few]) == 0
    found, labels = load_images(run.samples)
    for image in images:
        np.testing.assert_array_equal(image.pixels, found[labels == 1][image.index])
