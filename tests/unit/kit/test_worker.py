"""The process that runs bundles: it lets nothing through but the one it was started for."""

import hashlib
import sys
from pathlib import Path

import pytest

from deploy.kit.worker import BundleRefused, load, only
from tests.support.mutations import twin


@twin(
    "the worker takes whatever bundle the server sends",
    "deploy.kit.worker:only",
    lambda _: lambda digest: lambda content, **kw: None,
)
def test_only_the_approved_content_passes() -> None:
    content = b"the bundle that was approved"
    digest = hashlib.sha256(content).hexdigest()
    only(digest)(content, skip_prompt=True)
    for other in (content + b" ", b"", digest.encode()):
        with pytest.raises(BundleRefused):
            only(digest)(other, skip_prompt=True)
    for nothing in (content, b""):  # a worker without a bundle refuses all
        with pytest.raises(BundleRefused):
            only("")(nothing, skip_prompt=True)


def test_a_refusal_has_no_text() -> None:
    """Flower sends the text of an error to the server."""
    with pytest.raises(BundleRefused) as caught:
        only("")(b"x")
    assert str(caught.value) == ""


def test_code_of_another_place_is_not_taken_for_the_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # here `client` is imported already
    with pytest.raises(BundleRefused, match="not imported from the bundle"):
        load(tmp_path, tmp_path)
