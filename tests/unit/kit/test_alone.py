"""The folders of server and site after kills, and under two commands at once; and what is whole."""

import os
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from deploy.kit import federation
from deploy.kit.announcement import Announcement
from deploy.kit.bundle import build_bundle, differences, digest_of, files_of
from deploy.kit.code_allowlist import bundle_file, bundle_folder, is_whole
from deploy.kit.federation import check_enrolment, enrol, enrolled
from deploy.kit.locks import alone, changing
from deploy.kit.server_supervisor import ServerSupervisor
from deploy.kit.site import Proposal
from deploy.kit.site_supervisor import SiteSupervisor
from dppm_model.errors import ConfigError, EnrolmentError, InUse, RunFolderError
from dppm_model.folders import held
from tests.support.fault_injection import dying, ended, forked, left_over
from tests.support.mutations import twin
from tests.unit.kit.conftest import announce, init_server, init_site, typed


@pytest.mark.parametrize("nth", [1, 3, 5])
def test_a_folder_whose_making_was_killed_is_remade(fed: Path, tmp_path: Path, nth: int) -> None:
    """A server, a site, an announcement: in the middle of each, by the same command."""
    server, site, invitation = tmp_path / "server", tmp_path / "site", fed / "invitation.json"
    run = fed / "runs" / "first"
    for folder, make in (
        (server, lambda: init_server(server)),
        (site, lambda: init_site(site, invitation)),
        (run, lambda: announce(fed, "first")),
    ):

        def work() -> None:
            with dying("written", nth):
                make()  # noqa: B023

        assert ended(forked(work)) == -9
        assert (folder / ".making").exists()
        assert make() == 0
        assert not left_over(folder) and not (folder / ".making").exists()
        assert make() in (ConfigError.exit_code, RunFolderError.exit_code)


@twin(
    "locks exclude nobody: two processes prepare one folder",
    "dppm_model.locks:lock",
    lambda _: lambda handle, path, how=0: True,
)
def test_two_at_once_make_one_folder(fed: Path, tmp_path: Path) -> None:
    invitation = fed / "invitation.json"
    for folder, make, last, busy in (
        (tmp_path / "server", init_server, "server.toml", InUse),
        (tmp_path / "site", lambda f: init_site(f, invitation), "enrolment.json", InUse),
        (fed / "runs" / "a", lambda _: announce(fed, "a"), "plan.json", RunFolderError),
    ):
        folder.mkdir()
        with held(folder / ".making"):
            assert make(folder) == busy.exit_code
            assert [p.name for p in folder.iterdir()] == [".making"]
        assert make(folder) == 0 and (folder / last).exists()


def test_a_folder_is_changed_by_one_command_at_a_time(fed: Path, tmp_path: Path) -> None:
    assert announce(fed, "first") == 0
    paper = fed / "runs" / "first" / "announcement.zip"
    late, site = tmp_path / "late", tmp_path / "site-0"
    assert init_site(late, fed / "invitation.json") == 0
    with changing(fed):
        assert announce(fed, "second") == InUse.exit_code
        words = ("server", "enrol", fed, late / "enrolment.json", "--yes")
        assert typed(*words) == InUse.exit_code
    assert "late" not in enrolled(fed) and not (fed / "runs" / "second").exists()
    with changing(site):
        assert typed("site", "approve", site, paper, "--yes") == InUse.exit_code
    assert not (site / "approvals").exists()
    with alone(fed, "server"), alone(site, "site"):  # a running process is no hindrance
        assert typed(*words) == 0
        assert typed("site", "approve", site, paper, "--yes") == 0


def test_an_enrolment_made_while_the_operator_was_asked_counts(fed: Path, tmp_path: Path) -> None:
    thief, other = tmp_path / "thief" / "late", tmp_path / "late"
    for folder in (thief, other):
        assert init_site(folder, fed / "invitation.json") == 0
    paper = check_enrolment(fed, other / "enrolment.json")
    enrol(fed, check_enrolment(fed, thief / "enrolment.json"))
    with pytest.raises(EnrolmentError, match="late"):
        enrol(fed, paper)


def test_a_refused_process_takes_no_secret_of_the_other(fed: Path, tmp_path: Path) -> None:
    site = tmp_path / "site-0"
    node, link = SiteSupervisor(site, print), ServerSupervisor(fed, print)
    secrets = [site / "flower" / "superexec.secret", fed / "flower" / "superexec.secret"]
    for path in (*secrets, fed / "flower" / "config.toml"):
        path.write_text("of the one that runs")
    with alone(site, "site"), alone(fed, "server"):
        with pytest.raises(InUse):
            node.run()
        with pytest.raises(InUse), link.up():
            pass
    for path in (*secrets, fed / "flower" / "config.toml"):
        assert path.read_text() == "of the one that runs"


