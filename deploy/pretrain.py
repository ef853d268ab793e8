"""`dppm pretrain`: train the public network of ``model=pretrained`` on public images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from deploy.show import console, print_json, progress
from dppm_model.errors import ConfigError
from dppm_model.files import write_bytes, write_json
from dppm_model.public.training import train_public
from dppm_model.records import sources
from dppm_model.score.public_weights import own_folder

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_STEADY = 0.98  # of the running means that are shown


def pretrain(
    name: str, data: tuple[str, ...], size: str, steps: int, seed: int, *, as_json: bool
) -> None:
    """`dppm pretrain NAME --data SET ...`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"The name is {name!r:.80}.", "Use 1 to 64 small letters, digits and dashes."
        )
    if not data:
        raise ConfigError("--data was not given.", "Name public sets of `dppm data list`.")
    sets = [sources.load(one, "train") for one in data]
    weights = own_folder() / f"{name}.safetensors"
    card: dict[str, Any] = {
        "data": {records.manifest.name: records.manifest.digest for records in sets},
        "size": size,
        "steps": steps,
        "seed": seed,
    }
    weights.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = weights.with_suffix(".checkpoint")
    loss, closed = 1.0, 1.0
    with progress("fitting closed forms to public images") as bar:

        def show(step: int, now: float, below: float) -> None:
            nonlocal loss, closed
            loss, closed = (
                _STEADY * old + (1 - _STEADY) * new for old, new in ((loss, now), (closed, below))
            )
            text = f"step {step + 1} of {steps}, loss {loss / closed:.3f} of the closed form's"
            bar(text, (step + 1) / steps)

        network = train_public(size, sets, steps, checkpoint, seed, progress=show)
    vector = torch.nn.utils.parameters_to_vector(network.parameters()).detach().numpy()
    write_bytes(weights, save({"weights": vector.astype(np.float16)}))
    card["loss_over_closed_form"] = round(loss / closed, 4)
    write_json(weights.with_suffix(".json"), card)
    checkpoint.unlink()
    console.print(f"weights in {weights}: use model=pretrained model.pretrained.weights={name}")
    if as_json:
        print_json(card)
