"""Networks F for the residual of the denoiser below; one module each.

F sees the noisy and the denoised image in a band of low frequencies, and its output begins at zero.
To add a network, add its module here, with a `NetworkConfig` and the network, and a YAML that names
it in ``model.residual.network.kind``. Only `Linear` and ``Conv2d`` layers of stride one may have
parameters, and normalisation must be over one record: that makes per-record gradients fast
(`dppm_model.mechanism.gradients`), and the same in every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from dppm_model.bounds import from_settings
from dppm_model.errors import ConfigError
from dppm_model.score.networks._network import KINDS, NetworkConfig, first_weights

__all__ = ["KINDS", "NetworkConfig", "first_weights", "network_config"]

for _module in iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)


def network_config(values: Mapping[str, Any]) -> NetworkConfig:
    """Build a network's settings from a plain dictionary, whose ``kind`` names the network.

    Raises
    ------
    ConfigError
        If there is no such network, a key is unknown or a value is out of range.
    """
    group = "residual.network"
    if not isinstance(values, Mapping) or values.get("kind") not in KINDS:
        raise ConfigError(
            f"{group} is {values!r:.200}.", f"Give one of these kinds: {', '.join(KINDS)}."
        )
    own = {key: value for key, value in values.items() if key != "kind"}
    return from_settings(KINDS[values["kind"]], group, own)
