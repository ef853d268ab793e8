"""The Flower ServerApp: read the run folder, wait for the sites, run the rounds."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from dppm_model.config import initial_model, read_config
from dppm_model.run import Run
from server.collect import Collected, collect, wait_for_sites
from server.rounds import train

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the run folder that the run config names."""
    run = Run(Path(str(context.run_config["run"])))
    with run.reporting():
        config = read_config(run.config)
        plan = run.plan()
        nodes = wait_for_sites(grid, plan.sites, config.server.wait_seconds)

        def ask(phase: int, round_: int, model: bytes) -> Collected:
            return collect(grid, nodes, plan, phase, round_, model, config.server.round_seconds)

        train(run, initial_model(config), config.seed, ask)
