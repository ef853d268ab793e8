"""The report and the live page without a browser: what they say, refuse, and never read."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from deploy.pages import live_server
from deploy.pages import report as report_module
from deploy.pages.live_server import PageApp
from deploy.pages.live_state import LiveState
from deploy.pages.peers import peers_of
from deploy.pages.prometheus import exposition
from deploy.pages.run_summary import STATES, RunSummary
from deploy.pages.watch import beside
from deploy.show import epsilon_text
from dppm_model.config import read_config
from dppm_model.errors import ConfigError, RunFolderError, ServiceError
from dppm_model.run import Run
from tests.conftest import run
from tests.support.mutations import twin

ROOT = Path(__file__).parents[3]
TOKEN = "a-token-that-is-long-enough"


@twin(
    "the public report shows real records",
    "deploy.pages.report:render",
    lambda old: lambda template, **kw: old(template, **{**kw, "pairs": kw.get("sheets")}),
)
def test_the_report_says_what_the_run_promised(finished: Path) -> None:
    assert run("report", finished) == 0
    text = (finished / "report.html").read_text()
    privacy = json.loads((finished / "privacy.json").read_text())
    for view in ("secure_sum", "site"):
        assert f">{epsilon_text(privacy[f'epsilon_{view}'])}<" in text
    assert privacy["plan"] in text
    assert "dppm simulate runs/first data=tiny" in re.sub(r"\s+", " ", text)
    assert "SHOWS REAL RECORDS" not in text
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)  # it requests nothing
    assert "<script" not in text
    assert Run(finished).sessions.read_text().count("\n") == 1
    assert json.loads(Run(finished).sessions.read_text())["dppm"] in text


def test_names_cannot_leave_the_page(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "<script>alert(1)</script>"
    config = read_config(Run(finished).config)
    named = config.replace(facts=config.facts.replace(classes=[evil, '"><b>']))
    monkeypatch.setattr(RunSummary, "config", named)
    summary = replace(RunSummary.of(Run(finished)), error=evil, state="failed")
    content = report_module.content(summary, None, public=False)
    page = report_module.render("report.html", **content, pairs=None)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page


def test_the_machine_need_not_have_the_data(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the server of a federation: of the sites' data it knows the name only."""
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "empty"))
    assert report_module.write_reports(Run(finished), public=False) == [finished / "report.html"]
    with beside(Run(finished), "127.0.0.1:0"):
        assert RunSummary.of(Run(finished)).config.class_names == ("a", "b")


def test_a_report_needs_a_run(tmp_path: Path, finished: Path) -> None:
    assert run("report", tmp_path) == RunFolderError.exit_code
    metrics = finished / "metrics.jsonl"
    first = json.loads(metrics.read_text().splitlines()[0])
    metrics.write_text(json.dumps({k: v for k, v in first.items() if k != "noise_norm"}) + "\n")
    assert run("report", finished) == RunFolderError.exit_code
    metrics.unlink()
    assert run("report", finished) == RunFolderError.exit_code
    assert not (finished / "report.html").exists()


def test_an_unfinished_run_is_shown_as_such(finished: Path) -> None:
    Run(finished).status.write_text('{"state": "running"}')  # and nobody trains it
    Run(finished).model.unlink()
    assert RunSummary.of(Run(finished)).state == "stopped"
    assert run("report", finished, "--public") == 0
    text = (finished / "report.html").read_text()
    assert "This run is not finished: stopped" in text
    assert "What the images are worth" not in text
    assert not (finished / "private" / "report.html").exists()


def test_peers_that_we_measured_are_those_of_the_benchmark() -> None:
    """Each figure of `ours` is in results/, and each result of a peer is in the table.

    Flower's server-side DP is left out: it protects whole sites, so its epsilon is another.
    """
    names = {"dp_merf": "DP-MERF", "dpsgd": "DP-SGD (Opacus)"}
    found = set()
    for path in sorted((ROOT / "tests" / "benchmarks" / "results").glob("peers-*.json")):
        figures = json.loads(path.read_text())["figures"]
        for method, facts in figures["methods"].items():
            if method in names:
                value = round(facts["evaluation"]["accuracy"], 3)
                found.add((figures["data"], figures["epsilon"], names[method], value))
    listed = {
        (data, p.epsilon, p.method, p.accuracy)
        for data in ("mnist", "fashion-mnist")
        for epsilon in (1, 10)
        for p in peers_of(data, epsilon)
        if p.measured_by == "this project"
    }
    assert listed == found
    assert peers_of("mnist", 9.993)
    assert not peers_of("mnist", 5)
    assert not peers_of("scans", 10)


