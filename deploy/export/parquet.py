"""Parquet as `datasets` lays it out: a column of images, labels with class names, the facts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.export.png import marked_png
from deploy.export.synthetic import SyntheticSet
from dppm_model.optional import needed

_ROWS = 1000  # of a group, which a reader decodes at once
_FACTS = {
    "synthetic": "bool",
    "class": "string",
    "class_index": "int64",
    "index": "int64",
    "seed": "int64",
    "model": "string",
    "epsilon": "float64",
    "delta": "float64",
    "unit": "string",
    "view": "string",
    "software": "string",
}


def write_parquet(made: Path, images: SyntheticSet) -> Iterator[int]:
    """Write ``data/train-00000-of-00001.parquet``, which pandas, Arrow and `datasets` read."""
    arrow, parquet = needed("pyarrow", "parquet"), needed("pyarrow.parquet", "parquet")
    schema = arrow.schema(
        [
            ("image", arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])),
            ("label", arrow.int64()),
            *((name, arrow.type_for_alias(kind)) for name, kind in _FACTS.items()),
        ],
        metadata={"huggingface": json.dumps(_features(images.config.class_names))},
    )
    (made / "data").mkdir()
    with parquet.ParquetWriter(made / "data" / "train-00000-of-00001.parquet", schema) as file:
        rows: list[dict[str, Any]] = []
        for done, image in enumerate(images, 1):
            facts = images.facts(image)
            content = {"bytes": marked_png(image.pixels, facts), "path": f"{image.name}.png"}
            rows.append({"image": content, "label": image.label, **facts})
            if len(rows) == _ROWS or done == len(images):
                file.write_table(arrow.Table.from_pylist(rows, schema))
                rows.clear()
            yield done


def _features(classes: tuple[str, ...]) -> dict[str, Any]:
    """Return what `datasets` needs to know beyond the types."""
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": [*classes], "_type": "ClassLabel"},
        **{name: {"dtype": kind, "_type": "Value"} for name, kind in _FACTS.items()},
    }
    return {"info": {"features": features}}
