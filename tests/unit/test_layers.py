"""The floor plan holds: imports go downwards only, Flower and Ray stay in their rooms."""

from pathlib import Path

import pytest

from tests.support.documents import ROOT, imports

ALLOWED = {
    "dppm_model": set(),
    "client": {"dppm_model"},
    "server": {"dppm_model"},
    "sampler": {"dppm_model"},
    "deploy": {"dppm_model", "client", "server", "sampler"},
}
# Inside dppm_model: a module may import from lower floors (and its own) only.
FLOORS = [
    {"errors", "bounds", "device", "files", "folders", "locks", "progress", "reading", "settings"}
    | {"fault_points", "optional"},
    {"mechanism", "privacy", "records", "aggregation"},
    {"score"},
    {"phase", "plan"},
    {"planning", "requests", "round", "budget", "batch_invariance", "securesum"},
    {"planner", "audit", "training"},
    {"run", "config"},
    {"public"},
]


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_downwards_only(package: str) -> None:
    for path in files(package):
        ours = {name.split(".")[0] for name in imports(path)} & ALLOWED.keys()
        assert ours - {package} <= ALLOWED[package], path


def test_floors_of_dppm_model() -> None:
    level = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for path in files("dppm_model"):
        own = path.relative_to(ROOT / "dppm_model").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for name in imports(path):
            if name.startswith("dppm_model."):
                other = name.split(".")[1]
                assert level[other] <= level[own], f"{path} imports {name}"


def test_the_ground_floor_knows_neither_flower_nor_ray() -> None:
    for path in files("dppm_model"):
        assert not {n.split(".")[0] for n in imports(path)} & {"flwr", "ray"}, path


def test_ray_is_in_one_file_only() -> None:
    users = {p.name for p in files("sampler") if "ray" in {n.split(".")[0] for n in imports(p)}}
    assert users <= {"pool.py"}
