"""The site's audit log of questions, answers and costs: sizes and digests, never values.

JSON lines, for people and for log collectors. Spending is computed from the ledger, not from this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dppm_model.files import append_json_line

NAME = "audit.jsonl"
Answer = Mapping[str, Mapping[str, Any]]


def note(folder: Path, event: str, **facts: Any) -> None:
    """Append a line; it is on disk when this returns."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    append_json_line(folder / NAME, {"time": moment, "event": event, **facts})


def described(answer: Answer) -> dict[str, Any]:
    """Describe an answer: size in bytes and SHA-256 of each record, and the names of errors.

    A number counts eight bytes, a list the sum of its items.
    """
    found: dict[str, Any] = {}
    for name, fields in answer.items():
        if "error" in fields:
            found[name] = {key: fields[key] for key in ("error", "accused") if key in fields}
            continue
        parts = [part for key in sorted(fields) for part in _parts(fields[key])]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(len(part).to_bytes(8) + part)
        found[name] = {"bytes": sum(map(len, parts)), "sha256": digest.hexdigest()}
    return found


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item)
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, str):
        yield value.encode()
    else:
        yield int(value).to_bytes(8, signed=True) if abs(value) < 2**63 else repr(value).encode()
