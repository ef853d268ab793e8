"""The account of an import, kept beside the records: it names files, so it stays at the site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dppm_model.errors import DataError
from dppm_model.files import write_json
from dppm_model.reading import read_json, reading

_FILE = "import.json"
_MOST_NAMES = 20  # of a reason


@dataclass(frozen=True)
class Skipped:
    """What was passed over for one reason; ``names`` are the first ones."""

    reason: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Intake:
    """The account of an import.

    ``hold_out`` says how the test records were chosen; ``smallest`` and ``largest`` are (W, H) of
    source images, by their area; ``notes`` are the sentences that the import said.
    """

    source: str
    hold_out: str
    skipped: tuple[Skipped, ...]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls,
        source: str,
        hold_out: str,
        skipped: Mapping[str, Sequence[str]],
        sizes: Sequence[tuple[int, int]],
        notes: Sequence[str],
    ) -> Intake:
        """Gather an account; ``sizes`` has (W, H) of each image."""
        by_area = sorted({*sizes}, key=lambda size: size[0] * size[1])
        return cls(
            _text(source),
            _text(hold_out),
            tuple(
                Skipped(reason, len(names), tuple(map(_text, names[:_MOST_NAMES])))
                for reason, names in sorted(skipped.items())
            ),
            by_area[0],
            by_area[-1],
            tuple(map(_text, notes)),
        )

    def write(self, folder: Path) -> None:
        """Write it into the folder of a data set."""
        write_json(folder / _FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Intake | None:
        """Read that of a data set, None for one that was not imported; DataError if damaged."""
        path = folder / _FILE
        if not path.exists():
            return None
        with reading(path, DataError, "Import the data set again."):
            raw = read_json(path)
            (w, h), (wide, high) = raw["smallest"], raw["largest"]
            return cls(
                str(raw["source"]),
                str(raw["hold_out"]),
                tuple(
                    Skipped(str(one["reason"]), int(one["count"]), tuple(map(str, one["names"])))
                    for one in raw["skipped"]
                ),
                (int(w), int(h)),
                (int(wide), int(high)),
                tuple(map(str, raw["notes"])),
            )


def _text(name: str) -> str:
    """Return a name that JSON can hold, although file names need not be UTF-8."""
    return name.encode(errors="replace").decode()
