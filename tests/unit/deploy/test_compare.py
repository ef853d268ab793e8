"""The evaluation as a table, and several runs in one; what is missing is named."""

import json
import shutil
from pathlib import Path

import pytest

from deploy.compare import table
from deploy.pages.report import write_evaluation_table
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.run import Run
from sampler.evaluation.detail import SIDES
from tests.conftest import TINY, run


def rows_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_evaluate_leaves_a_table(finished: Path) -> None:
    text = (finished / "evaluation.md").read_text()
    result = json.loads((finished / "evaluation.json").read_text())
    privacy = json.loads((finished / "privacy.json").read_text())
    rows = {row[0]: row[1:] for row in rows_of(text)}
    assert rows["accuracy, CNN"] == [f"{result['accuracy']:.4f}", f"{result['accuracy_real']:.4f}"]
    assert rows["coverage, mean over classes"][0] == f"{result['coverage']['coverage']:.3f}"
    assert float(rows["a site's own reports"][0]) >= privacy["epsilon_site"]
    assert float(rows["secure sum, 3 honest sites"][0]) >= privacy["epsilon_secure_sum"]
    assert {"a", "b"} <= rows.keys()  # the classes by name
    balanced = rows["balanced accuracy, CNN"][0]
    assert balanced == f"{result['balanced_accuracy']:.4f}"
    public = result["public_distances"]
    shown = [f"{public['frechet']:.2f}", f"{public['frechet_real']:.2f}"]
    assert rows["Fréchet distance, public features"] == shown
    assert "kernel distance, public features" in rows
    assert "Fréchet distance, the given network's features" not in rows
    assert rows["spectrum, distance (dB)"][0] == f"{result['spectrum']['distance_db']:.2f}"
    assert result["distances"]["features"] in text
    assert "single one" in text


def test_demo_checks_them_before_anything_is_spent(tiny: Path, tmp_path: Path) -> None:
    for wrong in ("evaluation.seeds=[]", "sampler.per_class=9", "sampler.num_levels=0"):
        assert run("demo", tmp_path / "run", *TINY, wrong) == ConfigError.exit_code
    assert not (tmp_path / "run").exists()


def test_a_large_images_detail_stands_in_the_table(finished: Path) -> None:
    result = json.loads((finished / "evaluation.json").read_text())
    detail = {f"accuracy_{side}{kind}": 0.75 for side in SIDES for kind in ("", "_real")}
    detail |= {"frechet_crops": 0.5, "frechet_crops_real": 0.25}
    detail |= {"spectrum": {"largest_db_below_a_quarter": 1.44}}
    changed = {"detail": detail, "accuracy": 0.5, "accuracy_std": 0.01}  # of several seeds
    changed |= {"public_distances": None, "inception_distances": result["public_distances"]}
    (finished / "evaluation.json").write_text(json.dumps(result | changed))
    write_evaluation_table(Run(finished))
    rows = rows_of((finished / "evaluation.md").read_text())
    assert ["accuracy, CNN", "0.5000 ± 0.0100"] in [row[:2] for row in rows]
    assert ["accuracy at 128 pixels", "0.7500", "0.7500"] in rows
    names = [row[0] for row in rows]
    assert "Fréchet distance, the given network's features" in names
    assert "Fréchet distance, public features" not in names
    assert ["spectrum, largest difference (dB)", "1.4", "–"] in rows


def test_runs_stand_side_by_side(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = finished.parent / "second|run"
    shutil.copytree(finished, other)
    result = json.loads((other / "evaluation.json").read_text())
    (other / "evaluation.json").write_text(json.dumps(result | {"accuracy": 0.25}))
    capsys.readouterr()
    assert run("compare", finished, other) == 0
    text = capsys.readouterr().out.replace("\\|", "/")
    header, _, first, second, real = rows_of(text)
    assert len({len(row) for row in rows_of(text)}) == 1
    assert first[header.index("run")] == str(finished)
    assert second[header.index("run")] == str(other).replace("|", "/")
    assert second[header.index("accuracy")] == "0.2500"
    assert second[header.index("MLP")] == first[header.index("MLP")]
    assert first[header.index("public")] == f"{result['public_distances']['frechet']:.2f}"
    assert real[header.index("accuracy")] == f"{result['accuracy_real']:.4f}"  # one row for both
    assert run("compare", finished, other, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    privacy = json.loads((finished / "privacy.json").read_text())
    metrics = (finished / "metrics.jsonl").read_text().splitlines()
    assert [f["accuracy"] for f in found] == [result["accuracy"], 0.25]
    assert found[0]["epsilon_site"] == privacy["epsilon_site"]
    assert found[0]["training_seconds"] == sum(json.loads(line)["seconds"] for line in metrics)
    assert found[0]["model"] is None  # changed by overrides: it goes by its phases
    assert found[0]["phases"] == [phase["name"] for phase in privacy["phases"]]
    assert "public:" not in table(found)
    assert ", public: fonts |" in table([found[0] | {"public_data": ["fonts"]}])


def test_all_that_is_missing_is_named_at_once(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(finished, bare)
    (bare / "evaluation.json").unlink()
    assert run("compare", finished, bare, tmp_path / "nowhere") == RunFolderError.exit_code
    shown = "".join(capsys.readouterr().err.split())
    for path in ("bare/evaluation.json", "nowhere/config.yaml", "nowhere/metrics.jsonl"):
        assert path in shown
    assert "bare/privacy.json" not in shown
    assert f"dppmevaluate{bare}" in shown


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("evaluation.json", '{"dataset": "tiny"}', "distances"),
        ("privacy.json", "{}", "phases"),
        ("metrics.jsonl", '{"phase": "means"}\n', "seconds"),
    ],
)
def test_damaged_files_are_refused(
    finished: Path, file: str, content: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / file).write_text(content)
    assert run("compare", finished) == RunFolderError.exit_code
    assert says.replace(" ", "") in "".join(capsys.readouterr().err.split())
