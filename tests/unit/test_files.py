"""Files after a crash, a full disk, a short write, a trap in their place; and locks."""

import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import dppm_model.files as files
from dppm_model.errors import StorageError
from dppm_model.files import append_json_line, sweep, write_bytes
from dppm_model.folders import held, is_held, read_json_lines
from dppm_model.locks import NotAFile, locked
from tests.support.fault_injection import (
    POINTS,
    TORN,
    dying,
    ended,
    forked,
    left_over,
    short_writes,
    small_files,
)
from tests.support.mutations import twin


@pytest.mark.parametrize("torn", TORN)
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


@pytest.mark.parametrize("line", [b"", b"\xff", b"[1]", b"{", b'{"a": 1e999}', b"[" * 100_000])
def test_a_damaged_line_that_is_not_the_last_is_refused(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(StorageError, match="line 2"):
        read_json_lines(path)


def _append_carelessly(handle: int, line: bytes) -> None:
    os.lseek(handle, 0, os.SEEK_END)
    left = line + b"\n"
    while left:
        left = left[os.write(handle, left) :]


@twin("a partly written line stays", "dppm_model.files:append_line", lambda _: _append_carelessly)
def test_a_line_is_written_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, line = tmp_path / "lines.jsonl", {"abc": 12345}
    append_json_line(path, line)
    whole = path.read_bytes()
    for position in range(len(whole)):
        with monkeypatch.context() as patch:
            short_writes(patch, position)
            with pytest.raises(OSError, match="No space"):
                append_json_line(path, line)
        assert path.read_bytes() == whole
    short_writes(monkeypatch, None)
    append_json_line(path, line)
    assert path.read_bytes() == 2 * whole


def test_a_write_that_fails_keeps_what_was_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")

    def work() -> None:
        with small_files(1000):
            write_bytes(tmp_path / "a", bytes(1001))

    assert ended(forked(work)) == 99
    assert (tmp_path / "a").read_bytes() == b"old" and not left_over(tmp_path)


@pytest.mark.parametrize("point", POINTS)
def test_what_a_killed_writer_leaves_is_swept(tmp_path: Path, point: str) -> None:
    path = tmp_path / "deep" / "secret"
    write_bytes(path, b"old")

    def work() -> None:
        with dying(point, 1):
            write_bytes(path, b"a newer secret")

    assert ended(forked(work)) == -9
    assert path.read_bytes() == (b"a newer secret" if point == "renamed" else b"old")
    assert len(left_over(tmp_path)) == (point != "renamed")
    sweep(tmp_path)
    assert not left_over(tmp_path) and path.exists()


@twin(
    "a file that another process is writing is swept away",
    "dppm_model.files:lock",
    lambda old: lambda handle, path, how=0: old(handle, path, fcntl.LOCK_UN),
)
def test_what_a_living_writer_holds_is_not_swept(tmp_path: Path) -> None:
    with files._own(tmp_path / ".a.new"):
        sweep(tmp_path)
        assert (tmp_path / ".a.new").exists()
    sweep(tmp_path)
    assert not any(tmp_path.iterdir())


def test_many_writers_of_one_file_do_not_hurt_each_other(tmp_path: Path) -> None:
    contents = [bytes([n]) * 300_000 for n in range(8)]

    def work(content: bytes) -> None:
        for _ in range(10):
            write_bytes(tmp_path / "a", content, durable=False)

    threads = [threading.Thread(target=work, args=(c,)) for c in contents]
    children = [forked(lambda c=c: work(c)) for c in contents]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ended(child) == 0 for child in children)
    assert (tmp_path / "a").read_bytes() in contents and not left_over(tmp_path)


TRAPS: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda place, victim: place.symlink_to(victim),
    "hard link": lambda place, victim: place.hardlink_to(victim),
    "dangling": lambda place, victim: place.symlink_to(victim.parent / "nowhere"),
    "fifo": lambda place, victim: os.mkfifo(place),
    "open to all": lambda place, victim: place.touch(0o666),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_what_is_planted_in_the_temporary_place_does_no_harm(tmp_path: Path, trap: str) -> None:
    victim, place = tmp_path / "victim", tmp_path / ".a.new"
    victim.write_text("precious")
    TRAPS[trap](place, victim)
    write_bytes(tmp_path / "a", b"secret")
    assert (tmp_path / "a").read_bytes() == b"secret" and not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert victim.read_text() == "precious" and not (tmp_path / "nowhere").exists()
    assert not left_over(tmp_path)


@twin(
    "the temporary file may be a link to somewhere else",
    "dppm_model.files:open_file",
    lambda old: lambda path, flags, **_: old(path, flags, follow=True),
)
def test_sweeping_does_not_follow_links_out(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "more").mkdir(parents=True)
    outside.mkdir()
    (outside / ".a.new").write_text("another's")
    (inside / "more" / "away").symlink_to(outside)
    (inside / ".a.new").symlink_to(outside / ".a.new")
    os.mkfifo(inside / "more" / ".b.new")
    sweep(inside)
    assert not left_over(inside) and (outside / ".a.new").exists()
    sweep(tmp_path / "nowhere")


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


@twin(
    "a lock on a removed file counts",
    "dppm_model.locks:lock",
    lambda old: lambda *args: old(*args) or True,
)
def test_the_lock_of_a_file_that_was_removed_meanwhile_is_no_lock(tmp_path: Path) -> None:
    path, got = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with locked(path):
            assert path.exists()
            got.set()

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.2)
        path.unlink()
    thread.join()
    assert got.is_set()


def test_a_lock_file_is_no_link_and_no_fifo(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(NotAFile), held(tmp_path / name):
            pass
    assert (tmp_path / "victim").read_text() == "precious"
