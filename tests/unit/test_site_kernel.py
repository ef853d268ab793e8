"""The site's kernel: what `client.app` imports is all that a site has to read and to trust."""

import subprocess
import sys

from deploy.import_closure import APPS, closure, digest, installed, lines
from deploy.kit.bundle import build_bundle, files_of, part_of
from dppm_model.score.phases import PHASES
from tests.support.documents import ROOT

MOST_LINES = 11_640
SERVER_ONLY = ("training", "planner", "planner_directions", "requests", "config", "run", "audit")


def loaded(module: str) -> set[str]:
    """Return the files of ours that are loaded after an import, in a process of its own."""
    listed = "print(*(getattr(m, '__file__', '') or '' for m in sys.modules.values()))"
    code = f"import sys, {module}; {listed}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    root = f"{ROOT}/"
    files = (name.removeprefix(root) for name in done.stdout.split() if name.startswith(root))
    return {name for name in files if not name.startswith(".venv")}


def test_a_site_reads_nothing_of_the_servers() -> None:
    kernel = closure(installed(), *APPS["site"])
    assert not [name for name in kernel if name.split("/")[0] not in ("client", "dppm_model")]
    parts = {name.split("/")[1].removesuffix(".py") for name in kernel}
    assert not parts & set(SERVER_ONLY)
    server = closure(installed(), *APPS["server"])  # the twin
    learners = {
        kind.learner.partition(":")[0].replace(".", "/") + ".py" for kind in PHASES.values()
    }
    assert len(learners) > 2 and learners <= server.keys()


def test_the_closure_holds_what_is_really_loaded() -> None:
    for module, *more in APPS.values():
        found = loaded(module)
        assert len(found) > 20 and found <= closure(installed(), module, *more).keys()


def test_the_bundle_is_what_its_two_apps_import_and_no_more() -> None:
    bundle, files = build_bundle(), installed()
    parts = {app: part_of(bundle, app) for app in APPS}
    assert parts == {app: closure(files, *modules) for app, modules in APPS.items()}
    both = parts["site"].keys() | parts["server"].keys()
    assert files_of(bundle).keys() - both == {"pyproject.toml", ".info/CONTENT"}


def test_a_closure_follows_functions_packages_and_names() -> None:
    files = {
        "a/__init__.py": b"",
        "a/b.py": b"def f():\n    from a.c import d\n    import a.e\n",
        "a/c/__init__.py": b"import a.g",
        "a/c/d.py": b"",
        "a/e.py": b"this is no Python",
        "a/g.py": b"import numpy\nfrom . import h",
        "a/h.py": b"",
    }
    found = closure(files, "a.b")
    assert list(found) == [
        "a/__init__.py",
        "a/b.py",
        "a/c/__init__.py",
        "a/c/d.py",
        "a/e.py",
        "a/g.py",
    ]
    assert lines(found) == 4 and digest(found) != digest({**found, "a/e.py": b""})


def test_the_kernel_is_short() -> None:
    kernel = closure(installed(), *APPS["site"])
    assert lines(kernel) <= MOST_LINES, sorted(kernel, key=lambda name: -len(kernel[name]))[:20]
