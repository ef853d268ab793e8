"""Quotas: an allowance that is used up, given back, and fills again; no account for the idle."""

import pytest

from dppm_model.errors import ConfigError, QuotaExceeded
from sampler.service.quota import Quota


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_images_are_used_up_and_come_back_with_time() -> None:
    clock = Clock()
    quota = Quota(600, 2, clock)
    quota.enter("a", 500)
    quota.leave("a")
    with pytest.raises(QuotaExceeded, match="draws 200 images, in whole shards, and 100 of 600"):
        quota.enter("a", 200)
    clock.now += 9 * 60
    with pytest.raises(QuotaExceeded) as refusal:
        quota.enter("a", 200)
    assert refusal.value.hint == "Ask for fewer, or again in 1 min."
    quota.enter("b", 600)  # others are not concerned
    clock.now += 60
    quota.enter("a", 200)
    assert quota.of("a") == (0, 1)
    clock.now += 10 * 3600
    assert quota.of("a") == (600, 1)  # never more than a full allowance


def test_what_can_never_be_drawn_is_a_bad_request() -> None:
    with pytest.raises(ConfigError, match="draws 601"):
        Quota(600, 2, Clock()).enter("a", 601)


def test_the_idle_are_forgotten() -> None:
    clock = Clock()
    quota = Quota(600, 2, clock)
    for i in range(100):
        quota.enter(f"host-{i}", 1)
        quota.leave(f"host-{i}")
    clock.now += 3600
    quota.enter("a", 1)
    assert set(quota._accounts) == {"a"}
