"""Quotas of each client: jobs at a time, and images an hour."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from dppm_model.errors import ConfigError, QuotaExceeded

_HOUR = 3600.0  # seconds


@dataclass
class _Account:
    left: float  # images
    at: float  # when that was so, in seconds of the clock
    jobs: int = 0


class Quota:
    """An allowance of images per client, which refills at a steady rate.

    Not safe for threads: `sampler.service.scheduler` calls it under its own lock.

    ``images_per_hour`` is a full allowance, and an empty one is full again after an hour; ``jobs``
    is the limit of jobs at a time; ``clock`` gives seconds and never goes back.
    """

    def __init__(
        self, images_per_hour: int, jobs: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._jobs, self._clock = images_per_hour, jobs, clock
        self._accounts: dict[str, _Account] = {}

    def enter(self, client: str, images: int) -> None:
        """Take ``images`` from the client's allowance, for one more job.

        Raises ConfigError if even a full allowance is too small, and QuotaExceeded if the client
        has too many jobs, or too little is left.
        """
        self._forget_the_idle()
        account = self._accounts.get(client) or _Account(self._most, self._clock())
        self._fill(account)
        if images > self._most:
            raise ConfigError(
                f"The request draws {images} images, in whole shards.",
                f"Ask for less than {self._most} an hour, in several requests.",
            )
        if account.jobs >= self._jobs:
            raise QuotaExceeded(
                f"{account.jobs} jobs of this client are running.",
                f"Let one end, or cancel it: {self._jobs} may run at a time.",
            )
        if images > account.left:
            minutes = math.ceil((images - account.left) * _HOUR / self._most / 60)
            raise QuotaExceeded(
                f"The request draws {images} images, in whole shards, and {int(account.left)} of "
                f"{self._most} an hour are left.",
                f"Ask for fewer, or again in {minutes} min.",
            )
        account.left -= images
        account.jobs += 1
        self._accounts[client] = account

    def give_back(self, client: str, unused: int) -> None:
        """Return images that were taken for a job and not drawn."""
        account = self._accounts[client]
        self._fill(account)
        account.left = min(account.left + unused, self._most)

    def leave(self, client: str) -> None:
        """Count one job fewer."""
        self._accounts[client].jobs -= 1

    def of(self, client: str) -> tuple[int, int]:
        """Return (images left, jobs running)."""
        account = self._accounts.get(client)
        if account is None:
            return self._most, 0
        self._fill(account)
        return int(account.left), account.jobs

    def _fill(self, account: _Account) -> None:
        now = self._clock()
        grown = account.left + (now - account.at) * self._most / _HOUR
        account.left, account.at = min(grown, self._most), now

    def _forget_the_idle(self) -> None:
        """Drop accounts that are equal to a new one."""
        for client, account in list(self._accounts.items()):
            self._fill(account)
            if account.jobs == 0 and account.left >= self._most:
                del self._accounts[client]
