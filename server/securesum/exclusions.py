"""Sites that the tries of a round leave out.

They are the sites that are known to have lied, one of each pair of which one lied, and late sites.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from dppm_model.errors import TooFewSites
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.masks import round_of
from server.securesum.blame import Blame
from server.securesum.membership import Membership

log = logging.getLogger("dppm.server")


class Exclusions:
    """The sites left out in one round.

    Parameters
    ----------
    blame
        Accusations since the start of the run.

    Attributes
    ----------
    late
        Sites that this round leaves out for being slow, not for lying, with reasons.
    """

    def __init__(self, group: Group, members: Membership, blame: Blame) -> None:
        self._group, self._members, self.blame = group, members, blame
        self.late: dict[int, str] = {}
        self._forgave = False
        self._known = blame.lines

    @property
    def told(self) -> list[str]:
        """Return the reasons that were recorded in this round."""
        return [line for line in self.blame.lines if line not in self._known]

    def left_out(self, number: int) -> dict[int, str]:
        """Return the sites that a try leaves out, with reasons.

        Raises
        ------
        TooFewSites
            If too few sites are left, for the second time in this round. What is held against them
            is forgotten then, so that the next try, or the same command, begins again with all.
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
        """Record late sites; return whether this readmits a site that was left out.

        It does where the late site is the other one of a pair.
        """
        out = self.blame.left_out(self.late)
        if not out.keys() - self.blame.left_out({*self.late, *late}).keys():
            return False
        self.late |= late
        return True

    def complained(self, site: int, record: str, accused: Collection[int]) -> bool:
        """Record that a site says that keys or shares of others are wrong.

        Where either may have lied about shares, the accused is left out. Channel keys were checked
        here, and a changed one would be seen by all: there the site that complains is left out.

        Returns
        -------
        Whether the accusation is new.
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
