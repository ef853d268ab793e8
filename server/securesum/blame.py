"""Who lied, as far as is known, and whom the next try does without.

Some are found out for certain. Of others it is known that one of two lied: a site that says that
another's share is wrong, or two that do not say the same of the mask that they share. Of such pairs
each has a liar; so the fewest sites that meet all pairs are no more than the liars are, and as many
tries as they can spoil are bounded: with more than k pairs, a liar is among any k that meet all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

Pair = tuple[int, int]


@dataclass
class Blame:
    """What is held against sites, by their places in the roster, with why.

    Attributes
    ----------
    certain
        Sites that were found out.
    pairs
        One of each pair lied. Where it may be either, the first is left out.
    muted
        Sites whose channel keys are in question, if they are left out. All others that are hold
        shares all the same, and can help to open what the rest report.
    """

    certain: dict[int, str] = field(default_factory=dict)
    pairs: dict[Pair, str] = field(default_factory=dict)
    muted: set[int] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.certain) + len(self.pairs)

    def add(self, site: int, why: str) -> None:
        """Note that a site was found out."""
        self.certain.setdefault(site, why)

    def add_pair(self, first: int, second: int, why: str) -> None:
        """Note that one of two lied."""
        if (second, first) not in self.pairs:
            self.pairs.setdefault((first, second), why)

    def left_out(self, absent: Collection[int] = ()) -> dict[int, str]:
        """Return the fewest sites that are enough to leave out, with why.

        The first of a pair comes before the second, earlier pairs before later ones.

        Parameters
        ----------
        absent
            Sites that are left out anyway.
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
        """Hold nothing against anybody any more."""
        self.certain.clear()
        self.pairs.clear()
        self.muted.clear()

    @property
    def lines(self) -> list[str]:
        """All of it, in the order in which it was found out."""
        return [*self.certain.values(), *self.pairs.values()]


def _meets(pairs: list[Pair], most: int) -> tuple[int, ...] | None:
    """Return at most ``most`` sites that are in all pairs, or None if there are none such."""
    if not pairs:
        return ()
    if most == 0:
        return None
    for site in pairs[0]:
        rest = _meets([pair for pair in pairs if site not in pair], most - 1)
        if rest is not None:
            return (site, *rest)
    return None
