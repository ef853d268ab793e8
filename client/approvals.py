"""What the site's operator has approved: bundles of code and plans, by their digests.

The gate (`deploy.kit.gate`) runs no bundle, and the site answers no plan, that is not listed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from dppm_model.errors import ConfigError, NotApproved
from dppm_model.files import write_json
from dppm_model.plan import Plan

NAME = "approvals.json"


def plan_file(folder: Path, digest: str) -> Path:
    """Return where a site keeps the text of an approved plan."""
    return folder / "plans" / f"{digest}.json"


@dataclass
class Approvals:
    """Digest to a note for people: when, and what it is."""

    bundles: dict[str, str] = field(default_factory=dict)
    plans: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Approvals:
        """Read a site's approvals; a site without the file has approved nothing.

        Raises
        ------
        ConfigError
            If the file is damaged.
        """
        path = folder / NAME
        if not path.exists():
            return cls()
        try:
            raw = json.loads(path.read_text())
            return cls(dict(raw["bundles"]), dict(raw["plans"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: {error}.", "Approve the announcement again.") from None

    def write(self, folder: Path) -> None:
        """Write atomically."""
        write_json(folder / NAME, {"bundles": self.bundles, "plans": self.plans})

    def texts(self, folder: Path) -> list[str]:
        """Read the approved plans, as far as their text was kept (`dppm site approve` does)."""
        paths = (plan_file(folder, digest) for digest in self.plans)
        return [path.read_text() for path in paths if path.is_file()]

    def check_plan(self, plan: Plan) -> None:
        """Refuse a plan that is not approved.

        Raises
        ------
        NotApproved
            Also if only its run is known under another plan.
        """
        if plan.digest not in self.plans:
            raise NotApproved(
                f"plan {plan.digest[:12]} of run {plan.run} is not approved at this site.",
                "The site's operator can look at it and approve it: `dppm site approve`.",
            )
