"""The files of the kits, as far as they can be checked without running what reads them."""

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from deploy.kit.federation import init_server
from deploy.kit.preflight import CHECKS

DEPLOY = Path(__file__).parents[3] / "deploy"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin")


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    fed = tmp_path / "fed"
    init_server(fed, "demo", "localhost:18643", "127.0.0.1:18643", 18644, [])
    command = [str(NGINX), "-t", "-p", str(fed), "-c", "nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = (fed / "nginx.conf").read_text()
    assert "@" not in text and text.count("proxy_pass") == 1  # nothing but the fleet


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", ["dppm-site.service", "dppm-server@.service"])
def test_systemd_takes_the_units(tmp_path: Path, name: str) -> None:
    text = (DEPLOY / "systemd" / name).read_text().replace("/opt/dppm/.venv/bin/dppm", "/bin/true")
    unit = tmp_path / name.replace("@", "@first")
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_ray_takes_the_cluster_file() -> None:
    schema = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text())
    cluster = yaml.safe_load((DEPLOY / "ray" / "cluster.yaml").read_text())
    assert cluster.keys() <= schema["properties"].keys()
    assert set(schema["required"]) <= cluster.keys()


def test_compose_builds_what_is_there() -> None:
    compose = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())
    assert compose["services"].keys() == {"server", "site"}
    for service in compose["services"].values():
        assert (DEPLOY.parent / service["build"]["dockerfile"]).is_file()
    text = (DEPLOY / "container" / "Containerfile").read_text()
    for line in text.splitlines():
        if line.startswith("COPY"):
            assert all((DEPLOY.parent / name).exists() for name in line.split()[1:-1])


def test_the_page_for_operators_knows_the_exit_codes() -> None:
    text = (DEPLOY / "README.md").read_text()
    codes = [check.exit_code for check in CHECKS]
    assert f"{min(codes)} to {max(codes)}" in text and codes == sorted(codes)
