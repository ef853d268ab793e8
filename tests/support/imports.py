"""An import, and what it says."""

from pathlib import Path
from typing import Any

from dppm_model.records.importers import import_dataset
from dppm_model.records.listing import Choices


def imported(
    path: Path, store: Path, choices: Choices | None = None, *, name: str = "x", **options: Any
) -> tuple[Path, str]:
    """Import; return the folder and what was said."""
    notes: list[str] = []
    folder = import_dataset(
        path, name, root=store, choices=choices or Choices(), say=notes.append, **options
    )
    return folder, " ".join(notes)
