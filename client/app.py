"""The Flower ClientApp of a site: unpack the question, let the site answer, pack the report.

A reply holds the report and nothing else: no loss, no count, no timing. A refusal holds the name of
the error; its text stays in the site's own log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.site import Site
from dppm_model.errors import ConfigError, DppmError, ModelError
from dppm_model.mechanism.coins import Coins
from dppm_model.plan import Plan
from dppm_model.score.model import ScoreModel

log = logging.getLogger("dppm.client")


@lru_cache(maxsize=1)
def read_model(content: bytes) -> ScoreModel:
    """Read the round's model, once for all the virtual sites that one process plays."""
    return ScoreModel.from_bytes(content)


def _as_bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ModelError("The question's model is not bytes.", "Server and site differ in version.")
    return value


def site_folder(context: Context) -> Path:
    """Find the site's folder: node config ``site`` (deployment) or the simulation's numbering.

    The server chooses the run config, so a node that names its own folder never reads it.
    """
    if "site" in context.node_config:
        return Path(str(context.node_config["site"]))
    root = str(context.run_config.get("sites", ""))
    if not root or "partition-id" not in context.node_config:
        raise ConfigError(
            "This node has no site folder.", "Start the SuperNode with --node-config 'site=\"…\"'."
        )
    return Path(root) / f"{int(context.node_config['partition-id']):04d}"


def create_app(coins: Callable[[int], Coins] = lambda _: Coins()) -> ClientApp:
    """Build the ClientApp.

    Parameters
    ----------
    coins
        Makes the site's source of randomness from the site's partition number. Only tests pass it.
    """
    app = ClientApp()

    @app.train()
    def answer(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)  # sites of a simulation share the machine's cores
        try:
            question = message.content.config_records["question"]
            plan = Plan.from_json(str(question["plan"]))
            site = Site(
                site_folder(context), coins(int(context.node_config.get("partition-id", 0)))
            )
            tallies = site.answer(
                plan,
                int(str(question["phase"])),
                int(str(question["round"])),
                read_model(_as_bytes(question["model"])),
            )
            reply = RecordDict({"report": ArrayRecord({"tallies": Array(tallies)})})
        except DppmError as error:
            log.error("%s: %s %s", type(error).__name__, error.cause, error.cure)
            reply = RecordDict({"refusal": ConfigRecord({"error": type(error).__name__})})
        return Message(reply, reply_to=message)

    return app


app = create_app()
