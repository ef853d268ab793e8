"""The closed form of a model that changes from round to round, while its closed form does not."""

from __future__ import annotations

import hashlib

from dppm_model.score.mixture import Mixture
from dppm_model.score.model import CLOSED_FORM, LATER, ScoreModel

_closed_form: dict[bytes, Mixture] = {}  # the last one used


def closed_form(model: ScoreModel) -> Mixture:
    """Return the model's mixture, built once for all rounds of a phase.

    Every round brings a new model with the same closed form, whose eigen-decompositions take as
    long as the gradients of a hundred records.
    """
    key = _key(model)
    if key not in _closed_form:
        _closed_form.clear()
        _closed_form[key] = model.mixture
    return _closed_form[key]


def _key(model: ScoreModel) -> bytes:
    """Digest of all that decides a closed form; no two of them write the same bytes.

    Whether the last round's is still there depends on whether a record was sampled in it: a key
    that two different closed forms share would let that decide what records answer now.
    """
    digest = hashlib.sha256(bytes.fromhex(model.config.digest))
    for name in sorted(CLOSED_FORM | LATER):
        if name in model.arrays:
            array = model.arrays[name]
            for part in (name.encode(), repr((array.dtype.str, array.shape)).encode()):
                digest.update(len(part).to_bytes(8) + part)
            digest.update(array.nbytes.to_bytes(8) + array.tobytes())
    return digest.digest()