@pytest.mark.parametrize("verb", ["status", "ledger", "approve", "preflight"])
def test_every_command_of_a_site_sweeps_its_folder(fed: Path, tmp_path: Path, verb: str) -> None:
    site = tmp_path / "site-0"
    for place in (site, site / "sums", site / "reports" / "first"):
        place.mkdir(parents=True, exist_ok=True)
        (place / ".r.json.new").write_text("a seed")
    more = {"ledger": ["verify"], "approve": [tmp_path / "nowhere.zip", "--yes"]}
    typed("site", verb, site, *more.get(verb, []))
    assert not left_over(site)


def away(path: Path, outside: Path) -> None:
    """Leave a link where something was."""
    path.rename(outside)
    path.symlink_to(outside)


# What may be wrong of a bundle's folder and file.
SPOILT: dict[str, Callable[[Path, Path, Path], object]] = {
    "changed": lambda f, b, out: (f / "client" / "site.py").write_text("import os"),
    "a file more": lambda f, b, out: (f / "client" / "extra.py").write_text("import os"),
    "compiled": lambda f, b, out: (f / "client" / "site.cpython-311.pyc").write_bytes(b"x"),
    "the bundle is changed": lambda f, b, out: b.write_bytes(b.read_bytes() + b"x"),
    "link to a file": lambda f, b, out: (f / "client/more.py").symlink_to(f / "client/app.py"),
    "link to the same file": lambda f, b, out: away(f / "client" / "app.py", out),
    "link to a folder": lambda f, b, out: away(f / "client", out),
    "dangling": lambda f, b, out: (f / "numpy").symlink_to(out),
    "fifo": lambda f, b, out: os.mkfifo(f / "client" / "torch.py"),
    "empty folder": lambda f, b, out: (f / "torch").mkdir(),
    "hidden file": lambda f, b, out: (f / ".pth").touch(),
    "file for a folder": lambda f, b, out: (f / "client" / "x.py").mkdir(),
    "the folder is a link": lambda f, b, out: away(f, out),
    "the bundle is a link": lambda f, b, out: away(b, out),
    "the bundle is a fifo": lambda f, b, out: (b.unlink(), os.mkfifo(b)),
    "no folder": lambda f, b, out: f.rename(out),
    "no bundle": lambda f, b, out: b.unlink(),
    "the bundle is a folder": lambda f, b, out: (b.unlink(), b.mkdir()),
}


@twin(
    "an approved bundle is run though its files were changed since",
    "deploy.kit.code_allowlist:is_whole",
    lambda _: lambda folder, digest: True,
    only="[changed]",
)
@twin(
    "a bundle counts as whole though its file is a link",
    "deploy.kit.code_allowlist:read_bytes",
    lambda old: lambda path, **_: old(path),
    only="[the bundle is a link]",
)
@pytest.mark.parametrize("what", SPOILT)
def test_only_what_was_approved_is_whole(fed: Path, tmp_path: Path, what: str) -> None:
    assert announce(fed, "first") == 0
    site, outside = tmp_path / "site-0", tmp_path / "outside"
    announcement = Announcement.read(fed / "runs" / "first" / "announcement.zip")
    Proposal(site, announcement).approve()
    digest = digest_of(announcement.bundle)
    assert is_whole(site, digest)
    SPOILT[what](bundle_folder(site, digest), bundle_file(site, digest), outside)
    assert not is_whole(site, digest)
    Proposal(site, announcement).approve()  # mends it
    assert is_whole(site, digest)
    if outside.is_dir():
        assert any(outside.iterdir())  # and removes nothing that a link led to


def rebuilt(bundle: bytes, **changes: bytes) -> bytes:
    """A bundle with other contents, by Flower's own way of listing them or with a false list."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in (files_of(bundle) | changes).items():
            archive.writestr(name, content)
    return buffer.getvalue()


@twin(
    "an operator is not shown that a bundle's pyproject.toml differs",
    "deploy.kit.bundle:differences",
    lambda old: lambda bundle: (d for d in old(bundle) if d[0] != "pyproject.toml"),
)
def test_all_that_a_bundle_holds_is_compared() -> None:
    bundle = build_bundle()
    assert not list(differences(bundle))
    project = files_of(bundle)["pyproject.toml"]
    assert [*differences(rebuilt(bundle, **{"pyproject.toml": project + b"\n[tool.x]\n"}))] == [
        (".info/CONTENT", "changed"),  # it is not of these files
        ("pyproject.toml", "changed"),
    ]
    false = {".info/CONTENT": b"#!/bin/sh\n"}
    assert [*differences(rebuilt(bundle, **false))] == [(".info/CONTENT", "changed")]


def test_a_bundle_that_holds_a_name_twice_is_refused() -> None:
    buffer = BytesIO(build_bundle())
    with zipfile.ZipFile(buffer, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("client/app.py", "import os")
    with pytest.raises(EnrolmentError, match="twice"):
        files_of(buffer.getvalue())


def test_a_failed_announcement_leaves_nothing(fed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(federation.Announcement, "write", full)
    assert announce(fed, "first") != 0
    assert not (fed / "runs" / "first").exists()
