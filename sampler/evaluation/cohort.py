"""Who is behind the images: records and persons of each class, and copies among all pictures."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.records.copies import exact_copies
from sampler.evaluation.classifier import Images, Labels


def cohort_figures(
    labels: Labels, persons: NDArray[np.int64] | None, classes: int
) -> dict[str, list[int] | None]:
    """Count the training records of each class, and the persons who have any.

    ``labels`` (n,), ``persons`` (n,) or None where the data name none.
    """
    records = np.bincount(labels, minlength=classes).tolist()
    if persons is None:
        return {"records_per_class": records, "persons_per_class": None}
    owners = [len(np.unique(persons[labels == label])) for label in range(classes)]
    return {"records_per_class": records, "persons_per_class": owners}


def copy_figures(synthetic: Images, train: Images) -> dict[str, Any]:
    """Count equal pictures, pixel by pixel: all images against all training records.

    Returns the numbers of ``images`` and ``records``, and how many images are copies
    ``of_records``, how many equal an earlier image (``among_images``), and how many records an
    earlier record (``among_records``).
    """
    drawn, real = _digests(synthetic), _digests(train)
    known = {*real}
    return {
        "images": len(drawn),
        "records": len(real),
        "of_records": sum(one in known for one in drawn),
        "among_images": len(exact_copies(drawn)),
        "among_records": len(exact_copies(real)),
    }


def _digests(images: Images) -> list[bytes]:
    return [hashlib.sha256(image.tobytes()).digest() for image in images]
