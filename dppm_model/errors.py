"""Every refusal of the project: one class, one exit code, a message and a hint, each one line.

The command line prints ``message`` and ``hint`` and exits with ``exit_code``; nothing else in the
project calls ``sys.exit``. Codes below 10 are left to the shell and to argument parsing.
"""

from __future__ import annotations

from typing import Any, ClassVar


class DppmError(Exception):
    """A refusal that a person can act on.

    Parameters
    ----------
    message
        One line: the field or file, and what is wrong with it.
    hint
        One line: what to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[DppmError], tuple[Any, ...]]:
        """Keep message and hint apart across process borders (Ray pickles exceptions)."""
        return type(self), (self.message, self.hint)


class ConfigError(DppmError):
    """An unknown key, a value of the wrong type, or one outside its range."""

    exit_code = 10


class PlanError(DppmError):
    """A plan that cannot be executed or accounted."""

    exit_code = 11


class BudgetExhausted(DppmError):
    """The next round would pass the privacy budget; no data was read for it."""

    exit_code = 12


class LedgerError(DppmError):
    """A ledger that is missing, edited, locked or of another run."""

    exit_code = 13


class DataError(DppmError):
    """Records that are missing, empty, of the wrong shape or not finite."""

    exit_code = 14


class DownloadError(DppmError):
    """No source of a data set could be reached, or what came was not what is pinned."""

    exit_code = 15


class RunFolderError(DppmError):
    """A run folder that is missing, damaged, or belongs to another plan."""

    exit_code = 16


class FederationError(DppmError):
    """Too few sites answered, or Flower did not start."""

    exit_code = 17


class ModelError(DppmError):
    """A model file or a network that cannot be used (for one, a network that mixes records)."""

    exit_code = 18


class SamplerError(DppmError):
    """Sampling could not go on (Ray did not start, or the settings do not fit)."""

    exit_code = 19


class TooFewSites(FederationError):
    """A round got too few reports or shares, also after all retries; it may be asked for again."""

    exit_code = 20


class SecureSumError(DppmError):
    """A message of the secure sum that breaks its rules; nothing is revealed in answer to it.

    Attributes
    ----------
    accused
        Places in the roster of the sites whose keys or shares were not as they should be: all of a
        refusal that the server hears, beside the error's name.
    """

    exit_code = 21

    def __init__(self, message: str, hint: str, accused: tuple[int, ...] = ()) -> None:
        super().__init__(message, hint)
        self.accused = accused

    def __reduce__(self) -> tuple[type[DppmError], tuple[Any, ...]]:
        """As `DppmError`, with who is accused."""
        return type(self), (self.message, self.hint, self.accused)


class ClaimRefuted(DppmError):
    """An audit found more than a claim allows: claim or code is wrong, so do not use the run."""

    exit_code = 22


class ServiceError(DppmError):
    """The sampling service failed, refused, or could not be reached."""

    exit_code = 23


class NotApproved(DppmError):
    """Code, or a plan, that the site's operator has not approved."""

    exit_code = 24


class PolicyError(DppmError):
    """A plan, a shard or an hour that the site's own policy does not allow."""

    exit_code = 25


class EnrolmentError(DppmError):
    """An invitation, enrolment or announcement that is damaged, or not what it should be."""

    exit_code = 26


class NotConnected(DppmError):
    """The federation's server cannot be reached."""

    exit_code = 27


class Untrusted(DppmError):
    """A server whose certificate is not of the federation's authority, or not for its name."""

    exit_code = 28


class NotEnrolled(DppmError):
    """A node key that the server does not know, or that another SuperNode uses now."""

    exit_code = 29


class InUse(DppmError):
    """A site's or a server's folder that another process works in."""

    exit_code = 30


class StorageError(DppmError):
    """A file or folder that the machine cannot read or write: no room, no right, or damaged."""

    exit_code = 31


class NotBatchInvariant(DppmError):
    """On this machine a record's numbers depend on other records: it must not answer."""

    exit_code = 32


class UnknownSite(SecureSumError):
    """A key that is not pinned in the site's own file, or not signed by the one that is."""


class ChangedKey(SecureSumError):
    """A site's key differs from the one seen before in this run."""


class ForgedShare(SecureSumError):
    """A share that its sender did not make for this receiver and try, or that does not fit."""


class StaleRound(SecureSumError):
    """A round that is over, or that was never prepared."""


class RoundOpened(SecureSumError):
    """Another try of a round whose sum this site has helped to open: it would be a second sum."""


class NotGuilty(SecureSumError):
    """A proof of guilt that proves nothing: the masks with that site stay what they are."""


class ParticipantsChanged(SecureSumError):
    """A second list of participants for the same round."""


class SurvivorsChanged(SecureSumError):
    """A second list of survivors for the same round: two sums of it would be opened."""


class TooFewSurvivors(SecureSumError):
    """Fewer sites in the sum than the plan, or the site's own policy, requires."""


class WrongReport(SecureSumError):
    """A masked report that is not what its sender sent, or not of this round."""


class WrongSum(SecureSumError):
    """A sum that could not be opened: shares or masks do not fit together."""


class BadToken(ServiceError):
    """A call to the sampling service without a token, or with a wrong one."""


class QuotaExceeded(ServiceError):
    """A client of the sampling service has too many jobs, or drew too many images."""


class ServerBusy(ServiceError):
    """The sampling service has no room for another job, or is about to stop."""


class UnknownJob(ServiceError):
    """A job that the sampling service does not know, or that is another client's."""


class JobCancelled(ServiceError):
    """A job of the sampling service that was ended before all its images had come."""
