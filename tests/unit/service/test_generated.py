"""The generated files are those of `sampling.proto`, and the client stays light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GENERATED = ("sampling_pb2.py", "sampling_pb2.pyi")


def test_generated_files_are_up_to_date(tmp_path: Path) -> None:
    protoc = pytest.importorskip("grpc_tools.protoc")
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi")]
    source = "sampler/service/sampling.proto"
    assert protoc.main(["protoc", f"-I{ROOT}", *outputs, str(ROOT / source)]) == 0
    for name in GENERATED:
        made = (tmp_path / "sampler" / "service" / name).read_text()
        assert made == (ROOT / "sampler" / "service" / name).read_text(), "run `make proto`"


def test_the_client_needs_neither_torch_nor_ray() -> None:
    code = "import sys, sampler.service.client; sys.exit(bool({'torch', 'ray'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
