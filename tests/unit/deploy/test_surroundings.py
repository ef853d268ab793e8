"""What machines do to a command: full disks, odd names, other letters, an early Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from deploy.flower import run_flower
from dppm_model.errors import ConfigError, StorageError
from sampler.draw import load_model
from sampler.pool import PoolSettings, on_ray
from sampler.ray_folder import check_ray_folder
from sampler.settings import SamplerSettings
from tests.conftest import TINY, run


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


def dppm(*arguments: str, **rest: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "deploy.entry", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **rest)  # type: ignore[call-overload]


def test_a_home_that_cannot_be_written_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from PIL import Image

    (tmp_path / "home").write_text("a file, no folder")
    for i in range(4):
        folder = tmp_path / "f" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(folder / f"{i}.png")
    monkeypatch.delenv("DPPM_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert run("data", "import", tmp_path / "f", "--name", "x") == StorageError.exit_code
    shown = said(capsys)
    assert "Not a directory" in shown and "Fix: Something on this path is a file" in shown


@pytest.mark.parametrize("command", ["simulate", "sample", "report"])
def test_names_that_are_too_long_are_refused(
    tiny: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = TINY if command == "simulate" else []
    assert 10 <= run(command, tmp_path / ("x" * 300), *overrides) <= 33
    shown = said(capsys)
    assert "Fix:" in shown
    if command == "simulate":
        assert "File name too long" in shown and "Take a shorter name" in shown


def test_output_to_a_full_disk_is_refused(tiny_store: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = dppm("data", "list", "--json", stdout=full)
        shown = process.communicate(timeout=120)[1].decode()
    assert process.returncode == StorageError.exit_code
    assert "No space left on device" in shown and "Traceback" not in shown


def test_output_without_unicode_is_written_all_the_same() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = dppm("plan", "--help", stdout=subprocess.PIPE, env=environment)
    out, shown = process.communicate(timeout=120)
    assert (process.returncode, shown) == (0, b"")
    assert rb"N,N,\u2026" in out or b"N,N," in out


def test_a_bracket_in_a_runs_path_is_a_letter(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "r[1]" / "[bold]x*?{a,b}"
    assert run("simulate", folder, *TINY) == 0
    assert run("simulate", folder) == 0
    assert "[bold]x*?{a,b}istrained" in "".join(capsys.readouterr().err.split())
    few = ["pool.workers=0", "sampler.per_class=2", "sampler.num_levels=6"]
    capsys.readouterr()
    assert run("sample", folder, *few) == 0
    assert "[bold]x*?{a,b}/samples" in "".join(capsys.readouterr().err.split())
    assert [*(folder / "samples").rglob("*.npz")]


@pytest.mark.parametrize("content", ["", "{", '{"x', "[]", "{}", "\0", "null"])
def test_a_damaged_plan_is_refused_by_name(
    tiny: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert run("simulate", folder, *TINY, "model.phases.means.rounds=1") in (0, 10, 11)
    (folder / "plan.json").write_text(content)
    for command in ("simulate", "sample"):
        capsys.readouterr()
        assert run(command, folder) >= 10
        shown = said(capsys).replace(" ", "")
        assert "plan.json" in shown and "Restoreitfromabackup" in shown


@pytest.mark.parametrize("override", ["+sitess=3", "+privacy.epsilonn=3", "++sitess=3"])
def test_a_misspelt_key_with_a_plus_is_refused_with_the_right_one(
    tiny: Path, override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", *TINY, override) == ConfigError.exit_code
    shown = said(capsys)
    key = override.strip("+").partition("=")[0]
    assert f"{key} is not a setting" in shown and f"Did you mean {key[:-1]}" in shown


def test_a_temporary_folder_with_a_long_path_is_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + "t" * 60)
    for begin in (
        lambda: next(on_ray((load_model, b""), [], 0, SamplerSettings(), PoolSettings(workers=1))),
        lambda: run_flower(
            tmp_path, nodes=1, run_config={}, log=tmp_path / "log", device=torch.device("cpu")
        ),
    ):
        with pytest.raises(ConfigError, match="TMPDIR has 65 bytes: Ray's sockets"):
            begin()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_ray_folder()


# -- Ctrl-C


def test_ctrl_c_before_the_command_line_is_there() -> None:
    """A library that swallows exceptions, as some do while they are imported, changes nothing."""
    script = """
        import os, signal, sys
        class Swallows:
            @property
            def main(self):
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                except BaseException:
                    pass
                return lambda: 0
        sys.modules["deploy.cli"] = Swallows()
        from deploy.entry import main
        sys.exit(main())
    """
    found = subprocess.run([sys.executable, "-c", dedent(script)], capture_output=True, check=False)
    assert found.returncode == 130
    assert found.stderr == b"Interrupted.\n"


def test_ctrl_c_while_libraries_are_loaded(tiny_store: Path, tmp_path: Path) -> None:
    process = dppm("simulate", str(tmp_path / "run"), stdout=subprocess.DEVNULL)
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and b"libtorch" not in maps.read_bytes():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130
    assert "Interrupted." in shown and "Traceback" not in shown
    assert not (tmp_path / "run").exists()
