"""A missing library of an extra is refused with the line to type."""

import json

import pytest

from dppm_model.errors import ConfigError
from dppm_model.optional import needed


def test_a_missing_library_is_refused_by_name() -> None:
    assert needed("json", "dicom") is json
    with pytest.raises(ConfigError, match=r"nowhere is not installed.*pip install 'dppm\[dicom\]'"):
        needed("nowhere.at_all", "dicom")
