"""The bundle that Flower ships to the sites holds code of three packages and nothing else."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

from deploy.flower import stage_app
from deploy.import_closure import PACKAGES

ROOT = Path(__file__).parents[2]


def _build(app: Path) -> set[str]:
    """Build with Flower's own code, in a process of its own, and list the archive."""
    code = (
        "import sys; from pathlib import Path; from flwr.cli.build import build_fab_from_disk;"
        "sys.stdout.buffer.write(build_fab_from_disk(Path(sys.argv[1])))"
    )
    built = subprocess.run(
        [sys.executable, "-c", code, str(app)], capture_output=True, check=True, cwd=app
    )
    return set(zipfile.ZipFile(io.BytesIO(built.stdout)).namelist())


def test_only_the_three_packages_travel(tmp_path: Path) -> None:
    app = stage_app(tmp_path)
    (app / "secret_data.json").write_text("{}")
    (app / "dppm_model" / "patients.json").write_text("{}")
    (app / "dppm_model" / "patients.yaml").write_text("")
    (app / "runs").mkdir()
    (app / "runs" / "model.toml").write_text("")
    names = _build(app)
    folders = {n.split("/")[0] for n in names if "/" in n and not n.startswith(".info")}
    assert folders == set(PACKAGES)
    assert not [n for n in names if n.endswith((".json", ".md", ".yaml")) or "runs" in n]
    assert not [n for n in names if n.endswith(".safetensors")]  # `Run.initial` has the weights
    assert {"client/app.py", "server/app.py", "dppm_model/plan.py"} <= names


def test_without_the_whitelist_the_stray_file_would_travel(tmp_path: Path) -> None:
    app = stage_app(tmp_path)
    (app / "secret_data.json").write_text("{}")
    project = app / "pyproject.toml"
    lines = project.read_text().splitlines()
    project.write_text("\n".join(line for line in lines if not line.startswith("fab-include")))
    assert "secret_data.json" in _build(app)
