"""Every refusal of the project: one class, one exit code, a message and a hint, one line each.

The command line prints ``message`` and ``hint`` and exits with ``exit_code``; nothing else calls
``sys.exit``. Codes below 10 belong to the shell and to argument parsing.
"""

from __future__ import annotations

from typing import Any, ClassVar


class DppmError(Exception):
    """A refusal that a person can act on.

    ``message`` names the field or file and what is wrong with it; ``hint`` says what to do.
    """

    exit_code: ClassVar[int] = 1

    def __init_subclass__(cls, code: int | None = None) -> None:
        cls.exit_code = cls.exit_code if code is None else code

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[DppmError], tuple[Any, ...]]:
        """Keep message and hint apart across process borders (Ray pickles exceptions)."""
        return type(self), (self.message, self.hint)


class ConfigError(DppmError, code=10):
    """An unknown key, a value of the wrong type, or one outside its range."""


class PlanError(DppmError, code=11):
    """A plan that cannot be executed or accounted."""


class BudgetExhausted(DppmError, code=12):
    """The next round would pass the privacy budget; no data was read for it."""


class LedgerError(DppmError, code=13):
    """A ledger that is missing, edited, locked or from another run."""


class DataError(DppmError, code=14):
    """Records that are missing, empty, of the wrong shape or not finite."""


class DownloadError(DppmError, code=15):
    """No source of a data set could be reached, or the content is not the pinned one."""


class RunFolderError(DppmError, code=16):
    """A run folder that is missing, damaged, or belongs to another plan."""


class FederationError(DppmError, code=17):
    """Too few sites answered, or Flower did not start."""


class ModelError(DppmError, code=18):
    """A model file or a network that cannot be used, such as one that mixes records."""


class SamplerError(DppmError, code=19):
    """Sampling cannot continue: Ray did not start, or the settings do not fit."""


class TooFewSites(FederationError, code=20):
    """A round got too few reports or shares, even after all retries; it may be repeated."""


class SecureSumError(DppmError, code=21):
    """A message that breaks the rules of the secure sum; the answer reveals nothing.

    ``accused`` holds the roster indices of the sites whose keys or shares were wrong. The server
    receives these and the error's name, and nothing else.
    """

    def __init__(self, message: str, hint: str, accused: tuple[int, ...] = ()) -> None:
        super().__init__(message, hint)
        self.accused = accused

    def __reduce__(self) -> tuple[type[DppmError], tuple[Any, ...]]:
        """Keep the accused sites, too."""
        return type(self), (self.message, self.hint, self.accused)


class ClaimRefuted(DppmError, code=22):
    """An audit found more than a claim allows: claim or code is wrong, so do not use the run."""


class ServiceError(DppmError, code=23):
    """The sampling service failed, refused, or could not be reached."""


class NotApproved(DppmError, code=24):
    """Code, or a plan, that the site's operator has not approved."""


class PolicyError(DppmError, code=25):
    """A plan, a shard or an hour that the site's own policy does not allow."""


class EnrolmentError(DppmError, code=26):
    """An invitation, enrolment or announcement that is damaged or inconsistent."""


class NotConnected(DppmError, code=27):
    """The federation's server cannot be reached."""


class Untrusted(DppmError, code=28):
    """A server whose certificate is not from the federation's authority, or not for its name."""


class NotEnrolled(DppmError, code=29):
    """A node key that the server does not know, or that another SuperNode is using."""


class InUse(DppmError, code=30):
    """A site's or a server's folder that another process is using."""


class StorageError(DppmError, code=31):
    """A file or folder that cannot be read or written: no space, no permission, or damage."""


class NotBatchInvariant(DppmError, code=32):
    """On this machine a record's numbers depend on other records, so it must not answer."""


class NotReleased(DppmError, code=33):
    """Images that do not meet the release policy, or an override that does not waive it."""


class UnknownSite(SecureSumError):
    """A key that is not pinned in the site's own file, or not signed by the pinned one."""


class ChangedKey(SecureSumError):
    """A site's key differs from the one seen before in this run."""


class ForgedShare(SecureSumError):
    """A share that was not made by its sender for this receiver and try, or that does not fit."""


class StaleRound(SecureSumError):
    """A round that is over, or that was never prepared."""


class RoundOpened(SecureSumError):
    """Another try of a round that this site has helped to open: it would open a second sum."""


class NotGuilty(SecureSumError):
    """A proof of guilt that proves nothing: the masks shared with that site stay secret."""


class ParticipantsChanged(SecureSumError):
    """A second list of participants for the same round."""


class SurvivorsChanged(SecureSumError):
    """A second list of survivors for the same round: it would open a second sum."""


class TooFewSurvivors(SecureSumError):
    """Fewer sites in the sum than the plan, or the site's own policy, requires."""


class WrongReport(SecureSumError):
    """A masked report that is not what its sender sent, or belongs to another round."""


class WrongSum(SecureSumError):
    """A sum that could not be opened: shares or masks do not fit together."""


class BadToken(ServiceError):
    """A call to the sampling service without a valid token."""


class QuotaExceeded(ServiceError):
    """A client of the sampling service has too many jobs, or has drawn too many images."""


class ServerBusy(ServiceError):
    """The sampling service has no room for another job, or is about to stop."""


class UnknownJob(ServiceError):
    """A job that the sampling service does not know, or that belongs to another client."""


class JobCancelled(ServiceError):
    """A job of the sampling service that ended before all its images were sent."""
