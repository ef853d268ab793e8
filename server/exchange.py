"""Where the secure sum of the present round stands: one atomic file, rewritten twice a round.

It is written when the participants are fixed, before any is asked, and when the survivors are
fixed, before any is asked to help. Sites refuse a second list of either, so a server that died must
go on with these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from dppm_model.files import write_bytes
from dppm_model.plan import Plan
from dppm_model.reading import parse_json
from dppm_model.run import Run
from dppm_model.securesum.material import Material
from dppm_model.securesum.ring import Vector
from server.state import Arrays, read_state


@dataclass(frozen=True)
class Exchange:
    """A round that has begun.

    Attributes
    ----------
    number
        Of the round, over all phases.
    materials
        Of the participants.
    survivors, total
        Who is in the masked sum, and the sum; None while reports are still taken.
    """

    plan: str
    number: int
    materials: dict[int, Material]
    survivors: dict[int, bytes] | None = None
    total: Vector | None = None

    def write(self, path: Path) -> None:
        """Write atomically and durably."""
        materials = {
            i: [m.mask_key.hex(), m.commitment.hex(), {k: s.hex() for k, s in m.shares.items()}]
            for i, m in self.materials.items()
        }
        meta = {
            "plan": self.plan,
            "number": str(self.number),
            "materials": json.dumps(materials),
            "survivors": json.dumps(
                self.survivors and {i: s.hex() for i, s in self.survivors.items()}
            ),
        }
        total = np.zeros(0, np.uint8) if self.total is None else self.total
        write_bytes(path, safetensors.numpy.save({"total": total}, meta))

    @classmethod
    def read(cls, path: Path, plan: str) -> Exchange | None:
        """Read the exchange of this plan, or None if no round has begun.

        Raises
        ------
        RunFolderError
            If the file is damaged or of another plan.
        """
        return read_state(path, plan, cls._build)

    @classmethod
    def _build(cls, meta: dict[str, str], tensors: Arrays) -> Exchange:
        materials = {
            int(i): Material(
                bytes.fromhex(key),
                bytes.fromhex(bound),
                {int(k): bytes.fromhex(s) for k, s in shares.items()},
            )
            for i, (key, bound, shares) in parse_json(meta["materials"]).items()
        }
        survivors = parse_json(meta["survivors"])
        return cls(
            meta["plan"],
            int(meta["number"]),
            materials,
            survivors and {int(i): bytes.fromhex(s) for i, s in survivors.items()},
            None if survivors is None else tensors["total"],
        )


def stage(run: Run, plan: Plan, done: int) -> str:
    """Say what the server waits for, as far as its state files tell.

    Parameters
    ----------
    done
        How many rounds are finished.
    """
    exchange = Exchange.read(run.exchange, plan.digest)
    if exchange is None or exchange.number < done:
        return "waiting for sites to take part"
    return "waiting for reports" if exchange.survivors is None else "opening the sum"
