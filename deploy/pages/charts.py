"""The charts of a run in work or finished: epsilon, answers and noise, time, bytes and sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploy.pages.run_summary import RunSummary
from deploy.pages.svg import (
    FIRST,
    INK,
    SECOND,
    SOFT,
    THIRD,
    Chart,
    band_phases,
    plain_numbers,
    round_axis,
    svg_of,
)
from deploy.show import epsilon_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE = 7.6  # inches


def run_charts(facts: RunSummary) -> list[Chart]:
    """Return the charts of a run; before its first round there is only the plan's epsilon."""
    charts = [epsilon_chart(facts)]
    if facts.rounds:
        charts += [noise_chart(facts), effort_chart(facts)]
    return charts


def epsilon_chart(facts: RunSummary) -> Chart:
    """Epsilon against rounds in both views: spent, planned, and what the server may spend."""
    spent = [(0, 0.0, 0.0)] + [
        (i, line["epsilon_secure_sum"], line["epsilon_site"])
        for i, line in enumerate(facts.rounds, 1)
    ]
    planned = [(0, 0.0, 0.0), *facts.planned]
    budget = facts.config.budget()
    limits = (budget.max_epsilon_secure_sum, budget.max_epsilon_site)
    views = ("whoever sees the sum", "whoever sees a site's own reports")

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 2)
        for view, (axes, heading) in enumerate(zip(panels, views, strict=True), 1):
            axes.plot(
                *([p[0] for p in planned], [p[view] for p in planned]),
                color=SOFT,
                linestyle=(0, (4, 3)),
                marker="|",
                label="planned",
                gid=f"planned-{view}",
            )
            axes.plot(
                *([p[0] for p in spent], [p[view] for p in spent]),
                color=(FIRST, SECOND)[view - 1],
                marker=("o", "D")[view - 1],
                markersize=4,
                linewidth=2,
                label="spent",
                gid=f"spent-{view}",
            )
            if limits[view - 1] < float("inf"):
                axes.axhline(limits[view - 1], color=INK, linewidth=1.2, gid="budget")
                axes.annotate(
                    *("budget", (0, limits[view - 1])),
                    xytext=(4, 3),
                    textcoords="offset points",
                    fontsize=9,
                )
            axes.set_title(heading, fontsize=10, pad=10)
            axes.set_ylim(0, None)
            round_axis(axes, facts.plan.rounds, least=0)
            axes.legend(loc="lower right", fontsize=9)
        panels[0].set_ylabel(f"ε at δ = {facts.plan.delta:g}")

    done, total = len(facts.rounds), facts.plan.rounds
    now, end = facts.spent, facts.planned[-1][1:]
    return Chart(
        "epsilon",
        "Privacy spent, round by round",
        f"After {done} of {total} rounds ε is {epsilon_text(now[0])} of "
        f"{epsilon_text(end[0])} planned for whoever sees the sum, and {epsilon_text(now[1])} of "
        f"{epsilon_text(end[1])} for whoever sees a site's own reports.",
        svg_of("epsilon", (_WIDE, 3), paint),
        ("round", "phase", "ε, secure sum", "ε, a site's reports"),
        tuple(
            (str(i), facts.phase_of_round[i - 1], epsilon_text(a), epsilon_text(b))
            for i, a, b in spent[1:]
        ),
    )


def noise_chart(facts: RunSummary) -> Chart:
    """Length of each round's answer beside the length of the noise in it, over the clip norm."""
    rounds = range(1, len(facts.rounds) + 1)
    answer = [line["answer_norm"] for line in facts.rounds]
    noise = [line["noise_norm"] for line in facts.rounds]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(
            *(rounds, answer), color=FIRST, marker="o", markersize=5, linewidth=0, label="answer"
        )
        axes.plot(
            *(rounds, noise), color=SECOND, marker="_", markersize=11, linewidth=0, label="noise"
        )
        axes.set(ylabel="length, over the clip norm", yscale="log")
        plain_numbers(axes)
        round_axis(axes, len(rounds))
        band_phases(axes, facts.phase_of_round[: len(rounds)], labels=True)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)

    clear = sum(a > 1.05 * n for a, n in zip(answer, noise, strict=True))
    return Chart(
        "noise",
        "What came back, and how much of it is noise",
        f"In {clear} of {len(rounds)} rounds the answer is longer than its noise. Both are the "
        "lengths of the whole vector of answers, over the longest vector that one record or person "
        "may have; an answer as long as its noise says little coordinate by coordinate, and "
        "may still say much in a few directions.",
        svg_of("noise", (_WIDE, 3), paint),
        ("round", "phase", "length of the answer / C", "length of the noise / C"),
        tuple(
            (str(i), line["phase"], f"{line['answer_norm']:.4g}", f"{line['noise_norm']:.4g}")
            for i, line in zip(rounds, facts.rounds, strict=True)
        ),
    )


