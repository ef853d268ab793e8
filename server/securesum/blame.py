"""Sites known to have lied, and the sites to leave out of the next try.

Some liars are known for certain. In other cases one of two sites lied: one says that the other's
share is wrong, or the two disagree about the mask that they share. Each such pair has a liar, so
the smallest set of sites that covers all pairs is no larger than the set of liars. This bounds the
tries that they can spoil: with more than k pairs, any k sites that cover all include a liar.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dppm_model.errors import TooFewSites
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.masks import round_of
from server.securesum.membership import Membership

log = logging.getLogger("dppm.server")

Pair = tuple[int, int]


@dataclass
class Blame:
    """Accusations against sites, by roster index, with reasons.

    Attributes
    ----------
    certain
        Sites that are known to have lied.
    pairs
        Pairs of which one lied. If it may be either, the first is left out.
    muted
        Sites whose channel keys are in doubt, if they are left out. All other sites that are
        left out still hold shares, and can help to open the others' sum.
    """

    certain: dict[int, str] = field(default_factory=dict)
    pairs: dict[Pair, str] = field(default_factory=dict)
    muted: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.certain) + len(self.pairs)

    def add(self, site: int, why: str) -> None:
        """Record that a site lied."""
        self.certain.setdefault(site, why)

    def add_pair(self, first: int, second: int, why: str) -> None:
        """Record that one of two sites lied."""
        if (second, first) not in self.pairs:
            self.pairs.setdefault((first, second), why)

    def left_out(self, absent: Collection[int] = ()) -> dict[int, str]:
        """Return a smallest sufficient set of sites to leave out, with reasons.

        The first of a pair comes before the second, earlier pairs before later ones. The ``absent``
        sites are left out anyway.
        """
        gone = {*self.certain, *absent}
        open_ = [pair for pair in self.pairs if not gone & set(pair)]
        found = next(f for n in range(len(open_) + 1) if (f := _meets(open_, n)) is not None)
        reasons = {
            site: "; ".join(why for pair, why in self.pairs.items() if site in pair)
            for site in found
        }
        return self.certain | reasons

    def forget(self) -> None:
        """Drop all accusations."""
        self.certain.clear()
        self.pairs.clear()
        self.muted.clear()

    @property
    def lines(self) -> list[str]:
        """Return all reasons, in the order in which they were recorded."""
        return [*self.certain.values(), *self.pairs.values()]


def _meets(pairs: list[Pair], most: int) -> tuple[int, ...] | None:
    """Return at most ``most`` sites that cover all pairs, or None if there is no such set."""
    if not pairs:
        return ()
    if most == 0:
        return None
    for site in pairs[0]:
        rest = _meets([pair for pair in pairs if site not in pair], most - 1)
        if rest is not None:
            return (site, *rest)
    return None


class Exclusions:
    """The sites that the tries of one round leave out: accused ones, and late ones.

    ``blame`` has the accusations since the start of the run; ``late`` are sites that this round
    leaves out for being slow, not for lying, with reasons.
    """

    def __init__(self, group: Group, members: Membership, blame: Blame) -> None:
        self._group, self._members, self.blame = group, members, blame
        self.late: dict[int, str] = {}
        self._forgave = False
        self._known = blame.lines

    @property
    def news(self) -> list[str]:
        """Return the reasons that were recorded in this round."""
        return [line for line in self.blame.lines if line not in self._known]

    def left_out(self, number: int) -> dict[int, str]:
        """Return the sites that a try leaves out, with reasons.

        If too few sites are left, all accusations are dropped, so that the next try, or the same
        command, begins again with all sites. The second time in a round this is `TooFewSites`.
        """
        out = self.blame.left_out(self.late)
        if self._group.size - len(out) >= self._group.min_survivors:
            return out | self.late
        why = "; ".join(self.blame.lines)
        self.blame.forget()
        if self._forgave:
            raise TooFewSites(
                f"Too few sites are left for round {round_of(number)}: {why}.",
                "Repair these sites, or plan for fewer; the same command begins again with all.",
            )
        log.warning("round %d is tried once more with all sites: %s", round_of(number), why)
        self._forgave = True
        return self.late

    def goes_on(self, late: Mapping[int, str]) -> bool:
        """Record late sites; return whether this readmits a site: the other one of a pair."""
        out = self.blame.left_out(self.late)
        if not out.keys() - self.blame.left_out({*self.late, *late}).keys():
            return False
        self.late |= late
        return True

    def complained(self, site: int, record: str, accused: Collection[int]) -> bool:
        """Record that a site calls others' keys or shares wrong; return whether this is new.

        If either may have lied about shares, the accused is left out. Channel keys were checked
        here, and all sites would see a changed one: then the site that complains is left out.
        """
        before = len(self.blame)
        for other in accused:
            if other != site and other < self._group.size:
                a, b = self._members.name(site), self._members.name(other)
                why = f"{a} says that keys or shares of {b} are wrong"
                if record == "no_material":
                    self.blame.add_pair(site, other, why)
                    self.blame.muted.add(other)
                else:
                    self.blame.add_pair(other, site, why)
        return len(self.blame) > before

    def channels(self) -> dict[int, Channel]:
        """Return the channels of all sites that may hold shares, even if they do not report."""
        doubtful = self.blame.muted & self.blame.left_out(self.late).keys()
        return self._members.channels_but({*self.blame.certain} | doubtful)

    def reasons(self, reported: Collection[int], answers: Mapping[int, str]) -> dict[str, str]:
        """Return, by name, why sites are not in the sum; ``answers`` holds reasons they gave."""
        sites = set(range(self._group.size))
        reasons = {
            **dict.fromkeys(sites - self._members.nodes.keys(), "not connected"),
            **answers,
            **self.late,
            **self.blame.left_out(self.late),
        }
        absent = sorted(sites - set(reported))
        return {self._members.name(i): reasons.get(i, "did not take part") for i in absent}
