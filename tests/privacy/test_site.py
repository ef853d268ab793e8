"""A site: debit before data, one answer a round, limits that the server cannot raise."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client import app
from client import site as module
from client.approvals import BUNDLE, Approval, approval_file
from client.policy import Policy
from client.securesum import SecureSumSite
from client.site import Site
from deploy.simulate import plan_of, resolve
from dppm_model.config import Config, initial_model
from dppm_model.errors import (
    BudgetExhausted,
    ConfigError,
    LedgerError,
    ModelError,
    NotApproved,
    PlanError,
    PolicyError,
    TooFewSurvivors,
)
from dppm_model.plan import Plan
from dppm_model.planner import epsilons
from dppm_model.privacy.ledger import Ledger
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import read_question, write_question
from dppm_model.score.unit_batches import map_blocks
from dppm_model.securesum.masks import TRIES
from tests.conftest import TINY
from tests.support.mutations import nothing, twin
from tests.support.plan_factory import with_mechanism
from tests.support.policy_factory import policy
from tests.support.secure_sum import identities
from tests.support.seeded_rng import SeededRNG

JOIN = {"join": {"nonce": bytes(32)}}


@pytest.fixture
def config(tiny: Path) -> Config:
    return resolve(TINY)


@pytest.fixture
def plan(config: Config) -> Plan:
    return plan_of(config, "run-a")


@pytest.fixture
def question(config: Config) -> bytes:
    """The arrays that a server sends with the first rounds."""
    return write_question("means", initial_model(config))


NOW = datetime.now()
AT_ANOTHER_HOUR = f"{NOW + timedelta(hours=2):%H:%M}-{NOW + timedelta(hours=3):%H:%M}"


def approve(folder: Path, *plans: Plan) -> None:
    peers = {str(i): identity.public for i, identity in enumerate(identities(3))}
    for plan in plans:
        Approval(plan, peers, bundle="", note="").write(folder)


def make_site(folder: Path, tiny: Path, limit: float = 100.0) -> Site:
    folder.mkdir(parents=True, exist_ok=True)
    policy(str(tiny / "tiny" / "train"), limit, 3).write(folder / "site.toml")
    made = identities(3)
    made[0].write(folder / "identity.key")
    return Site(folder, SeededRNG(str(folder)))


@pytest.fixture
def site(tmp_path: Path, tiny: Path, plan: Plan) -> Site:
    """A site whose operator has approved the plan."""
    approve(tmp_path, plan)
    return make_site(tmp_path, tiny)


def join(site: Site, plan: Plan) -> None:
    SecureSumSite(site, plan).handle("query.join", JOIN)


def asks(site: Site, question: bytes = b"") -> list[Callable[[Plan], object]]:
    """All that a server may ask of a site for a plan."""
    return [
        lambda plan: join(site, plan),
        lambda plan: SecureSumSite(site, plan).prepare(0, {}),
        lambda plan: SecureSumSite(site, plan).report(0, 0, question, {}),
        lambda plan: SecureSumSite(site, plan).reveal(0, {}, {}),
    ]


def _fresh_on_resend(old: Any) -> Any:
    def answer(self: Any, *args: Any) -> Any:
        for path in self.folder.glob("reports/*/*.npy"):
            path.unlink()
        return old(self, *args)

    return answer


@twin(
    "reports leave without a debit",
    "dppm_model.privacy.ledger:Ledger.debit",
    lambda _: lambda self, entry: True,
)
@twin("a repeated question draws new coins", "client.site:Site.answer", _fresh_on_resend)
def test_the_same_round_gives_the_same_bits_and_costs_once(
    tmp_path: Path, tiny: Path, site: Site, plan: Plan, question: bytes
) -> None:
    first = site.answer(plan, 0, 0, question)
    again = Site(tmp_path, SeededRNG("other coins")).answer(plan, 0, 0, question)
    np.testing.assert_array_equal(first, again)
    assert len(site.ledger.debits) == 1
    # Twin: without the stored report the same site would answer with fresh coins.
    fresh = make_site(tmp_path / "twin", tiny)
    assert not np.array_equal(first, fresh.answer(plan, 0, 0, question))


class _Asked:
    """A question that notes how many records were sampled, which nobody may know."""

    def __init__(self, query: Any) -> None:
        self.query, self.count = query, 0
        self.view = query.view

    def __getattr__(self, name: str) -> Any:
        return getattr(self.query, name)

    def clipped_sum(self, x: torch.Tensor, *rest: Any) -> Any:
        self.count += len(x)
        return self.query.clipped_sum(x, *rest)


def _count_leaks(old: Any) -> Any:
    def report(records: Any, query: Any, *rest: Any) -> Any:
        asked = _Asked(query)
        tallies = old(records, asked, *rest)
        return tallies if asked.count else tallies[:-1]

    return report


@twin("the shape of a report reveals an empty sample", "dppm_model.round:report", _count_leaks)
def test_a_report_of_nobody_has_the_same_shape(site: Site, plan: Plan, question: bytes) -> None:
    phases = tuple(replace(p, sampling_rate=1e-9) for p in plan.phases)
    tallies = site.answer(replace(plan, phases=phases), 0, 0, question)
    assert tallies.shape == (plan.phases[0].rotation.padded,)
    assert tallies.max() <= plan.phases[0].max_count


def _debit_after(old: Any) -> Any:
    def answer(self: Any, *args: Any) -> Any:
        entries: list[Any] = []
        debit, self.ledger.debit = self.ledger.debit, entries.append
        try:
            found = old(self, *args)
        finally:
            self.ledger.debit = debit
        for entry in entries:
            debit(entry)
        return found

    return answer


@twin("the debit is written after the data are read", "client.site:Site.answer", _debit_after)
def test_a_debit_is_on_disk_before_data_are_read(
    tmp_path: Path, site: Site, plan: Plan, question: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "report", crash)
    with pytest.raises(KeyboardInterrupt):
        site.answer(plan, 0, 0, question)
    assert len(Ledger(tmp_path / "ledger.jsonl").debits) == 1
    assert not list(tmp_path.rglob("*.npy"))
    monkeypatch.undo()
    # The report was never released, so the round may be answered now, for the same debit.
    site.answer(plan, 0, 0, question)
    assert len(site.ledger.debits) == 1


def test_a_round_whose_report_was_given_up_is_not_answered_again(
    site: Site, plan: Plan, question: bytes
) -> None:
    site.answer(plan, 0, 0, question)
    site.answer(plan, 0, 1, question)
    with pytest.raises(PlanError, match="already answered"):
        site.answer(plan, 0, 0, question)


def test_one_run_cannot_push_out_the_report_of_another(
    tmp_path: Path, tiny: Path, plan: Plan, question: bytes
) -> None:
    """A server that names runs cleverly must not make a site forget a report and answer again."""
    site = make_site(tmp_path, tiny, limit=1e6)
    inner = replace(plan, run="run-a-b")
    first = site.answer(inner, 0, 0, question)
    site.answer(plan, 0, 0, question)
    np.testing.assert_array_equal(first, site.answer(inner, 0, 0, question))


@twin(
    "a report leaves as soon as it is made",
    "client.app:constant_time_release",
    lambda _: lambda _seconds: contextlib.nullcontext(),
    only="[False]",
)
@pytest.mark.parametrize("fails", [False, True])
def test_reports_leave_at_fixed_times(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """A report that takes 0.1 s, 4.9 s or, once too long, 7 s; also one that fails."""
    now, left = [100.0], []
    monkeypatch.setattr(app.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(app.time, "sleep", lambda s: left.append(now[0] + s - 100.0))
    for work in (0.1, 4.9, 7.0):
        now[0] = 100.0
        with contextlib.suppress(ValueError), app.constant_time_release(5.0):
            now[0] += work
            if fails:
                raise ValueError
    assert left == pytest.approx([5.0, 5.0, 10.0])


@twin("a plan may change during a run", "client.site:Site._check_plan", nothing)
def test_a_plan_cannot_change_in_mid_run(site: Site, plan: Plan, question: bytes) -> None:
    join(site, plan)  # the run has its keys: only the plan is wrong below
    site.answer(plan, 0, 0, question)
    phases = (with_mechanism(plan.phases[0], truth_strength=0.4), *plan.phases[1:])
    for ask in asks(site, question):
        with pytest.raises(PlanError, match="begun under plan"):
            ask(replace(plan, phases=phases))


def test_the_digest_of_a_plan_covers_every_field(plan: Plan) -> None:
    first = plan.phases[0]
    rest = plan.phases[1:]
    changed = [
        *(replace(plan, **{name: value}) for name, value in (("run", "b"), ("seed", "ff"))),
        replace(plan, delta=plan.delta / 2),
        *(replace(plan, unit="person", records_per_person=most) for most in (1, 2)),
        *(
            replace(plan, phases=(replace(first, **{name: getattr(first, name) / 2}), *rest))
            for name in ("clip_norm", "sampling_rate", "tail")
        ),
        *(
            replace(plan, phases=(replace(first, **{name: getattr(first, name) + 1}), *rest))
            for name in ("rounds", "dimension", "records")
        ),
        *(
            replace(plan, phases=(with_mechanism(first, **{name: value}), *rest))
            for name, value in (("range_", 9.0), ("truth_strength", 0.3), ("responses", 1))
        ),
        replace(plan, phases=(replace(first, name="means-second"), *rest)),
    ]
    digests = {p.digest for p in (plan, *changed)}
    assert len(digests) == len(changed) + 1
    written = json.loads(plan.to_json())
    assert set(written) == {f.name for f in fields(plan)}
    parameters = {f.name.rstrip("_") for f in fields(first.mechanism)}
    assert set(written["phases"][0]) == {f.name for f in fields(first)} | parameters


def test_rounds_outside_the_plan_are_refused(site: Site, plan: Plan, question: bytes) -> None:
    for phase, round_ in ((99, 0), (0, 99), (-1, 0), (0, -1)):
        with pytest.raises(PlanError, match="not in the plan"):
            SecureSumSite(site, plan).report(phase, round_, question, {})
    for number in (-1, plan.rounds * TRIES):
        with pytest.raises(PlanError, match="not in the plan"):
            SecureSumSite(site, plan).prepare(number, {})
    assert site.ledger.debits == ()


@twin(
    "the round that passes the limit is answered",
    "dppm_model.budget:affordable_rounds",
    lambda old: cache(lambda *args: old(*args) + 1),
)
def test_the_limit_stops_the_run(tmp_path: Path, tiny: Path, plan: Plan, question: bytes) -> None:
    one, two = epsilons(plan, 1)["secure_sum"], epsilons(plan, 2)["secure_sum"]
    site = make_site(tmp_path, tiny, limit=one)  # equality fits
    approve(tmp_path, plan)
    join(site, plan)
    site.answer(plan, 0, 0, question)
    with pytest.raises(BudgetExhausted):
        site.answer(plan, 0, 1, question)
    with pytest.raises(BudgetExhausted):  # it says so before others count on it
        SecureSumSite(site, plan).prepare(TRIES, {})
    assert len(site.ledger.debits) == 1
    make_site(tmp_path, tiny, limit=two).answer(plan, 0, 1, question)


def _no_others(old: Any) -> Any:
    return lambda self, plan, number, _debits, hint: old(self, plan, number, (), hint)


@twin("a site forgets what other runs have spent", "dppm_model.budget:Budget.check", _no_others)
def test_what_other_runs_spent_counts(
    tmp_path: Path, tiny: Path, plan: Plan, question: bytes
) -> None:
    site = make_site(tmp_path, tiny, limit=epsilons(plan, 1)["secure_sum"])
    site.answer(plan, 0, 0, question)
    with pytest.raises(BudgetExhausted):
        site.answer(replace(plan, run="run-b"), 0, 0, question)


@twin("the server's names may be paths", "dppm_model.phase:named", nothing)
def test_server_names_cannot_leave_the_folder(plan: Plan) -> None:
    for name in ("../evil", "a/b", "", "x" * 65):
        with pytest.raises(PlanError):
            replace(plan, run=name)
        with pytest.raises(PlanError):
            replace(plan.phases[0], name=name)


def test_policy_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    policy("records", 1.0, 3).write(path)
    assert Policy.read(path).max_epsilon_site == float("inf")
    good = path.read_text()
    for text in (good + "surprise = 1\n", good.replace("delta", "# delta"), "nonsense"):
        path.write_text(text)
        with pytest.raises(ConfigError):
            Policy.read(path)
    for text, field in (
        (good.replace("1.0", "-1.0"), "max_epsilon_secure_sum"),
        (good.replace("= 3", "= 2.5"), "min_survivors"),
        (good.replace("release_seconds = 0.0", "release_seconds = -1.0"), "release_seconds"),
        (good.replace('"record"', '"image"'), "unit"),
        (good.replace('"binomial"', '"gauss"'), "mechanisms"),
        (good.replace("00:00-24:00", "24:30-25:00"), "hours"),
        (good.replace("00:00-24:00", "08:00-08:00"), "hours"),
        (good.replace("min_records = 1", "min_records = 0"), "min_records"),
        (good.replace('records = "records"', "records = 3"), "records"),
        (good.replace('index = ""', "index = 5"), "index"),
        (good.replace('[\n    "binomial",\n]', "3"), "site.toml"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=field):
            Policy.read(path)


def _anything_is_approved(old: Any) -> Any:
    from client.approvals import Approval
    from tests.support.secure_sum import identities

    peers = {str(i): identity.public for i, identity in enumerate(identities(3))}
    return lambda folder, plan: Approval(plan, peers, "", "")


@twin("a site answers unapproved plans", "client.approvals:approval_of", _anything_is_approved)
def test_a_plan_that_the_operator_has_not_approved_is_refused_everywhere(
    tmp_path: Path, tiny: Path, plan: Plan, question: bytes
) -> None:
    site = make_site(tmp_path, tiny)
    for approved in ((), (replace(plan, seed="ff"),)):
        approve(tmp_path, *approved)
        for ask in asks(site, question):
            with pytest.raises(NotApproved):
                ask(plan)
    assert site.ledger.debits == () and not (tmp_path / "sums").exists()
    approve(tmp_path, plan)
    join(site, plan)  # the twin
    approval_file(tmp_path, plan.digest).unlink()  # withdrawn
    with pytest.raises(NotApproved):
        join(site, plan)


def _by_any_code(old: Any) -> Any:
    from client.approvals import _read, approval_file

    return lambda folder, plan: _read(approval_file(folder, plan.digest))


@twin("a plan is answered by unapproved code", "client.approvals:approval_of", _by_any_code)
def test_a_plan_is_answered_by_the_code_and_to_the_peers_it_was_approved_with(
    tmp_path: Path, tiny: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Approving a second run, with other peers and other code, changes nothing about the first."""
    site = make_site(tmp_path, tiny)
    own, *others = [identity.public for identity in identities(4)]
    first = {"a": own, "b": others[0], "c": others[1]}
    Approval(plan, first, bundle="11", note="1").write(tmp_path)
    second = replace(plan, run="second")
    Approval(second, first | {"c": others[2]}, bundle="22", note="2").write(tmp_path)
    for running, right, wrong in (("11", plan, second), ("22", second, plan)):
        monkeypatch.setenv(BUNDLE, running)
        join(site, right)
        with pytest.raises(NotApproved, match="different bundle"):
            join(site, wrong)
    assert site.authorize(second).roster == tuple(sorted((own, others[0], others[2])))
    monkeypatch.setenv(BUNDLE, "11")
    assert site.authorize(plan).roster == tuple(sorted(first.values()))


