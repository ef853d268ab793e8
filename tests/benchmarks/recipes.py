"""The recipe's choice for some numbers of records, as a table of docs/results.md.

python -m tests.benchmarks.recipes
"""

from __future__ import annotations

from collections.abc import Iterator

from dppm_model.config import check_config, compose_config
from dppm_model.errors import PlanError

SETS = (("10 classes, 32×32, colour", (3, 32, 32), 10), ("2 classes, 64×64, grey", (1, 64, 64), 2))
RECORDS = (500, 5_000, 50_000, 500_000)
_COLUMNS = ("data", "ε", "records", "band", "axes", "components", "class means get")


def rows() -> Iterator[tuple[str, ...]]:
    """Yield the table's rows; of records that are refused, what would be enough."""
    for data, shape, classes in SETS:
        for epsilon in (10, 1):
            for records in RECORDS:
                config = check_config(
                    compose_config(
                        [
                            f"facts.shape={list(shape)}",
                            f"facts.classes={classes}",
                            f"facts.records={records}",
                            "privacy.unit=record",
                            "privacy.records_per_person=1",
                            "privacy.large_delta=true",
                            f"privacy.epsilon={epsilon}",
                        ]
                    )
                )
                facts = (data, str(epsilon), f"{records:,}")
                try:
                    recipe = config.recipe
                except PlanError as refused:
                    yield (*facts, "refused", "", "", refused.hint.partition(",")[0])
                    continue
                sizes = (str(recipe.settings[key]) for key in ("band", "axes", "components"))
                yield (*facts, *sizes, f"{recipe.phases['means']['budget_fraction']:.0%}")


def table() -> str:
    """Return the table in Markdown."""
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table())