def effort_chart(facts: RunSummary) -> Chart:
    """Seconds, bytes and sites of each round."""
    rounds = range(1, len(facts.rounds) + 1)
    seconds = [line["seconds"] for line in facts.rounds]
    sites = [line["sites"] for line in facts.rounds]
    up, down = ([line[f"{way}link_bytes"] / 1e6 for line in facts.rounds] for way in ("up", "down"))

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 3)
        panels[0].bar(rounds, seconds, color=FIRST, width=0.8)
        panels[0].set_title("seconds")
        panels[1].plot(rounds, up, color=FIRST, marker="^", markersize=4, label="to the server")
        panels[1].plot(rounds, down, color=SECOND, marker="v", markersize=4, label="to the sites")
        panels[1].set_title("MB, all sites together")
        panels[1].set_ylim(0, None)
        panels[1].legend(fontsize=8)
        panels[2].step(rounds, sites, color=THIRD, where="mid", linewidth=2)
        panels[2].axhline(facts.plan.min_survivors, color=INK, linewidth=1.2)
        panels[2].annotate(
            *("fewest allowed", (rounds[0], facts.plan.min_survivors)),
            xytext=(2, -12),
            textcoords="offset points",
            fontsize=8,
        )
        panels[2].set_title("sites in the sum")
        panels[2].set_ylim(0, 1.08 * facts.plan.sites)
        for axes in panels:
            round_axis(axes, len(rounds))

    return Chart(
        "effort",
        "Seconds, bytes and sites of each round",
        f"{len(rounds)} rounds took {facts.seconds:.0f} seconds; {sum(up):.1f} MB went up and "
        f"{sum(down):.1f} MB down, all sites together. {_missing(facts.missing)}",
        svg_of("effort", (_WIDE, 2.5), paint),
        ("round", "phase", "seconds", "MB up", "MB down", "sites in the sum"),
        tuple(
            (str(i), line["phase"], f"{line['seconds']:.2f}", f"{u:.3f}", f"{d:.3f}", str(n))
            for i, line, u, d, n in zip(rounds, facts.rounds, up, down, sites, strict=True)
        ),
    )


def dots_chart(
    name: str,
    title: str,
    summary: str,
    label: str,
    rows: Sequence[tuple[str, float, float | None, str]],
) -> Chart:
    """Draw one figure a row, with its spread: ours and the real images marked, others not.

    Parameters
    ----------
    rows
        (who, value, spread or None, kind) with a kind of ``ours``, ``real`` or ``peer``.
    """
    looks: dict[str, Any] = {
        "ours": {"color": FIRST, "fmt": "o", "markersize": 8},
        "real": {"color": SECOND, "fmt": "D", "markersize": 6, "markerfacecolor": "none"},
        "peer": {"color": SOFT, "fmt": "s", "markersize": 5},
    }

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for y, (_, value, spread, kind) in enumerate(rows):
            axes.errorbar([value], [y], xerr=None if spread is None else [spread], **looks[kind])
            axes.annotate(
                *(f"{value:.3f}", (1, y)),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set(xlabel=label, ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")

    return Chart(
        name,
        title,
        summary,
        svg_of(name, (_WIDE, 0.8 + 0.28 * len(rows)), paint),
        ("", label),
        tuple((who, f"{v:.4f}" if s is None else f"{v:.4f} ± {s:.4f}") for who, v, s, _ in rows),
    )


def classes_chart(names: Sequence[str], result: Mapping[str, Any]) -> Chart:
    """Accuracy and coverage of each class, beside those of real images."""
    coverage = result["coverage"]
    pairs = (
        ("accuracy", result["accuracy_per_class"], result["accuracy_real_per_class"]),
        ("coverage", coverage["coverage_per_class"], coverage["coverage_real_per_class"]),
    )

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (heading, ours, real) in zip(panels, pairs, strict=True):
            rows = range(len(names))
            known = [[x if x is not None else float("nan") for x in xs] for xs in (ours, real)]
            axes.hlines(rows, known[0], known[1], color=SOFT, linewidth=1.2)
            axes.plot(known[0], rows, "o", color=FIRST, label="synthetic")
            axes.plot(known[1], rows, "D", color=SECOND, markerfacecolor="none", label="real")
            axes.set_title(heading)
            axes.set(ylim=(len(names) - 0.5, -0.5))
        panels[0].set_yticks(range(len(names)), names)
        panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)

    weakest = min(range(len(names)), key=lambda c: pairs[0][1][c] or 0)
    return Chart(
        "classes",
        "Class by class",
        f"The class least well learned is {names[weakest]}, with accuracy "
        f"{pairs[0][1][weakest]:.3f}; trained on real images it is {pairs[0][2][weakest]:.3f}.",
        svg_of("classes", (_WIDE, 0.8 + 0.26 * len(names)), paint),
        ("class", "accuracy", "accuracy, real", "coverage", "coverage, real"),
        tuple(
            (name, *("–" if x is None else f"{x:.3f}" for p in pairs for x in (p[1][c], p[2][c])))
            for c, name in enumerate(names)
        ),
    )


def _missing(dropped: int) -> str:
    if not dropped:
        return "No site was missing in any sum."
    return f"Reports of sites were missing {dropped} times, and no round was lost."