@twin(
    "records are counted for an unapproved plan",
    "client.site:Site.authorize",
    lambda old: lambda self, plan, **kw: (self.records(), old(self, plan, **kw))[1],
)
def test_an_unapproved_plan_hears_nothing_of_the_records(
    tmp_path: Path, tiny: Path, plan: Plan, question: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither how many there are, nor whether they name persons."""
    site = make_site(tmp_path, tiny)
    site.policy = replace(site.policy, min_records=10**6, hours=AT_ANOTHER_HOUR)
    monkeypatch.setattr(Site, "records", lambda _: pytest.fail("records were opened"))
    for unit in ("record", "person"):
        asked = replace(plan, unit=unit)
        for ask in asks(site, question):
            with pytest.raises(NotApproved):
                ask(asked)


@twin(
    "a site that protects persons answers a plan by record",
    "client.policy:Policy.check_plan",
    nothing,
    only="[unit-person]",
)
@twin(
    "a shard smaller than the policy allows takes part",
    "client.policy:Policy.check_records",
    nothing,
    only="[min_records-601]",
)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("unit", "person"),
        ("mechanisms", ("directions",)),
        ("min_records", 601),
        pytest.param("hours", AT_ANOTHER_HOUR, id="hours"),  # the same in every process
    ],
)
def test_what_the_policy_does_not_allow_is_refused_before_keys_are_made(
    tmp_path: Path, site: Site, plan: Plan, question: bytes, key: str, value: object
) -> None:
    site.policy = replace(site.policy, **{key: value})
    for ask in asks(site, question)[:3]:
        with pytest.raises(PolicyError, match=r"person|directions|min_records|hours"):
            ask(plan)
    assert site.ledger.debits == () and not (tmp_path / "sums").exists()


@twin("a site answers outside its hours", "client.policy:Policy.check_hours", nothing)
def test_hours_may_run_over_midnight() -> None:
    night = replace(policy("records", 1.0), hours="20:00-06:00")
    day = replace(policy("records", 1.0), hours="08:30-17:00")
    for hour, minute, who in ((23, 59, night), (0, 0, night), (5, 59, night), (8, 30, day)):
        who.check_hours(datetime(2026, 1, 1, hour, minute))
    for hour, minute, who in ((6, 0, night), (19, 59, night), (8, 29, day), (17, 0, day)):
        with pytest.raises(PolicyError, match="hours"):
            who.check_hours(datetime(2026, 1, 1, hour, minute))


def _no_policy(old: Any) -> Any:
    def member(self: Any, plan: Any, **kw: Any) -> Any:
        self.policy = replace(self.policy, min_survivors=1, colluding_sites=0)
        return old(self, plan, **kw)

    return member


@twin("a site opens sums smaller than its policy allows", "client.site:Site.authorize", _no_policy)
def test_a_site_sets_its_least_number_of_survivors(tmp_path: Path, site: Site, plan: Plan) -> None:
    """The plan's threshold and survivors are the server's; the site has its own limit."""
    phases = tuple(replace(p, honest_sites=2) for p in plan.phases)
    lower = replace(plan, run="other", min_survivors=2, phases=phases)
    approve(tmp_path, lower)
    join(site, plan)
    with pytest.raises(TooFewSurvivors, match="this site requires 3"):
        join(site, lower)
    with pytest.raises(PlanError, match="More than half"):  # no plan says less than that
        replace(lower, min_survivors=1)


def test_a_site_sets_its_number_of_colluding_sites(tmp_path: Path, site: Site, plan: Plan) -> None:
    toml = tmp_path / "site.toml"
    toml.write_text(toml.read_text().replace("colluding_sites = 0", "colluding_sites = 1"))
    with pytest.raises(TooFewSurvivors, match="assumes 0 colluding sites"):
        join(Site(tmp_path, SeededRNG(0)), plan)
    join(site, plan)
    with pytest.raises(PlanError):  # and no plan counts fewer than none
        replace(plan, colluding_sites=-1)


def test_a_site_that_lost_its_keys_sits_out(
    tmp_path: Path, site: Site, plan: Plan, question: bytes
) -> None:
    join(site, plan)
    site.answer(plan, 0, 0, question)
    (tmp_path / "sums" / "run-a.json").unlink()
    with pytest.raises(LedgerError, match="is lost"):
        join(site, plan)


@twin("a site with a deleted ledger spends again", "client.reports:Reports.forget", nothing)
def test_a_ledger_that_was_deleted_with_its_mark_is_missed(
    tmp_path: Path, site: Site, plan: Plan, question: bytes
) -> None:
    """Two files gone look like none yet; the report that was made after its debit tells."""
    site.answer(plan, 0, 0, question)
    for name in ("ledger.jsonl", "ledger.mark"):
        (tmp_path / name).unlink()
    with pytest.raises(LedgerError, match="was lost"):
        join(Site(tmp_path, SeededRNG("")), plan)


def test_a_past_report_that_a_kill_left_is_removed_by_the_next_message(
    tmp_path: Path, site: Site, plan: Plan, question: bytes
) -> None:
    join(site, plan)
    site.answer(plan, 0, 0, question)
    (old,) = tmp_path.rglob("*.npy")
    content = old.read_bytes()
    site.answer(plan, 0, 1, question)
    assert not old.exists()
    old.write_bytes(content)  # as if the process had been killed before it removed it
    join(site, plan)
    assert [p.name for p in tmp_path.rglob("*.npy")] == [old.name.replace("000000", "000001")]


def test_a_model_for_other_data_is_refused_before_anything_is_spent(site: Site, plan: Plan) -> None:
    other = ScoreModel.start(replace(plan.model, classes=1))
    with pytest.raises(ModelError, match="the site holds"):
        site.answer(replace(plan, model=other.config), 0, 0, write_question("means", other))
    assert site.ledger.debits == ()


@twin(
    "a failure on one record is visible to the server",
    "dppm_model.score.unit_batches:map_blocks",
    lambda _: lambda ask, units, block: [ask(slice(0, units))],
)
def test_a_question_that_fails_on_a_record_does_not_tell_who_was_sampled(
    plan: Plan, question: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model made to fail on certain records: they count as zero, the others as ever."""
    query = read_question("means", plan.model, question)
    x, y = torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)
    x[3] = 0.5
    right = type(query).answers

    def fails(self: object, x: torch.Tensor, y: torch.Tensor) -> object:
        if bool((x == 0.5).flatten(1).all(1).any()):
            raise IndexError("a record of this kind was sampled")
        return right(self, x, y)

    rest = [0, 1, 2, 4]
    grid, seeds = plan.phases[0].grid, torch.arange(5)
    expected = query.clipped_sum(x[rest], y[rest], grid, seeds[rest])
    monkeypatch.setattr(type(query), "answers", fails)

    def ask(part: slice) -> np.ndarray:
        return query.clipped_sum(x[part], y[part], grid, seeds[part])

    np.testing.assert_array_equal(sum(map_blocks(ask, 5, 5)), expected)
    with pytest.raises(IndexError):  # the twin
        ask(slice(0, 5))


def test_a_plan_for_other_peers_is_refused(tmp_path: Path, site: Site, plan: Plan) -> None:
    phases = tuple(replace(p, sites=4, honest_sites=4) for p in plan.phases)
    other = replace(plan, sites=4, min_survivors=4, phases=phases)
    approve(tmp_path, other)
    with pytest.raises(PlanError, match="has 4 sites, the list of peers 3"):
        join(site, other)