def client(folder: Path) -> TestClient:
    app = PageApp(LiveState(Run(folder), rest=0), ["testserver"], None)
    return TestClient(app, raise_server_exceptions=False)


def test_another_page_cannot_read_it_by_a_name_of_its_own(finished: Path) -> None:
    page = client(finished)
    assert page.get("/state.json").status_code == 200
    assert page.get("/state.json", headers={"host": "evil.example"}).status_code == 400
    headers = page.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_outsiders_need_tls_and_tokens(finished: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"ward {TOKEN}\n")
    for more in ([], ["--token-file", tokens], ["--tls-cert", tokens, "--tls-key", tokens]):
        code = run("watch", finished, "--address", "0.0.0.0:0", *more)
        assert code == ConfigError.exit_code
    assert run("watch", finished, "--tls-cert", tokens) == ConfigError.exit_code
    assert run("watch", finished, "--address", "nonsense") == ConfigError.exit_code
    assert run("watch", tmp_path) == RunFolderError.exit_code


@twin(
    "the live page reads a site's own files",
    "deploy.pages.run_summary:RunSummary.of",
    lambda old: classmethod(
        lambda cls, run: (next(run.sites.glob("*/ledger.jsonl")), old.__func__(cls, run))[1]
    ),
)
def test_the_page_follows_the_run_and_reads_nothing_of_a_site(finished: Path) -> None:
    shutil.rmtree(finished / "sites")
    (finished / "sites").mkdir()  # no site's file can be read
    live = LiveState(Run(finished), rest=0)
    before = live.content()
    assert live.content() is before  # nothing has changed: nothing is drawn again
    metrics = finished / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    metrics.write_text("\n".join(lines[:-1]) + "\n")
    after = live.content()
    old, new = (json.loads(found["/state.json"][1]) for found in (before, after))
    assert old["page"] != new["page"]
    last = json.loads(lines[-2])
    for view in ("secure_sum", "site"):
        card = f'id="epsilon-{view.replace("_", "-")}">'
        shown = f"{card}{epsilon_text(last[f'epsilon_{view}'])}<".encode()
        assert new[f"epsilon_{view}"]["spent"] == last[f"epsilon_{view}"]
        assert shown in after["/"][1]
        assert shown not in before["/"][1]


def test_a_damaged_file_is_reported_and_does_not_end_the_page(finished: Path) -> None:
    page = client(finished)
    assert page.get("/state.json").status_code == 200
    status = finished / "status.json"
    status.write_text("{")
    answer = page.get("/state.json")
    assert answer.status_code == 503
    assert "status.json" in answer.json()["message"]
    status.write_text('{"state": "finished"}')
    assert page.get("/state.json").status_code == 200


def test_a_broken_page_stops_no_training(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ServiceError("It cannot be served.", "Take another port.")

    monkeypatch.setattr(live_server, "live_page", refused)
    trained = False
    with beside(Run(finished), "127.0.0.1:0"):
        trained = True
    assert trained


def test_metrics_are_the_runs_and_documented(finished: Path) -> None:
    summary = RunSummary.of(Run(finished))
    text = exposition("first", summary.to_json() | {"sites_online": 2}).decode()
    values = dict(re.findall(r"^(dppm_.+) (\S+)$", text, re.MULTILINE))
    assert float(values['dppm_rounds_total{run="first"}']) == len(summary.rounds)
    spent = values['dppm_epsilon_spent{run="first",view="site"}']
    assert float(spent) == summary.rounds[-1]["epsilon_site"]
    assert float(values['dppm_sites_online{run="first"}']) == 2
    states = {s: float(values[f'dppm_state{{run="first",state="{s}"}}']) for s in STATES}
    assert states == {s: float(s == "finished") for s in STATES}
    exported = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    documented = set(re.findall(r"`(dppm_[a-z_]+)", (ROOT / "deploy" / "README.md").read_text()))
    assert exported == documented
