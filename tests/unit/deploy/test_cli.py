"""The command line: help with examples, refusals with their own codes, JSON for scripts."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cli import COMMANDS, Command, main, split_arguments
from deploy.kit.preflight import CHECKS
from dppm_model import errors
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.privacy.ledger import Debit, Ledger
from tests.conftest import TINY


def run(*arguments: str) -> int:
    return main(list(arguments))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.path)
def test_a_command_has_examples_and_a_function_that_takes_its_parameters(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command.path.split(), "--help") == 0
    assert f"dppm {command.path}" in capsys.readouterr().out.split("examples:")[1]
    names = {p.name for p in command.params}
    if "arguments" in names:
        names = names - {"arguments"} | {"folder", "overrides"}
    inspect.signature(command.function).bind(**dict.fromkeys(names))


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "Usage: dppm"),
        ("plann", "Did you mean 'plan'?"),
        ("plan --jason", "Did you mean '--json'?"),
        ("data fetch", "Missing argument 'NAME'"),
        ("audit x --trials many", "not a valid integer"),
        ("site ledger x verifi", "not one of 'show', 'verify'"),
    ],
)
def test_what_is_mistyped_exits_with_2_and_a_line_that_helps(
    typed: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*typed.split()) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", ["9" * 400, "9" * 5000, "1e999", "nan", "[" * 3000, "{a:" * 3000, "\ud800", "é" * 5000]
)
@pytest.mark.parametrize("key", ["privacy.epsilon", "seed", "sites", "model.phases.means.rounds"])
def test_settings_that_are_out_of_all_bounds_are_refused(
    tiny: Path, key: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", "data=tiny", f"{key}={value}") >= 10
    assert len(capsys.readouterr().err) < 2000


def test_every_refusal_has_its_own_exit_code_in_the_range_that_the_help_names() -> None:
    refusals = [kind.exit_code for kind in errors.DppmError.__subclasses__()]
    assert len(set(refusals)) == len(refusals)
    assert (min(refusals), max(refusals)) == (10, 33)
    assert [check.exit_code for check in CHECKS] == list(range(40, 54))


@pytest.mark.parametrize(
    ("override", "code", "says"),
    [
        ("privacy.epsilonn=1", 10, "privacy.epsilon"),
        ("privacy.epsilon=-1", 10, "privacy.epsilon"),
        ("privacy.view=sideways", 10, "privacy.view"),
        ("privacy.min_survivors=4", 10, "privacy.min_survivors"),
        ("privacy.colluding_sites=3", 10, "privacy.colluding_sites"),
        ("privacy.unit=person", 10, "names no persons"),
        ("privacy.records_per_person=2", 10, "privacy.records_per_person"),
        ("model.phases.means.budget_fraction=2", 10, "phases.means.budget_fraction"),
        ("model.mixture.band=0", 10, "mixture.band"),
        ("data=tyni", 10, "tiny"),
        ("data=mnist", 14, "dppm data fetch mnist"),
        ("model=transformer", 10, "transformer|model"),
    ],
)
def test_refusals_name_the_field_and_a_hint(
    tiny: Path, override: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", *TINY, override) == code
    shown = capsys.readouterr().err
    assert "Fix:" in shown
    assert any(word in shown.replace("\n", "") for word in says.split("|"))


def test_scripts_can_rely_on_plan_json(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", *TINY, "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["epsilon_secure_sum"] <= 8 < plan["epsilon_site"]
    assert plan.keys() >= {"unit", "adjacency", "delta", "honest_sites", "public_data", "phases"}
    of_a_phase = "name mechanism clip_norm range truth_strength responses sampling_rate rounds"
    of_a_phase += " dimension sites mu_secure_sum mu_site"
    assert plan["phases"][0].keys() >= set(of_a_phase.split())


def test_the_whole_path_and_its_refusals(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    assert run("sample", folder) == errors.RunFolderError.exit_code
    assert run("simulate", folder, *TINY) == 0
    assert run("evaluate", folder) == errors.RunFolderError.exit_code  # no images yet
    assert run("simulate", folder) == 0  # nothing to do
    capsys.readouterr()
    assert run("simulate", folder, *TINY, "privacy.epsilon=3") == errors.RunFolderError.exit_code
    assert "privacy.epsilon was 8" in " ".join(capsys.readouterr().err.split())
    assert run("sample", folder, "privacy.epsilon=1") == errors.ConfigError.exit_code
    small = ["pool.workers=0", "sampler.per_class=20", "sampler.num_levels=6"]
    capsys.readouterr()
    assert run("sample", folder, *small, "--json") == 0
    assert Path(json.loads(capsys.readouterr().out)["sheet"]).stat().st_size > 500
    assert run("diagnose", folder, "sampler.num_levels=4", "--json") == 0
    assert Path(json.loads(capsys.readouterr().out)["film"]).stat().st_size > 500
    assert run("diagnose", folder, "sampler=heun") == errors.ConfigError.exit_code
    assert run("sample", folder, *small, "sampler.step_size=0.2") == errors.RunFolderError.exit_code
    assert run("sample", folder, *small, "sampler.step_size=-1") == errors.ConfigError.exit_code


def test_a_ledger_is_shown_and_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for r in range(3):
        ledger.debit(
            Debit("run", "plan", "means", r, *(RoundCost(mu, 1.0, 1) for mu in (0.5, 2.0, 0.5)))
        )
    assert run("ledger", "show", str(tmp_path), "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["debits"] == 3 and shown["phases"][0]["rounds"] == 3
    assert shown["epsilon_secure_sum"] == epsilon([RoundCost(0.5, 1.0, 3)], 1e-5)
    assert run("ledger", "verify", str(ledger.path)) == 0
    assert "debits, unbroken" in capsys.readouterr().err.replace("\n", "")
    ledger.path.write_text("")
    assert run("ledger", "verify", str(tmp_path)) == 13
    assert run("ledger", "show", str(tmp_path / "nothing")) == 13


def test_help_does_not_wait_for_the_package() -> None:
    program = "import sys, deploy.cli; deploy.cli.program(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not {"torch", "flwr", "scipy", "ray"} & set(done.stdout.split())


def test_a_folder_may_have_an_equals_sign() -> None:
    folder, overrides = split_arguments(["runs/eps=1", "sites=3", "~model.phases.axes", "data=a/b"])
    assert folder == Path("runs/eps=1")
    assert overrides == ["sites=3", "~model.phases.axes", "data=a/b"]


def test_a_user_without_a_home_is_refused(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name in ("HOME", "DPPM_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # in no passwd
    assert main(["data", "list"]) == 31
    assert "Set DPPM_DATA" in capsys.readouterr().err
