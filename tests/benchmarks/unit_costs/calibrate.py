"""All unit costs of this machine, by the small benchmarks beside this file."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deploy.cost.units import LAPTOP, Units
from dppm_model.config import Config
from dppm_model.plan import Plan
from tests.benchmarks.record import cpu
from tests.benchmarks.unit_costs import coordinates, machine, messages, phases, protocol


def calibrate(
    plan: Plan, config: Config, *, flower: bool = True, say: Callable[[str], None] = print
) -> Units:
    """Measure this machine's unit costs.

    Parameters
    ----------
    plan, config
        Whose phases and data are timed. Other kinds of phases, and the polling of real SuperNodes,
        which nobody can time on one machine, stay as they are in the package.
    flower
        Whether Flower's messages are timed, which takes half a minute.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        known: dict[str, Any] = {"machine": f"{cpu()}, {platform.system()}"}
        for name, measure in (
            ("cores", machine.machine),
            ("coordinates", coordinates.coordinates),
            ("memory", coordinates.memory),
            ("keys", protocol.primitives),
            ("memory of keys", protocol.memory),
            ("messages", messages.messages if flower else dict),
        ):
            say(f"timing {name}")
            known |= measure()
        say("timing phases")
        unit, opened = phases.listing(plan, config)
        kinds, model = phases.kinds(plan, config)
        with tempfile.TemporaryDirectory() as folder:
            certify, account = phases.reckoning(plan, Path(folder))
            known |= phases.resident(plan, config, model, Path(folder))
        known |= {
            "kinds": {**LAPTOP.kinds, **kinds},
            "gradient": phases.gradient(),
            "row": phases.row(),
            "unit": unit,
            "certify": certify,
            "account": account,
        }
        say("timing sites")
        ours = ("site", "peer", "server", "server_site", "server_pair")
        spent = replace(LAPTOP, **{**known, "flush": 0.0, **dict.fromkeys(ours, 0.0)})
        own = protocol.protocol(spent)
        own["site"] += opened
        return replace(LAPTOP, **{**known, **own})
    finally:
        torch.set_num_threads(threads)
