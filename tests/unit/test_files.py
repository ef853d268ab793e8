"""JSON lines after a crash, and locks."""

from pathlib import Path

import pytest

from dppm_model.files import append_json_line, read_json_lines
from dppm_model.locks import held, is_held


@pytest.mark.parametrize("torn", [b"", b'{"b', b'{"b": 2}'])
def test_a_torn_last_line_is_cut_off_by_the_next(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    append_json_line(path, {"a": 1})
    with path.open("ab") as file:
        file.write(torn)
    assert read_json_lines(path) == [{"a": 1}]
    append_json_line(path, {"c": 3})
    assert read_json_lines(path) == [{"a": 1}, {"c": 3}]
    path.write_bytes(torn)  # nothing whole before it
    append_json_line(path, {"d": 4})
    assert read_json_lines(path) == [{"d": 4}]


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_held(path)
    with held(path):
        assert is_held(path)
        with pytest.raises(BlockingIOError), held(path):
            pass
    assert not is_held(path)
    with held(path):
        pass
