"""Ask many sites at once over Flower's grid, and ask those again that do not answer in time."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from dppm_model.errors import DppmError, TooFewSites
from dppm_model.securesum.wire import read_numbers

log = logging.getLogger("dppm.server")
_POLL_SHARE, _LEAST_POLL, _MOST_POLL = 0.1, 0.02, 0.5  # share of the time waited; seconds

Fields = Mapping[str, Mapping[str, Any]]
Records = Mapping[str, ConfigRecord]
Complain = Callable[[int, str, list[int]], None]


@dataclass(frozen=True)
class RetryPolicy:
    """The deadline of one try, the further tries for silent sites, and the pause before each."""

    seconds: float
    retries: int
    pause: float


class Broadcaster:
    """Sender of one federation's messages.

    It counts the bytes of all fields sent to sites (``down``) and received from them (``up``).
    """

    def __init__(self, grid: Grid, retry: RetryPolicy) -> None:
        self.grid, self.retry = grid, retry
        self.down = self.up = 0

    def ask(
        self,
        kind: str,
        nodes: Mapping[int, int],
        content: Callable[[int], Fields],
        read: Callable[[int, Records], None],
        enough: Callable[[], bool],
        what: Callable[[], str],
        name: Callable[[int], str] = str,
        complain: Complain = lambda *_: None,
    ) -> dict[int, str]:
        """Ask sites until all have answered or time is up; ask again while too few have answered.

        Raises `TooFewSites` if there are not enough answers after the last try.

        Parameters
        ----------
        kind
            Message type.
        nodes
            Flower node of each site to ask.
        content
            Returns the fields to send to site i.
        read
            Takes the reply of a site; raises `DppmError` if it is not valid.
        enough
            Whether the replies so far suffice; silence and refusals are then not errors.
        what
            Describes the request, for the error message.
        name
            Name of a site, for the log.
        complain
            Takes a site, the name of the record with which it refused, and the sites it accuses.

        Returns
        -------
        Each site whose answer, or a part of it, is not valid, with the reason.
        """
        silent, reasons = dict(nodes), dict[int, str]()
        for attempt in range(self.retry.retries + 1):
            if attempt:
                time.sleep(self.retry.pause)
            reasons |= dict.fromkeys(silent, "no answer in time")
            for site, why in self._ask_once(kind, silent, content, read, complain):
                if why is None:
                    reasons.pop(site, None)
                else:
                    reasons[site] = why
                    log.warning("%s: %s: %s", kind, name(site), why)
            if enough() or not silent:
                break
        if not enough():
            counted = Counter(reasons.values())
            why = ", ".join(f"{count} × {reason}" for reason, count in counted.items())
            raise TooFewSites(
                f"Too few sites for {what()} ({why or 'none is connected'}).",
                "Bring the sites back and run the same command again; nothing is spent twice.",
            )
        return reasons

    def _ask_once(
        self,
        kind: str,
        silent: dict[int, int],
        content: Callable[[int], Fields],
        read: Callable[[int, Records], None],
        complain: Complain,
    ) -> Iterator[tuple[int, str | None]]:
        """Ask once; remove the sites that answered or refused from ``silent``.

        Yields each site that replied, and why its reply is not valid, or None.
        """
        messages = [self._message(kind, node, content(site)) for site, node in silent.items()]
        pending = dict(zip(self.grid.push_messages(messages), list(silent), strict=True))
        begun = time.monotonic()
        while pending and (waited := time.monotonic() - begun) < self.retry.seconds:
            replies = list(self.grid.pull_messages(list(pending)))
            if not replies:
                time.sleep(min(max(_LEAST_POLL, _POLL_SHARE * waited), _MOST_POLL))
            for reply in replies:
                site = pending.pop(str(reply.metadata.reply_to_message_id), None)
                if site is None:  # a second reply to one message
                    continue
                if reply.has_error():
                    yield site, f"Flower error {reply.error.code} ({reply.error.reason!s:.200})"
                    continue
                records = reply.content.config_records
                self.up += _size(records)
                try:
                    refused = _refusal(records)
                    if "refusal" not in records:
                        read(site, records)
                    for name, record in records.items():
                        if "accused" in record:
                            complain(site, name, read_numbers(record, "accused"))
                    del silent[site]
                    yield site, refused
                except DppmError as error:
                    yield site, error.message

    def _message(self, kind: str, node: int, fields: Fields) -> Message:
        self.down += _size(fields)
        content = RecordDict()
        for name, values in fields.items():
            content[name] = ConfigRecord(dict(values))
        return Message(content, dst_node_id=node, message_type=kind)


def wait_for_sites(grid: Grid, wanted: int, least: int, seconds: float) -> None:
    """Wait up to ``seconds`` for ``wanted`` nodes; fewer than ``least`` are `TooFewSites`."""
    deadline = time.monotonic() + seconds
    while len(nodes := sorted(grid.get_node_ids())) < wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    if len(nodes) < least:
        raise TooFewSites(
            f"{len(nodes)} of {wanted} sites are connected after {seconds:.0f} s; {least} must be.",
            "Start the missing sites, or plan for fewer (sites=…).",
        )


def _refusal(records: Records) -> str | None:
    """Return the name of the first error in a reply, if any."""
    errors = [record["error"] for record in records.values() if "error" in record]
    return f"refused: {errors[0]!s:.100}" if errors else None


def _size(fields: Mapping[str, Mapping[str, Any]]) -> int:
    """Count the bytes of all values; a number counts eight."""
    total = 0
    for values in fields.values():
        for value in values.values():
            for item in value if isinstance(value, list) else [value]:
                total += len(item) if isinstance(item, bytes | str) else 8
    return total


def select(nodes: Mapping[int, int], sites: Collection[int]) -> dict[int, int]:
    """Return the nodes of some sites."""
    return {site: node for site, node in nodes.items() if site in sites}
