"""A signed override: conditions of one model and its images that the owner of a key has waived."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.release.conditions import Condition
from dppm_model.errors import NotReleased
from dppm_model.files import write_json
from dppm_model.reading import read_json, reading
from dppm_model.securesum.keys import Identity, verify

_KIND = "release override 1"
_HINT = "Ask its signer for it again."
_SIGN_AGAIN = "Sign one for what is released now: `dppm override sign`."


@dataclass(frozen=True)
class Waiver:
    """A condition as its signer saw it, and why it need not be met."""

    measured: str
    limit: str
    reason: str


@dataclass(frozen=True)
class Override:
    """What a key has signed: model and images by their SHA-256, and each waived condition by name.

    ``by`` is the key's name in the policy, ``signed`` the time in UTC, ``signature`` hexadecimal.
    """

    model: str
    images: str
    waived: Mapping[str, Waiver]
    by: str
    signed: str
    signature: str

    @classmethod
    def sign(
        cls, key: Identity, by: str, of: Mapping[str, Any], waived: Mapping[str, Waiver]
    ) -> Override:
        """Sign for the model and images that ``of`` names (`deploy.sampling.subject`)."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        unsigned = cls(of["model"], of["images"], waived, by, now, "")
        return cls(**{**vars(unsigned), "signature": key.sign(unsigned.statement).hex()})

    @property
    def statement(self) -> bytes:
        """The bytes that are signed: all but the signature."""
        content = asdict(self)
        del content["signature"]
        return f"dppm {_KIND}\n{json.dumps(content, sort_keys=True)}".encode()

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        write_json(path, {"dppm": _KIND, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Override:
        """Read an override; `NotReleased` if the file is none."""
        with reading(path, NotReleased, _HINT):
            raw = {**read_json(path)}
            if raw.pop("dppm", None) != _KIND:
                raise ValueError("it is not a release override")
            waived = {name: Waiver(**waiver) for name, waiver in raw.pop("waived").items()}
            found = cls(**raw, waived=waived)
            texts = [*vars(found).values(), *(t for w in waived.values() for t in vars(w).values())]
            if not all(isinstance(text, str | dict) for text in texts):
                raise ValueError("a value is not a text")
            bytes.fromhex(found.signature)
        return found

    def check(self, keys: Mapping[str, str], of: Mapping[str, Any]) -> None:
        """Check the signature by the keys of a policy, and that it is for this model and images.

        Raises NotReleased if a key that the policy does not name has signed it, anything was
        changed since, or it is for another model or other images.
        """
        if self.by not in keys:
            raise NotReleased(
                f"The override is signed by {self.by!r}, whom the policy does not name.",
                "Name that key under override_keys, if its owner may decide.",
            )
        try:
            good = verify(
                bytes.fromhex(keys[self.by]), self.statement, bytes.fromhex(self.signature)
            )
        except ValueError:  # bytes that are no public key
            good = False
        if not good:
            raise NotReleased(
                f"The override is not signed by the policy's key of {self.by!r}.",
                f"It was changed, or another key signed it. {_HINT}",
            )
        if (self.model, self.images) != (of["model"], of["images"]):
            raise NotReleased("The override is for another model or other images.", _SIGN_AGAIN)

    def waives(self, condition: Condition) -> bool:
        """Say whether it waives a condition.

        Raises NotReleased if it waives it, but at another figure or limit than now.
        """
        waiver = self.waived.get(condition.name)
        if waiver is None:
            return False
        if (waiver.measured, waiver.limit) != (condition.measured, condition.limit):
            raise NotReleased(
                f"The override waives {condition.name} at {waiver.measured} ({waiver.limit}), but "
                f"it is {condition.measured} ({condition.limit}).",
                _SIGN_AGAIN,
            )
        return True


def waivers(found: Sequence[Condition], reasons: Sequence[str]) -> dict[str, Waiver]:
    """Return waivers of conditions that are not met, from texts ``NAME=REASON``.

    Raises NotReleased if a name is unknown, twice or of a condition that is met, or has no reason.
    """
    failed = {condition.name: condition for condition in found if not condition.met}
    made: dict[str, Waiver] = {}
    for text in reasons:
        name, _, reason = text.partition("=")
        if name not in failed or name in made:
            raise NotReleased(
                f"{name!r} is not a condition that needs a waiver.",
                f"Not met are {', '.join(failed)}." if failed else "All conditions are met.",
            )
        if not reason.strip():
            raise NotReleased(f"{name} is waived without a reason.", "Give NAME=REASON.")
        made[name] = Waiver(failed[name].measured, failed[name].limit, reason.strip())
    return made
