"""Sites that lied, as far as is known, and the sites to leave out of the next try.

Some sites are known for certain. Of others it is known that one of two lied: one says that the
other's share is wrong, or the two disagree about the mask that they share. Each such pair has a
liar, so the smallest set of sites that covers all pairs is no larger than the set of liars. This
bounds the tries they can spoil: with more than k pairs, any k sites that cover all include a liar.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

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
