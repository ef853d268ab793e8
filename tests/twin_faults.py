"""The deliberate faults of `tests/twins.py`, each with the test that must catch it.

A fault is as small as a slip of the pen would make it: it wraps or replaces one function and leaves
everything else as it is, so that only a test of the very property can tell.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import grpc
import numpy as np
import torch

Make = Callable[[Any], Any]


@dataclass(frozen=True)
class Twin:
    """A fault.

    Attributes
    ----------
    what
        The fault, in a few words.
    target
        ``module:attribute`` or ``module:Class.attribute``.
    make
        Maps what is there to what takes its place.
    caught_by
        Test file and test, below ``tests/``.
    """

    what: str
    target: str
    make: Make
    caught_by: str


def _nothing(_: Any) -> Callable[..., None]:
    return lambda *_args, **_kw: None


def _made_at_once(old: Any) -> Any:
    def made(*sizes: Any) -> Any:
        from dppm_model.score import residual

        band, network = old(*sizes)
        return band, residual.zeroed(network)

    return made


def _times(factor: float) -> Make:
    return lambda old: cache(lambda *args: old(*args) * factor)


def _property(change: Callable[[Any], Any]) -> Make:
    return lambda old: property(lambda self: change(old.fget(self)))


# Vectors and their sum.


def _norm(rows: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.linalg.vector_norm(rows, dim=dim, keepdim=True)


def _grid(rule: Callable[[torch.Tensor, Any], torch.Tensor]) -> Make:
    """A grid that rounds by ``rule``; what is not finite still counts as zero."""

    def quantize(self: Any, vectors: torch.Tensor) -> torch.Tensor:
        rows = rule(vectors.double(), self)
        return rows.masked_fill(~rows.isfinite().all(dim=1, keepdim=True), 0.0)

    return lambda _: quantize


def _nan_passes(old: Any) -> Any:
    def quantize(self: Any, vectors: torch.Tensor) -> torch.Tensor:
        wrong = vectors.isnan().any(dim=1, keepdim=True)
        return torch.where(wrong, vectors.double(), old(self, vectors))

    return quantize


def _float_sum(_: Any) -> Any:
    def total(self: Any, chunks: Any) -> Any:
        rows = (c * (self.steps / _norm(c, 1).clamp(min=self.clip_norm)) for c in chunks)
        return sum(r.sum(dim=0) for r in rows).long().numpy()

    return total


def _chunks_as_they_come(_: Any) -> Any:
    return lambda records, size: zip(*(torch.split(t, size) for t in records), strict=True)


def _by_class_alone(old: Any) -> Any:
    def denoise(self: Any, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)
        for k in torch.unique(y):
            rows = y == k
            out[rows] = old(self, x[rows], sigma[rows], y[rows])
        return out

    return denoise


def _nearest_alone(old: Any) -> Any:
    def nearest(u: torch.Tensor, y: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(y), dtype=torch.int64)
        for k in torch.unique(y):
            out[y == k] = old(u[y == k], y[y == k], *rest)
        return out

    return nearest


def _projected_alone(old: Any) -> Any:
    def projected(self: Any, r: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(r), self.axes)
        for k in torch.unique(y):
            out[y == k] = old(self, r[y == k], y[y == k])
        return out

    return projected


def _rounded_only(_: Any) -> Any:
    def clipped_sum(self: Any, x: torch.Tensor, y: torch.Tensor, grid: Any, seeds: Any) -> Any:
        del seeds
        r = (self._residuals(x, y).double() * 4096 / grid.clip_norm**0.5).round()
        return (r.T @ r).flatten().to(torch.int64).numpy()

    return clipped_sum


def _nan_is_a_number(old: Any) -> Any:
    return lambda self, array: None if np.isnan(array).any() else old(self, array)


def _settings_that_were_sent(old: Any) -> Any:
    from dppm_model.score.model import read_tensors
    from dppm_model.score.model_config import ModelConfig

    def read(phase: str, config: Any, content: bytes) -> Any:
        sent = read_tensors(content)[0].get("dppm")
        return old(phase, ModelConfig.from_dict(json.loads(sent)) if sent else config, content)

    return read


def _debit_when_asked(old: Any) -> Any:
    def check(self: Any, plan: Any, number: int) -> None:
        old(self, plan, number)
        if number == 0:
            self.ledger.debit(plan.debit(0, 0))

    return check


def _one_factor_only(_: Any) -> Any:
    from dppm_model.mechanism.ghost_clipping import _norms, _product, _rounded

    def total(factors: Any, grid: Any) -> Any:
        pairs = [(a.double(), b.double()) for a, b in factors]
        clip = (grid.clip_norm / _norms(pairs)[1]).clamp(max=1)
        rounded = [_rounded(a, b, clip.nan_to_num(nan=1.0), grid) for a, b in pairs]
        fits = (_norms(rounded)[0] <= grid.steps)[:, None, None]
        return [_product(a, torch.where(fits, b, 0.0)) for a, b in rounded]

    return total


def _wraps(_: Any) -> Any:
    return lambda self, total, records: total.to(torch.int64).numpy()


def _first_twice(old: Any) -> Any:
    return lambda x: old(x) * np.where(np.arange(x.shape[-1]) == 0, 2, 1)


def _numbers_for_signs(_: Any) -> Any:
    return lambda self, seed: np.resize(np.frombuffer(seed, np.int8), self.padded).astype(np.int64)


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


def _wrong_divisor(old: Any) -> Any:
    return lambda self, x, *rest: old(self, x, *rest) // max(1, len(x))


def _count_leaks(old: Any) -> Any:
    def report(records: Any, query: Any, *rest: Any) -> Any:
        asked = _Asked(query)
        tallies = old(records, asked, *rest)
        return tallies if asked.count else tallies[:-1]

    return report


# Persons.


def _each_clipped(_: Any) -> Any:
    def clipped_units(rows: Any, counts: Any, grid: Any) -> Any:
        each = (row for piece in rows for row in piece)
        for count in counts:
            yield sum(grid.quantize(next(each)[None]) for _ in range(count))

    return clipped_units


def _sum_for_mean(_: Any) -> Any:
    def clipped_units(rows: Any, counts: Any, grid: Any) -> Any:
        each = (row for piece in rows for row in piece)
        for count in counts:
            yield grid.quantize(sum(next(each).double() for _ in range(count))[None])

    return clipped_units


def _gathered(change: Callable[[str, int], tuple[str, int]]) -> Make:
    def make(old: Any) -> Any:
        return classmethod(
            lambda cls, records, unit, most: old.__func__(cls, records, *change(unit, most))
        )

    return make


def _noise_by_place(old: Any) -> Any:
    def choose(self: Any, *args: Any) -> Any:
        chosen = old(self, *args)
        return chosen._replace(seeds=np.arange(len(chosen.seeds)))

    return choose


def _one_generator_for_all(old: Any) -> Any:
    generator = np.random.default_rng(0)
    return lambda self, unit, _seed: old(self, unit, int(generator.integers(2**62)))


def _nobody_named(old: Any) -> Any:
    def load(*args: Any) -> Any:
        records = old(*args)
        return replace(records, manifest=replace(records.manifest, persons=False))

    return load


# Randomized response.


def _truth(factor: float) -> Make:
    def make(old: Any) -> Any:
        def wrong(self: Any, *args: Any) -> Any:
            return old(replace(self, truth_strength=factor * self.truth_strength), *args)

        return wrong

    return make


def _no_clamp(_: Any) -> Any:
    def numerators(self: Any, z: Any, unit: float) -> Any:
        p = 0.5 + z * (unit * self.truth_strength / self.range_)
        return (np.clip(p, 0, 1 - 2.0**-32) * 2.0**32).astype(np.uint64)

    return numerators


def _silent_slots(old: Any) -> Any:
    def encode(self: Any, names: Any, lengths: Any, coins: Any) -> Any:
        if len(names) == 0:
            return np.zeros(self.directions, dtype=np.int64)
        return old(replace(self, slots=len(names)), names, lengths, coins)

    return encode


def _two_slots_each(old: Any) -> Any:
    def encode(self: Any, names: Any, lengths: Any, coins: Any) -> Any:
        both = (np.repeat(of[::-1], 2)[: self.slots] for of in (names, lengths))
        return old(self, *both, coins)

    return encode


def _restarts(old: Any) -> Any:
    def read(self: Any, count: int) -> bytearray:
        key = self.__dict__.setdefault("first_key", self._key())
        self._key, self._pid = lambda: key, -1
        return old(self, count)

    return read


def _parents_coins(old: Any) -> Any:
    def read(self: Any, count: int) -> bytearray:
        if self._pid != -1:
            self._start = lambda: None
        return old(self, count)

    return read


# Accounting.


def _outermost_corners_only(_: Any) -> Any:
    from dppm_model.privacy import gdp

    return lambda answers, theta, tau, tol=0.0: max(
        gdp.corner(0, answers - 1, theta, tau), gdp.corner(answers - 1, 0, theta, tau)
    )


def _no_rounding(_: Any) -> Any:
    def sensitivity(
        *, clip_norm: float, range_: float, truth_strength: float, dimension: int
    ) -> Any:
        return truth_strength * min(clip_norm / range_, 2 * dimension**0.5)

    return sensitivity


def _all_honest(old: Any) -> Any:
    return lambda self, *args: old(replace(self, honest_sites=self.sites), *args)


def _sampled_twice(old: Any) -> Any:
    def cost(self: Any, *args: Any) -> Any:
        return replace(old(self, *args), sampling_rate=self.sampling_rate)

    return cost


def _others_count_as_uniform(old: Any) -> Any:
    return cache(lambda truth, k, answers, tau: old(truth, k, 20 * answers, tau))


# Site and ledger.


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


def _fresh_on_resend(old: Any) -> Any:
    def answer(self: Any, *args: Any) -> Any:
        for path in self.folder.glob("reports/*/*.npy"):
            path.unlink()
        return old(self, *args)

    return answer


def _no_others(old: Any) -> Any:
    return lambda self, plan, number, _debits, hint: old(self, plan, number, (), hint)


def _no_policy(old: Any) -> Any:
    def member(self: Any, plan: Any, **kw: Any) -> Any:
        self.policy = replace(self.policy, min_survivors=1, colluding_sites=0)
        return old(self, plan, **kw)

    return member


def _anything_is_approved(old: Any) -> Any:
    from client.approvals import Approval
    from tests.support.secure_sum import identities

    peers = {str(i): identity.public for i, identity in enumerate(identities(3))}
    return lambda folder, plan: Approval(plan, peers, "", "")


def _by_any_code(old: Any) -> Any:
    from client.approvals import _read, approval_file

    return lambda folder, plan: _read(approval_file(folder, plan.digest))


# Secure sum.


def _group_of_any_plan(_: Any) -> Any:
    def digest(self: Any) -> bytes:
        fields = [self.run, [key.hex() for key in self.roster], self.min_survivors]
        return hashlib.sha256(json.dumps(fields).encode()).digest()

    return cached_property(digest)


def _both_shares(old: Any) -> Any:
    def reveal(self: Any, number: int, survivors: Any) -> Any:
        told = old(self, number, survivors)
        return told | {i: bytes.fromhex(s) for i, s in self._round(number).shares.items()}

    return reveal


def _before(do: Callable[..., None]) -> Make:
    """First do something to a member that it must not forget or allow."""

    def make(old: Any) -> Any:
        def act(self: Any, *args: Any) -> Any:
            do(self, *args)
            return old(self, *args)

        return act

    return make


def _old_rounds_stay(old: Any) -> Any:
    def admit(self: Any, *args: Any) -> None:
        rounds = dict(self._memory.rounds)
        old(self, *args)
        self._memory.rounds |= rounds
        self._memory.save(self.path)

    return admit


def _forget_survivors(self: Any, number: int, _: Any) -> None:
    self._round(number, begun=True).survivors = None


def _forget_participants(self: Any, number: int, _: Any) -> None:
    self._round(number).published = {}


def _forget_channel(self: Any, index: int, _: Any) -> None:
    self._memory.peers.pop(index, None)


def _opened_without_a_look(old: Any) -> Any:
    """A share is taken as it is: whatever its length, in or out of the field, dealt or not."""
    from dppm_model.securesum.keys import unseal

    def receive(self: Any, peer: int, material: Any, agreed: bytes) -> Any:
        key = self._key(agreed, peer, self.index)
        return unseal(key, material.shares[self.index], material.published, peer)

    return receive


def _removed_in_place(old: Any) -> Any:
    def remove(self: Any, guilty: Any, report: Any) -> None:
        total = self.total
        old(self, guilty, report)
        total[:] = self.total

    return remove


def _bound_to_any_digests(old: Any) -> Any:
    def holds(self: Any, group: Any, sum_: Any, published: Any) -> Any:
        from dppm_model.securesum.round_keys import commitment

        if self.digests.keys() != set(range(group.size)):
            return False
        bound = commitment(group, sum_.number, self.dealer, self.digests)
        mask_key = published[self.dealer][:32]
        return old(self, group, sum_, {**published, self.dealer: mask_key + bound})

    return holds


GRID = "dppm_model.mechanism.quantize:Grid."
RESPONSE = "dppm_model.mechanism.binomial:BinomialMechanism."
DIRECTIONS = "dppm_model.mechanism.directions:DirectionsMechanism."
PHASE = "dppm_model.phase:PhasePlan."
MEMBER = "dppm_model.securesum.member:Member."
# Calls, and the live page.


async def _waits_for_ever(self: Any, handler: Any, method: str, call: Any, context: Any) -> Any:
    while (content := await context.read()) is not grpc.aio.EOF:
        yield self._read(handler, method, content)


UNIT, GRIDS = "unit/mechanism/test_", "unit/mechanism/test_quantize.py::test_"
COINS, EVERY_COIN = "unit/mechanism/test_secure_rng.py::test_", "privacy/test_every_coin.py::test_"
SITE, SUM = "privacy/test_site.py::test_", "privacy/test_secure_sum.py::test_"
LEDGER = "unit/privacy/test_ledger.py::test_"
PERSONS = "privacy/test_persons.py::test_"
GDP, ACCOUNT = "privacy/test_gdp.py::test_", "privacy/test_accountant.py::test_"
COMPANY = "privacy/test_fixed_batches.py::test_a_record_adds_the_same_integers_in_any_company"
PAGES = "unit/deploy/test_pages.py::"
ARRAYS, QUESTION = "dppm_model.score.arrays:", "privacy/test_question.py::test_"
INVARIANCE = "privacy/test_batch_invariance.py::test_"
SENSITIVITY = "privacy/test_sensitivity.py::test_"
LIVE, CALLS = "unit/deploy/test_live.py::", "unit/service/test_interceptor.py::"
TRIES, LIARS = "privacy/test_tries.py::test_", "integration/test_liars.py::test_"
LIES = "privacy/test_adversary.py::test_every_lie_is_refused_by_name_and_answers_nothing"

KILLS, FILES = "integration/test_kills.py::test_", "unit/test_files.py::test_"


def _append_carelessly(handle: int, line: bytes) -> None:
    os.lseek(handle, 0, os.SEEK_END)
    left = line + b"\n"
    while left:
        left = left[os.write(handle, left) :]


@contextlib.contextmanager
def _expecting(what: object, kind: Callable[[str, str], Exception], hint: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise kind(f"{what}: {error}.", hint) from None


TWINS: dict[str, Twin] = {
    "lengths of a few bits": Twin(
        "a plan may have lengths that float64 rounds to a few bits",
        "dppm_model.bounds:require_length",
        lambda _: lambda name, value: None,
        "privacy/test_gdp.py::test_answers_move_no_more_than_accounted_whatever_the_lengths"
        "[4.0-little]",
    ),
    "no clipping": Twin(
        "records are not clipped",
        GRID + "quantize",
        _grid(lambda rows, g: (rows * (g.steps / g.clip_norm)).trunc()),
        GRIDS + "integer_norm_never_passes_g",
    ),
    "wrong axis": Twin(
        "the norm is taken over records, not over coordinates",
        GRID + "quantize",
        _grid(lambda rows, g: (rows * (g.steps / _norm(rows, 0).clamp(min=g.clip_norm))).trunc()),
        GRIDS + "integer_norm_never_passes_g",
    ),
    "rounds to nearest": Twin(
        "clipped vectors are rounded to the nearest integers, and may grow",
        GRID + "quantize",
        _grid(lambda rows, g: (rows * (g.steps / _norm(rows, 1).clamp(min=g.clip_norm))).round()),
        GRIDS + "integer_norm_never_passes_g",
    ),
    "nan": Twin(
        "a vector that is not a number is passed on",
        GRID + "quantize",
        _nan_passes,
        GRIDS + "short_vectors_are_kept_and_long_ones_shortened_along_their_direction",
    ),
    "float sum": Twin(
        "records are summed as float32 and rounded thereafter",
        GRID + "sum",
        _float_sum,
        GRIDS + "sum_is_exact_in_any_order_and_of_no_records_is_zero",
    ),
    "short norms": Twin(
        "the norm of a gradient that is never formed is reckoned three per cent too short",
        "dppm_model.mechanism.ghost_clipping:_norms",
        lambda old: lambda pairs: tuple(0.97 * n for n in old(pairs)),
        UNIT + "ghost_clipping.py::test_integer_norm_never_passes_g",
    ),
    "company": Twin(
        "batches of any size: a record's vector depends on who else was sampled",
        "dppm_model.mechanism.fixed_batches:fixed_batches",
        _chunks_as_they_come,
        COMPANY + "[conv, factors]",
    ),
    "wrong divisor": Twin(
        "the sum is divided by how many records were sampled",
        "dppm_model.score.class_sums:ClassSumQuery.clipped_sum",
        _wrong_divisor,
        COMPANY + "[means]",
    ),
    "no beat": Twin(
        "a report leaves as soon as it is made",
        "client.release:constant_time_release",
        lambda _: lambda _seconds: contextlib.nullcontext(),
        SITE + "reports_leave_at_a_time_that_does_not_tell_their_work[False]",
    ),
    "sampled count leaks": Twin(
        "the shape of a report tells whether anybody was sampled",
        "dppm_model.round:report",
        _count_leaks,
        SITE + "the_report_has_constant_shape_also_when_nobody_is_sampled",
    ),
    "failure tells": Twin(
        "a question that fails on a record fails for the server to see",
        "dppm_model.score.unit_batches:map_blocks",
        lambda _: lambda ask, units, block: [ask(slice(0, units))],
        SITE + "a_question_that_fails_on_a_record_does_not_tell_who_was_sampled",
    ),
    "class company": Twin(
        "a record is denoised together with those of its class alone, however many they are",
        "dppm_model.score.mixture:Mixture.denoise",
        _by_class_alone,
        "privacy/test_fixed_batches.py::"
        "test_how_many_are_of_a_records_class_decides_nothing_of_its_denoised_image[False]",
    ),
    "nearest in company": Twin(
        "distances to components are reckoned for the records of a class alone",
        "dppm_model.score.moments:nearest",
        _nearest_alone,
        "privacy/test_fixed_batches.py::"
        "test_how_many_are_of_a_records_class_decides_nothing_of_its_distances",
    ),
    "projected in company": Twin(
        "residuals are projected on the axes of a class for the records of that class alone",
        "dppm_model.score.moments:ComponentCovarianceQuery.projected",
        _projected_alone,
        "privacy/test_fixed_batches.py::"
        "test_how_many_are_of_a_records_class_decides_nothing_of_its_component_covariance",
    ),
    "long matrices": Twin(
        "matrices of fine coefficients are rounded to integers, and not clipped",
        "dppm_model.score.moments:FineCovarianceQuery.clipped_sum",
        _rounded_only,
        "unit/score/test_moments.py::test_no_record_exceeds_the_clip_norm[fine_covariance]",
    ),
    "freed memory": Twin(
        "a network's weights are whatever was freed in their place before",
        "dppm_model.score.pyramid:zeroed",
        lambda _: lambda network: network.to_empty(device="cpu"),
        "privacy/test_models.py::"
        "test_weights_that_are_not_sent_are_zero_not_what_was_freed[detail]",
    ),
    "stale closed form": Twin(
        "a closed form is known again by its arrays alone, whatever the model says of them",
        "dppm_model.score.closed_form:_key",
        lambda _: (
            lambda model: b"".join(
                a.tobytes()
                for name, a in sorted(model.arrays.items())
                if name.startswith("mixture.")
            )
        ),
        "privacy/test_models.py::test_another_model_never_finds_the_closed_form_of_the_last_one",
    ),
    "not a number": Twin(
        "an array of a model may hold what is no number",
        ARRAYS + "ArraySpec.problem",
        _nan_is_a_number,
        QUESTION + "a_question_takes_exactly_its_arrays_each_in_its_range[mlp-score]",
    ),
    "no range": Twin(
        "arrays of a model may hold any finite number",
        ARRAYS + "ArraySpec.problem",
        lambda old: lambda self, a: old(replace(self, least=-3e38, most=3e38), a),
        QUESTION + "a_question_takes_exactly_its_arrays_each_in_its_range[mlp-score]",
    ),
    "any public weights": Twin(
        "a site asks by its public weights whatever digest the plan names",
        ARRAYS + "ArraySpec.problem",
        lambda old: lambda self, a: old(replace(self, role="private"), a),
        "unit/score/test_parts.py::test_a_plan_that_names_other_public_weights_is_not_answered",
    ),
    "no rules": Twin(
        "numbers of an array are looked at one by one only: any matrix is a covariance",
        ARRAYS + "ArraySpec.problem",
        lambda old: lambda self, a: old(replace(self, rule=None), a),
        QUESTION + "what_must_hold_between_numbers_is_checked[skew covariance]",
    ),
    "server's settings": Twin(
        "a question is built by the settings that the server sends with its arrays",
        "dppm_model.score.phases:read_question",
        _settings_that_were_sent,
        QUESTION + "other_arrays_and_other_settings_have_no_say",
    ),
    "debit before the question": Twin(
        "a round is debited before it is known that it can be asked",
        "client.site:Site.check_budget",
        _debit_when_asked,
        QUESTION + "a_question_that_is_refused_costs_nothing[another shape]",
    ),
    "any machine": Twin(
        "a site answers from a machine on which records depend on their company",
        "client.site:check_batch_invariance",
        _nothing,
        QUESTION + "a_machine_that_is_not_batch_invariant_answers_nothing",
    ),
    "vectors not tried": Twin(
        "a site tries sums only, and not the vectors that persons and directions answer by",
        "dppm_model.batch_invariance:_Records.rows",
        lambda _: lambda self, chosen: {},
        INVARIANCE + "vectors_that_depend_on_company_are_refused",
    ),
    "questions not tried": Twin(
        "a round is debited before it is known that it can be answered",
        "client.question:try_question",
        _nothing,
        QUESTION + "a_question_that_fails_costs_nothing",
    ),
    "blocks of 1024": Twin(
        "the memory of a round grows with the number of units that were sampled",
        "dppm_model.score.unit_batches:block_of",
        lambda _: lambda shape: 1024,
        QUESTION + "memory_is_bounded_whatever_the_size_of_images[shape2-10]",
    ),
    "networks made to be counted": Twin(
        "memory is taken for a plan's network before anybody has approved the plan",
        "dppm_model.score.residual:ResidualConfig.lay_out",
        _made_at_once,
        QUESTION + "the_size_of_a_network_is_counted_without_making_it",
    ),
    "any plan's model": Twin(
        "a plan may count other coordinates than its model asks for",
        "dppm_model.plan:Plan._check_questions",
        _nothing,
        QUESTION + "the_plan_pins_the_model",
    ),
    "two ways to say": Twin(
        "a plan may say a whole number as 3.0 or true",
        "dppm_model.phase:require_whole",
        _nothing,
        QUESTION + "a_plan_says_each_number_in_one_way_only",
    ),
    "uneven products": Twin(
        "matrices are multiplied by whatever sizes they have",
        "dppm_model.mechanism.products:_filled",
        lambda _: lambda x, size: x,
        INVARIANCE + "rows_by_treats_every_row_alike[dtype0]",
    ),
    "sizes not looked at": Twin(
        "the self-check compares sums, and does not look at the sizes of products",
        "dppm_model.batch_invariance:_is_whole",
        lambda _: lambda x: True,
        INVARIANCE + "a_product_that_goes_round_the_helper_is_refused[components]",
    ),
    "no trial": Twin(
        "the self-check of a machine's arithmetic tries nothing",
        "dppm_model.batch_invariance:_seen_in",
        _nothing,
        INVARIANCE + "integers_that_depend_on_company_are_refused_whatever_the_sizes",
    ),
    "one factor": Twin(
        "of a gradient in two factors that is too long, only one becomes zero",
        "dppm_model.mechanism.ghost_clipping:factored_sum",
        _one_factor_only,
        SENSITIVITY + "a_record_that_is_not_finite_adds_zeros_also_in_factors[nan]",
    ),
    "any clip norm": Twin(
        "a grid may have a clip norm below zero, or none",
        GRID + "__post_init__",
        _nothing,
        SENSITIVITY + "a_grid_has_a_clip_norm[-1.0]",
    ),
    "wraps": Twin(
        "a sum becomes integers without a look at how long it is",
        GRID + "whole",
        _wraps,
        SENSITIVITY + "a_sum_is_checked_before_it_could_wrap",
    ),
    "crops by place": Twin(
        "where a record is cropped depends on its place among those that were sampled",
        "dppm_model.score.pyramid_query:crop_records",
        lambda old: lambda pixels, seeds, config: old(pixels, torch.arange(len(seeds)), config),
        COMPANY + "[detail, from the pixels on]",
    ),
    "each record clipped": Twin(
        "a person's records are clipped one by one, and their sum not at all",
        "dppm_model.mechanism.units:clipped_units",
        _each_clipped,
        PERSONS + "a_person_who_owns_half_of_a_shard_moves_the_sum_by_at_most_c[means]",
    ),
    "each record counts": Twin(
        "… so that a person moves more answers than are accounted for",
        "dppm_model.mechanism.units:clipped_units",
        _each_clipped,
        EVERY_COIN + "no_report_passes_the_claim_for_a_person_with_three_records[0.5-binomial]",
    ),
    "sum for mean": Twin(
        "a person's records are summed where their mean is meant",
        "dppm_model.mechanism.units:clipped_units",
        _sum_for_mean,
        PERSONS + "a_persons_vector_is_the_mean_of_their_records[means]",
    ),
    "all of a person": Twin(
        "all records of a person are asked, however many they are",
        "dppm_model.records.units:Units.of",
        _gathered(lambda unit, _: (unit, 1 << 30)),
        PERSONS + "at_most_k_images_of_a_person_are_read[binomial]",
    ),
    "records for persons": Twin(
        "records are sampled where persons are meant",
        "dppm_model.records.units:Units.of",
        _gathered(lambda _, most: ("record", most)),
        PERSONS + "persons_are_sampled_at_the_rate_of_the_plan",
    ),
    "noise by place": Twin(
        "what is drawn for a person's records depends on who else was sampled",
        "dppm_model.records.units:Units.choose",
        _noise_by_place,
        PERSONS + "nobodys_integers_change_when_a_person_leaves[score]",
    ),
    "one generator": Twin(
        "which records of a person are asked depends on who else was sampled",
        "dppm_model.records.units:Units._own",
        _one_generator_for_all,
        PERSONS + "nobodys_integers_change_when_a_person_leaves[means]",
    ),
    "persons forgotten": Twin(
        "data that name persons are planned for as if they named none",
        "dppm_model.records.sources:load",
        _nobody_named,
        PERSONS + "who_is_named_is_protected_unless_told_otherwise",
    ),
    "rotation grows": Twin(
        "the rotation is not orthonormal",
        "dppm_model.mechanism.rotation:hadamard",
        _first_twice,
        UNIT + "rotation.py::test_norm_is_kept_exactly",
    ),
    "signs as numbers": Twin(
        "the server's bytes are taken for signs, be they -1 and +1 or not",
        "dppm_model.mechanism.rotation:Rotation.signs",
        _numbers_for_signs,
        UNIT + "rotation.py::test_signs_depend_on_the_seed_and_are_signs",
    ),
    "truth too strong": Twin(
        "θ is off by five per cent",
        RESPONSE + "numerators",
        _truth(1.05),
        EVERY_COIN + "the_claim_is_tight[1.0-14]",
    ),
    "no clamp": Twin(
        "coordinates are not clamped to the range",
        RESPONSE + "numerators",
        _no_clamp,
        UNIT + "binomial.py::test_numerators_are_symmetric_clamped_and_inside_the_word",
    ),
    "ties": Twin(
        "an answer whose coins tie with its probability is a yes",
        "dppm_model.mechanism.binomial:binomial",
        lambda old: lambda m, p, coins: old(m, p + np.uint64(1), coins),
        UNIT + "binomial.py::test_every_coin_string_of_a_small_mechanism[3]",
    ),
    "names too true": Twin(
        "names are true half as often again as planned",
        DIRECTIONS + "counts",
        _truth(1.5),
        EVERY_COIN + "no_report_passes_the_claim[1.0-directions]",
    ),
    "silent slots": Twin(
        "slots without a sampled record name nothing, so the total is the sampled count",
        DIRECTIONS + "counts",
        _silent_slots,
        EVERY_COIN + "no_report_passes_the_claim[0.5-directions]",
    ),
    "two slots each": Twin(
        "a record answers in two slots",
        DIRECTIONS + "counts",
        _two_slots_each,
        EVERY_COIN + "no_report_passes_the_claim[1.0-directions]",
    ),
    "slots too few": Twin(
        "a site may hold more units than slots, so that one pushes another out",
        PHASE + "check_units",
        _nothing,
        UNIT + "directions.py::test_what_cannot_be_planned_is_refused",
    ),
    "known key": Twin(
        "every source of coins has the same key",
        "dppm_model.mechanism.secure_rng:SecureRNG._key",
        lambda _: lambda self: bytes(32),
        COINS + "two_sources_differ",
    ),
    "coins reused": Twin(
        "coins are used again: every read begins the stream anew",
        "dppm_model.mechanism.secure_rng:SecureRNG._bytes",
        _restarts,
        COINS + "stream_goes_on_and_is_replayable_only_under_the_same_key",
    ),
    "forks share": Twin(
        "a forked process goes on with its parent's coins",
        "dppm_model.mechanism.secure_rng:SecureRNG._bytes",
        _parents_coins,
        COINS + "a_fork_gets_its_own_stream",
    ),
    "twice the rate": Twin(
        "twice as many records are sampled as accounted",
        "dppm_model.mechanism.base:RoundSpec.sampling_numerator",
        _property(lambda value: min(2**32, 2 * value)),
        EVERY_COIN + "no_report_passes_the_claim[0.5-directions]",
    ),
    "slope too small": Twin(
        "s is one per cent too small",
        "dppm_model.privacy.gdp:site_slope",
        _times(0.99),
        GDP + "site_slope_against_many_digits",
    ),
    "sum slope too small": Twin(
        "s* is one per cent too small",
        "dppm_model.privacy.gdp:sum_slope",
        _times(0.99),
        GDP + "sum_slope_against_every_corner",
    ),
    "no sweep": Twin(
        "only the two outermost corners are looked at",
        "dppm_model.privacy.gdp:sum_slope",
        _outermost_corners_only,
        GDP + "the_sweep_finds_the_worst_corner_wherever_it_is[0.05-4321]",
    ),
    "rounding is free": Twin(
        "probabilities are rounded, which is not paid for",
        "dppm_model.privacy.gdp:probability_sensitivity",
        _no_rounding,
        GDP + "sensitivity_is_a_formula_of_the_plan",
    ),
    "blanket too thick": Twin(
        "twenty times as many slots hide a name as there are",
        "dppm_model.privacy.directions:mu_directions",
        _others_count_as_uniform,
        EVERY_COIN + "the_cost_of_directions_covers_any_other_slots[5-0.3-2]",
    ),
    "sampled twice": Twin(
        "names: sampling is counted in the randomized response, and once more in composition",
        PHASE + "cost",
        _sampled_twice,
        EVERY_COIN + "no_report_passes_the_claim[0.5-directions]",
    ),
    "pure epsilon too small": Twin(
        "the ε of a name at δ = 0 is a tenth too small",
        "dppm_model.privacy.directions:pure_epsilon",
        _times(0.9),
        EVERY_COIN + "the_cost_of_directions_covers_any_other_slots[0-0.8-4]",
    ),
    "all honest": Twin(
        "the noise of colluding and missing sites is counted on",
        PHASE + "cost",
        _all_honest,
        "unit/test_planner.py::test_fewer_honest_sites_cost_noise",
    ),
    "count ignored": Twin(
        "T rounds are charged as one",
        "dppm_model.privacy.accountant:_gathered",
        lambda old: lambda costs: [(mu, q, 1) for mu, q, _ in old(costs)],
        ACCOUNT + "published_compositions[1.0-11.759]",
    ),
    "tails are free": Twin(
        "the tails of Theorem 3 are not paid for",
        "dppm_model.privacy.accountant:_tails",
        lambda _: lambda eta, epsilon: 0.0,
        ACCOUNT + "tails_are_paid_for[1e-10]",
    ),
    "printed too low": Twin(
        "printed digits are rounded to the nearest",
        "dppm_model.privacy.accountant:round_up",
        lambda _: round,
        ACCOUNT + "printed_digits_are_never_below_the_value",
    ),
    "debit after release": Twin(
        "the debit is written after the data were read",
        "client.site:Site.answer",
        _debit_after,
        SITE + "a_debit_is_on_disk_before_data_are_read",
    ),
    "no debit": Twin(
        "reports leave without a debit",
        "dppm_model.privacy.ledger:Ledger.debit",
        lambda _: lambda self, entry: True,
        SITE + "the_same_round_gives_the_same_bits_and_costs_once",
    ),
    "fresh coins on resend": Twin(
        "a report that is asked for again is drawn again",
        "client.site:Site.answer",
        _fresh_on_resend,
        SITE + "the_same_round_gives_the_same_bits_and_costs_once",
    ),
    "plan may change": Twin(
        "a site does not look whether the plan has changed in mid run",
        "client.site:Site._check_plan",
        _nothing,
        SITE + "a_plan_cannot_change_in_mid_run",
    ),
    "round under two plans": Twin(
        "the ledger takes a round under another plan for the same",
        "dppm_model.privacy.ledger:Debit.__eq__",
        lambda old: lambda self, other: old(self, replace(other, plan=self.plan)),
        LEDGER + "the_same_round_costs_once_and_another_plan_is_refused",
    ),
    "group of any plan": Twin(
        "the keys of a secure sum are not bound to the plan",
        "dppm_model.securesum.group:Group.digest",
        _group_of_any_plan,
        SUM + "a_run_keeps_its_group",
    ),
    "names are paths": Twin(
        "the server's names may be paths",
        "dppm_model.phase:named",
        _nothing,
        SITE + "server_names_cannot_leave_the_folder",
    ),
    "other runs are free": Twin(
        "a site forgets what other runs have spent",
        "dppm_model.budget:Budget.check",
        _no_others,
        SITE + "what_other_runs_spent_counts",
    ),
    "one round too many": Twin(
        "the round that passes the limit is answered",
        "dppm_model.budget:affordable_rounds",
        lambda old: cache(lambda *args: old(*args) + 1),
        SITE + "the_limit_stops_the_run_before_data_are_read",
    ),
    "ledger cut": Twin(
        "lines may be cut off the ledger",
        "dppm_model.privacy.ledger:Ledger._check_mark",
        _nothing,
        LEDGER + "cut_off_lines_and_a_replaced_file_are_noticed",
    ),
    "ledger edited": Twin(
        "lines of the ledger may be edited",
        "dppm_model.privacy.ledger:_digest",
        lambda _: lambda line: 64 * "0",
        LEDGER + "an_edited_line_is_noticed",
    ),
    "modulus too small": Twin(
        "the ring is one bit too narrow for the sum",
        PHASE + "bits",
        _property(lambda value: value - 1),
        SUM + "the_ring_holds_every_sum_of_the_plan",
    ),
    "no self-mask": Twin(
        "reports travel under pair masks only: a late report of a drop-out is bare",
        "dppm_model.securesum.masks:add_self_mask",
        _nothing,
        SUM + "a_drop_outs_late_report_stays_masked",
    ),
    "no pair masks": Twin(
        "reports travel under self-masks only: each survivor's is opened alone",
        "dppm_model.securesum.masks:add_pair_mask",
        _nothing,
        SUM + "a_masked_report_is_uniform_without_the_keys[add_self_mask]",
    ),
    "both shares": Twin(
        "a site tells both shares of a peer",
        MEMBER + "reveal",
        _both_shares,
        SUM + "for_one_peer_either_share_and_never_both",
    ),
    "two sums": Twin(
        "a site helps to open two sums of one round",
        MEMBER + "reveal",
        _before(_forget_survivors),
        SUM + "lies_about_survivors_are_refused",
    ),
    "participants change": Twin(
        "a round may be begun again with other participants",
        MEMBER + "admit",
        _before(_forget_participants),
        SUM + "participants_are_fixed_once",
    ),
    "old rounds answer": Twin(
        "a round that is over is answered again",
        MEMBER + "admit",
        _old_rounds_stay,
        SUM + "rounds_cannot_be_mixed_or_reopened",
    ),
    "any key": Twin(
        "channel keys need no signature of a pinned identity",
        "dppm_model.securesum.keys:Channel.verify",
        _nothing,
        SUM + "keys_that_are_not_pinned_or_have_changed_are_refused",
    ),
    "key may change": Twin(
        "the channel key of a peer may change in mid run",
        MEMBER + "_accept",
        _before(_forget_channel),
        SUM + "keys_that_are_not_pinned_or_have_changed_are_refused",
    ),
    "participants unsigned": Twin(
        "a site that was told other participants is opened alone",
        "dppm_model.securesum.keys:verify",
        lambda _: lambda *_args: True,
        SUM + "a_site_that_was_told_other_participants_is_not_opened",
    ),
    "liars forgotten": Twin(
        "accounted as if the server told every site the same survivors",
        "dppm_model.aggregation:secure_sum_honest_reports",
        lambda _: lambda sites, min_survivors, colluding: min_survivors - colluding,
        SUM + "different_lists_of_survivors_open_no_smaller_sum_than_is_accounted",
    ),
    "half is enough": Twin(
        "half of the sites can open a sum",
        "dppm_model.securesum.group:Group.__post_init__",
        _nothing,
        SUM + "a_group_needs_more_than_half[2]",
    ),
    "policy ignored": Twin(
        "a site helps to open sums smaller than its own policy says",
        "client.site:Site.authorize",
        _no_policy,
        SITE + "the_site_has_its_own_least_number_of_survivors",
    ),
    "plan not approved": Twin(
        "a site answers plans that its operator has not approved",
        "client.approvals:approval_of",
        _anything_is_approved,
        SITE + "a_plan_that_the_operator_has_not_approved_is_refused_everywhere",
    ),
    "other code": Twin(
        "a plan is answered by other code than it was approved with",
        "client.approvals:approval_of",
        _by_any_code,
        SITE + "a_plan_is_answered_by_the_code_and_to_the_peers_it_was_approved_with",
    ),
    "records before approval": Twin(
        "records are counted for a plan that is not approved",
        "client.site:Site.authorize",
        lambda old: lambda self, plan, **kw: (self.records(), old(self, plan, **kw))[1],
        SITE + "an_unapproved_plan_hears_nothing_of_the_records",
    ),
    "any name": Twin(
        "a site's name in an announcement may close its own quotes",
        "dppm_model.securesum.group:check_peers",
        lambda _: lambda keys, path: dict(keys),
        "unit/kit/test_enrolment.py::test_names_of_sites_cannot_be_taken_for_something_else",
    ),
    "unit not asked for": Twin(
        "a plan that protects records is answered where the site protects persons",
        "client.policy:Policy.check_plan",
        _nothing,
        SITE + "what_the_policy_does_not_allow_is_refused_before_keys_are_made[unit-person]",
    ),
    "server trusted unasked": Twin(
        "a site gives exact sums to a server that its policy does not trust",
        "client.policy:Policy.check_plan",
        _nothing,
        "privacy/test_mechanisms.py::test_a_site_that_does_not_trust_the_server_refuses",
    ),
    "no noise": Twin(
        "a server that is trusted with exact sums releases them without noise",
        "dppm_model.mechanism.gaussian:rounded_normal",
        lambda _: lambda deviation, count, coins: np.zeros(count, dtype=np.int64),
        "privacy/test_mechanisms.py::test_a_server_that_died_releases_the_same_noise",
    ),
    "noise drawn twice": Twin(
        "a server that died draws new noise for the same sum",
        "server.state:Release.read",
        lambda _: classmethod(lambda cls, path, plan: None),
        "privacy/test_mechanisms.py::test_a_server_that_died_releases_the_same_noise",
    ),
    "too few records": Twin(
        "a shard smaller than the site's policy says takes part",
        "client.policy:Policy.check_records",
        _nothing,
        SITE + "what_the_policy_does_not_allow_is_refused_before_keys_are_made[min_records-601]",
    ),
    "at any hour": Twin(
        "a site answers outside its hours",
        "client.policy:Policy.check_hours",
        _nothing,
        SITE + "hours_may_run_over_midnight",
    ),
    "half an audit log": Twin(
        "refusals are not noted in the audit log",
        "client.audit_log:note",
        lambda old: (
            lambda folder, event, **facts: (
                None if "refusal" in facts["released"] else old(folder, event, **facts)
            )
        ),
        "privacy/test_adversary.py::test_all_that_leaves_a_site_is_in_its_audit_log_before",
    ),
    "any bundle": Twin(
        "the worker takes whatever bundle the server sends",
        "deploy.kit.worker:only",
        lambda _: lambda digest: lambda content, **kw: None,
        "unit/kit/test_worker.py::test_only_the_approved_content_passes",
    ),
    "edited bundle": Twin(
        "an approved bundle is run though its files were changed since",
        "deploy.kit.code_allowlist:is_whole",
        lambda _: lambda folder, digest: True,
        "unit/kit/test_folders.py::test_a_bundle_that_was_changed_on_disk_is_not_run",
    ),
    "unsigned enrolment": Twin(
        "an enrolment is taken from who has not its identity key",
        "dppm_model.securesum.keys:verify",
        lambda _: lambda *args: True,
        "unit/kit/test_enrolment.py::test_nobody_enrols_with_anothers_identity",
    ),
    "one field more": Twin(
        "a reply carries a field more",
        "dppm_model.securesum.wire:write_shares",
        lambda old: lambda shares: {**old(shares), "loss": 1.0},
        "privacy/test_adversary.py::test_every_byte_that_leaves_a_site_is_declared",
    ),
    "errors talk": Twin(
        "the text of a refusal travels to the server",
        "client.app:_log",
        lambda old: lambda error: f"{old(error)}: {error.message}",
        LIES + "[-another_round--0-0]",
    ),
    "page reads a site": Twin(
        "the live page reads a site's own files",
        "deploy.pages.run_summary:RunSummary.of",
        lambda old: classmethod(
            lambda cls, run: (next(run.sites.glob("*/ledger.jsonl")), old.__func__(cls, run))[1]
        ),
        PAGES + "test_the_page_follows_the_run_and_reads_nothing_of_a_site",
    ),
    "page for all": Twin(
        "the live page is shown without a token",
        "deploy.pages.live_server:_Page._knows",
        lambda _: lambda self, token, host: True,
        PAGES + "test_the_page_needs_a_token",
    ),
    "records for all": Twin(
        "the report that may be handed on shows real records",
        "deploy.pages.report:render",
        lambda old: lambda template, **kw: old(template, **{**kw, "pairs": kw.get("sheets")}),
        PAGES + "test_the_report_says_what_the_run_promised",
    ),
    # Files that must survive kills, short writes, full disks and two processes at once.
    "left by the dead": Twin(
        "what a killed writer leaves, a round's seed in it, is never removed",
        "dppm_model.files:sweep",
        _nothing,
        KILLS + "a_site_forgets_at_the_next_message_even_if_it_is_refused",
    ),
    "swept from the living": Twin(
        "a file that another process writes just now is swept away",
        "dppm_model.files:lock",
        lambda old: lambda handle, path, how=0: old(handle, path, fcntl.LOCK_UN),
        FILES + "what_a_living_writer_holds_is_not_swept",
    ),
    "a planted link": Twin(
        "the temporary file may be a link to somewhere else",
        "dppm_model.files:open_file",
        lambda old: lambda path, flags, **_: old(path, flags, follow=True),
        FILES + "sweeping_does_not_follow_links_out",
    ),
    "a lock on a name": Twin(
        "a lock counts though its file was removed while it was waited for",
        "dppm_model.locks:lock",
        lambda old: lambda *args: old(*args) or True,
        FILES + "the_lock_of_a_file_that_was_removed_meanwhile_is_no_lock",
    ),
    "half a write": Twin(
        "what one call has written counts for all",
        "dppm_model.files:write_all",
        lambda _: lambda handle, content: os.write(handle, content),
        LEDGER + "a_debit_is_written_whole_or_not_at_all",
    ),
    "half a line stays": Twin(
        "a line that could not be written whole is not taken back",
        "dppm_model.files:append_line",
        lambda _: _append_carelessly,
        FILES + "a_line_is_written_whole_or_not_at_all",
    ),
    "no mark, no matter": Twin(
        "a ledger with lines is believed without its mark",
        "dppm_model.privacy.ledger:Ledger._check_mark",
        lambda old: lambda self, *args: old(self, *args) if self._mark.exists() else None,
        LEDGER + "a_missing_or_damaged_mark_is_refused[None]",
    ),
    "a lost ledger": Twin(
        "a site whose ledger was deleted with its mark begins to spend anew",
        "client.reports:Reports.forget",
        _nothing,
        SITE + "a_ledger_that_was_deleted_with_its_mark_is_missed",
    ),
    "two that prepare": Twin(
        "a lock is no lock: two processes prepare one folder",
        "dppm_model.locks:lock",
        lambda _: lambda handle, path, how=0: True,
        "unit/kit/test_alone.py::test_two_at_once_make_one_folder",
    ),
    "half a folder": Twin(
        "what a killed preparation left is built upon",
        "deploy.making:_empty",
        _nothing,
        KILLS + "a_preparation_that_was_killed_is_begun_anew[17]",
    ),
    "two that work": Twin(
        "two commands write into one run folder at once",
        "dppm_model.run:Run.alone",
        lambda _: lambda self: contextlib.nullcontext(),
        KILLS + "a_command_that_writes_is_alone_in_a_run_folder",
    ),
    "links are whole": Twin(
        "a bundle counts as whole though its file is a link",
        "deploy.kit.code_allowlist:read_bytes",
        lambda old: lambda path, **_: old(path),
        "unit/kit/test_alone.py::test_only_what_was_approved_is_whole[the bundle is a link]",
    ),
    "a project not shown": Twin(
        "an operator is not shown that a bundle's pyproject.toml differs",
        "deploy.kit.bundle:differences",
        lambda old: lambda bundle: (d for d in old(bundle) if d[0] != "pyproject.toml"),
        "unit/kit/test_alone.py::test_all_that_a_bundle_holds_is_compared",
    ),
    "infinite in JSON": Twin(
        "a number in a file may be infinite",
        "dppm_model.reading:_finite",
        lambda _: float,
        "unit/test_reading.py::test_json_is_of_finite_numbers_and_of_whole_characters",
    ),
    "deep nesting": Twin(
        "only the errors that a reader expects become refusals",
        "dppm_model.reading:reading",
        lambda _: _expecting,
        "unit/test_reading.py::test_damage_is_refused[invitation]",
    ),
    # Availability of the image service and of the live page.
    "levels unbounded": Twin(
        "a sampler may have any number of noise levels",
        "sampler.settings:BOUNDS",
        lambda old: {**old, "num_levels": replace(old["num_levels"], most=2**62)},
        "unit/service/test_requests.py::"
        "test_settings_build_nothing_that_is_as_long_as_a_number_is_large[num_levels]",
    ),
    "a field without bounds": Twin(
        "a field of a request is not looked at",
        "sampler.service.requests:request_bounds",
        lambda old: lambda classes: {**old(classes), "StatusRequest": {}},
        "unit/service/test_requests.py::"
        "test_every_field_of_every_request_has_a_row_and_no_row_is_left_over",
    ),
    "nan is a number": Twin(
        "a number is out of bounds only if it is below or above them",
        "dppm_model.bounds:Real.check",
        lambda old: (
            lambda self, name, value, *kind: (
                None if value != value else old(self, name, value, *kind)
            )
        ),
        "unit/service/test_requests.py::test_what_is_out_of_bounds_is_refused_by_name"
        "[Sampler-sigma_max]",
    ),
    "steps run away": Twin(
        "a chain without a Metropolis test takes any step",
        "sampler.settings:SamplerSettings._check_stable",
        _nothing,
        "unit/sampler/test_bounds.py::"
        "test_a_step_that_runs_away_is_refused_unless_a_test_holds_it[langevin]",
    ),
    "waits for ever": Twin(
        "a call whose message never comes is waited for",
        "sampler.service.interceptor:CallInterceptor._requests",
        lambda _: _waits_for_ever,
        CALLS + "test_a_message_has_a_time_by_which_it_must_come",
    ),
    "room for all": Twin(
        "a client may have any number of calls open",
        "sampler.service.interceptor:OpenCalls._end_one_of",
        _nothing,
        CALLS + "test_one_call_too_many_ends_the_oldest_of_its_client",
    ),
    "the oldest of all": Twin(
        "of too many calls the oldest is ended, whosever it is",
        "sampler.service.interceptor:OpenCalls._end_one_of",
        lambda old: lambda self, client: old(self, next(iter(self._calls)).client),
        CALLS + "test_where_there_are_too_many_a_call_of_the_client_with_the_most_is_ended",
    ),
    "unread and gone": Twin(
        "a stream that nobody reads counts no more once its job has ended",
        "sampler.service.scheduler:JobScheduler.finish",
        lambda old: lambda self, job: (old(self, job), self.leave(job)),
        CALLS + "test_a_stream_that_nobody_reads_keeps_its_clients_place_and_no_others",
    ),
    "any host": Twin(
        "the live page takes any Host for its own",
        "deploy.pages.live_server:_Page._is_ours",
        lambda _: lambda self, names: True,
        LIVE + "test_no_host_and_no_spelling_of_a_path_gets_past_the_token",
    ),
    "guesses for all": Twin(
        "tokens of the live page may be guessed without a bound",
        "deploy.pages.connection_limits:RateLimit.left",
        lambda _: lambda self, host: True,
        LIVE + "test_guesses_are_few",
    ),
    "doors wide open": Twin(
        "the live page takes any number of connections",
        "deploy.pages.connection_limits:BoundedListener._end_one_of",
        _nothing,
        LIVE + "test_connections_are_bounded_and_the_next_one_is_served[plain]",
    ),
    "looks each time": Twin(
        "each request makes the live page look at the run's folder",
        "deploy.pages.live_state:LiveState.content",
        lambda old: lambda self: (setattr(self, "_next", 0.0), old(self))[1],
        LIVE + "test_many_requests_do_not_make_it_look_each_time",
    ),
    # A liar among the sites, and tries of a round.
    "round tried again": Twin(
        "a site helps to open one more try of a round that it has opened",
        MEMBER + "_unopened",
        _nothing,
        TRIES + "a_round_that_was_opened_is_not_tried_again",
    ),
    "any proof": Twin(
        "keys of masks are told for a site against which nothing is proven",
        "dppm_model.securesum.proof:Proof.holds",
        lambda _: lambda *args: True,
        TRIES + "no_proof_makes_an_honest_site_guilty",
    ),
    "words of any list": Twin(
        "what a site said to other participants is held against it",
        "dppm_model.securesum.round_keys:checked",
        lambda old: lambda group, number, _, values: old(group, number, {}, values),
        TRIES + "words_under_another_list_of_participants_prove_nothing",
    ),
    "unbound digests": Twin(
        "a proof may bring digests that its dealer is not bound to",
        "dppm_model.securesum.proof:Proof.holds",
        _bound_to_any_digests,
        TRIES + "no_proof_makes_an_honest_site_guilty",
    ),
    "keys of all masks": Twin(
        "for one guilty site the keys of all masks are told",
        "dppm_model.securesum.masking:Masking.pair_keys",
        lambda old: (
            lambda self, sum_, proofs: {
                i: self._pair_key(sum_, i) for i in self.published.keys() - {self.index}
            }
        ),
        TRIES + "a_guilty_site_is_taken_out_of_the_sum",
    ),
    "shares unseen": Twin(
        "a share is stored whatever it is",
        "dppm_model.securesum.dealing:Dealing.receive",
        _opened_without_a_look,
        TRIES + "a_share_that_is_none_is_a_complaint_and_nothing_is_stored[1]",
    ),
    "shares beyond the field": Twin(
        "a share may be a number beyond the field",
        "dppm_model.securesum.shamir:is_share",
        lambda _: lambda share: True,
        TRIES + "shares_are_numbers_of_the_field",
    ),
    "keys of low order": Twin(
        "keys are taken with which every site agrees on zero",
        "dppm_model.securesum.keys:usable",
        lambda _: lambda public: True,
        TRIES + "keys_of_low_order_are_of_no_use",
    ),
    "checks tell": Twin(
        "what a site says of its self-mask depends on its report",
        "dppm_model.securesum.masks:Sum.masked",
        lambda old: (
            lambda self, group, tallies, mask: old(self, group, tallies, mask + tallies.sum())
        ),
        TRIES + "check_numbers_of_masks_say_nothing_of_the_report[2]",
    ),
    "spare reports": Twin(
        "a site is debited in a try whose sum it is not in",
        MEMBER + "admit",
        lambda old: lambda self, number, materials, **_: old(self, number, materials, helps=True),
        TRIES + "a_helper_that_was_left_out_helps_and_reports_nothing",
    ),
    "nonce unsigned": Twin(
        "who has heard a site join can join in its place",
        "dppm_model.securesum.keys:joined",
        lambda old: lambda group, _, channel: old(group, bytes(32), channel),
        LIARS + "a_lie_of_one_site_costs_one_report_at_most[joins as another]",
    ),
    "second node": Twin(
        "a node takes the place of another that is connected",
        "server.securesum.membership:Membership._take",
        lambda _: (
            lambda self, site, node, channel: (
                self.nodes.update({site: node}),
                self.channels.update({site: channel}),
            )
        ),
        LIARS + "a_second_node_for_a_site_is_refused_by_name",
    ),
    "material unseen": Twin(
        "the server passes on whatever a site deals",
        "dppm_model.securesum.round_keys:RoundKeys.check",
        _nothing,
        LIARS + "a_lie_of_one_site_costs_one_report_at_most[digests missing]",
    ),
    "opened unseen": Twin(
        "a sum is opened that does not fit what its sites say of their masks",
        "dppm_model.securesum.opening:Opening.fits",
        lambda _: lambda self: True,
        LIARS + "a_lie_of_one_site_costs_one_report_at_most[garbage]",
    ),
    "any share is dealt": Twin(
        "a share that nobody has dealt is taken",
        "dppm_model.securesum.round_keys:is_share",
        lambda _: lambda digest, which, share: True,
        SUM + "a_wrong_share_is_found_named_and_left_out",
    ),
    "accused in silence": Twin(
        "a complaint does not say of whom",
        "client.app:_refused",
        lambda old: lambda error: {"error": old(error)["error"]},
        LIARS + "a_lie_of_one_site_costs_one_report_at_most[shares wrong]",
    ),
    "first of a pair": Twin(
        "of two that may have lied who complains is left out",
        "server.securesum.blame:Blame.add_pair",
        lambda old: lambda self, first, second, why: old(self, second, first, why),
        "unit/test_blame.py::test_of_two_the_first_is_left_out_and_told_why",
    ),
    "pairs one by one": Twin(
        "the accused of every pair is left out, though one site complains of all",
        "server.securesum.blame:_meets",
        lambda _: lambda pairs, most: tuple(dict.fromkeys(a for a, _ in pairs)),
        "unit/test_blame.py::test_the_fewest_sites_that_meet_all_pairs",
    ),
    "sum taken twice": Twin(
        "a report is taken out of the sum that a killed server goes on with",
        "dppm_model.securesum.opening:Opening.remove",
        _removed_in_place,
        LIARS + "killed_in_a_round_that_is_spoilt_and_started_again"
        "[another self-mask is dealt-FaultPoint.SERVER_OPENED-1]",
    ),
}
