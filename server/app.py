"""The Flower ServerApp: read the run folder, wait for the sites, run the rounds."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from dppm_model.aggregation import SECURE_SUM
from dppm_model.config import read_config
from dppm_model.device import device_of
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from server.aggregation import Aggregation
from server.broadcast import RetryPolicy, wait_for_sites
from server.rounds import train
from server.securesum.aggregation import SecureSum

app = ServerApp()
AGGREGATIONS: dict[str, type[Aggregation]] = {SECURE_SUM: SecureSum}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the run folder that the run config names."""
    run = Run(Path(str(context.run_config["run"])))
    with run.reporting():
        config = read_config(run.config)
        plan = run.plan()
        server = config.server
        wait_for_sites(grid, plan.sites, plan.min_survivors, server.wait_seconds)
        aggregation = AGGREGATIONS[plan.aggregation](
            grid,
            plan,
            run.peers(),
            run.checkpoint,
            RetryPolicy(server.round_seconds, server.max_retries, server.retry_seconds),
        )
        initial = ScoreModel.load(run.initial).to(device_of(config.device))
        train(run, initial, config.seed, config.budget(), aggregation)
