"""Charts as inline SVG that follow the page's colours: by day, by night, in print.

Matplotlib writes fixed colours, so a chart is drawn in a few marker colours, which are replaced by
the page's CSS variables. Series also differ in shape and dash, so that no chart is read by colour
alone (Okabe and Ito's palette, distinct for every kind of colour vision). Beside each chart are its
summary in words and its figures as a table, for anyone who cannot see it.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from deploy.pages.peers import Peer
from deploy.pages.run_summary import Evaluation, RunSummary
from deploy.show import epsilon_text
from deploy.table import figure as text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDE = 7.6  # inches

# Colours of the drawing, each replaced by a variable of the page; nothing else is drawn in.
INK, SOFT, GRID = "#010203", "#020304", "#030405"
FIRST, SECOND, THIRD = "#040506", "#050607", "#060708"
_VARIABLES = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    GRID: "var(--grid)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
_BRIEFLY = {"release": "the release", "secure_sum": "the sum", "site": "a site's own reports"}
_ONE = threading.Lock()  # Matplotlib's settings belong to the whole process


@dataclass(frozen=True)
class Chart:
    """A drawing (inline SVG) of figures, their summary in words, and the figures as a table.

    ``name`` is unique on a page, of letters and dashes.
    """

    name: str
    title: str
    summary: str
    svg: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def run_charts(summary: RunSummary) -> dict[str, Chart]:
    """Return the charts of a run by name; before its first round there is only epsilon."""
    found = [epsilon_chart(summary)]
    if summary.rounds:
        found += [noise_chart(summary), effort_chart(summary)]
    return {chart.name: chart for chart in found}


def epsilon_chart(summary: RunSummary) -> Chart:
    """Draw epsilon by round in each view of the plan: spent, planned, and the server's limit."""
    lines, views = summary.rounds, summary.views
    spent = {view: [0.0, *(line[f"epsilon_{view}"] for line in lines)] for view in views}
    ends = [0, *(done for done, _ in summary.planned)]
    planned = {view: [0.0, *(found[view] for _, found in summary.planned)] for view in views}
    limits = summary.config.budget().limits
    dashed: dict[str, Any] = {"color": SOFT, "linestyle": (0, (4, 3)), "marker": "|"}
    thick: dict[str, Any] = {"markersize": 4, "linewidth": 2}

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, len(views), squeeze=False)[0]
        for axes, view, colour, marker in zip(
            panels, views, (FIRST, SECOND), ("o", "D"), strict=False
        ):
            look = {**thick, "color": colour, "marker": marker}
            axes.plot(ends, planned[view], label="planned", gid=f"planned-{view}", **dashed)
            done = range(len(lines) + 1)
            axes.plot(done, spent[view], label="spent", gid=f"spent-{view}", **look)
            if (limit := limits[view]) < float("inf"):
                axes.axhline(limit, color=INK, linewidth=1.2, gid="budget")
                _note(axes, "budget", (0, limit), (4, 3))
            axes.set_title(f"anyone who sees {_BRIEFLY[view]}", pad=10)
            axes.set_ylim(0, None)
            _round_axis(axes, summary.plan.rounds, least=0)
            axes.legend(loc="lower right", fontsize=9)
        panels[0].set_ylabel(f"ε at δ = {summary.plan.delta:g}")

    parts = [
        f"{epsilon_text(spent[view][-1])} of {epsilon_text(planned[view][-1])} planned for anyone "
        f"who sees {seen}"
        for view, seen in views.items()
    ]
    return Chart(
        "epsilon",
        "Privacy spent, round by round",
        f"After {len(lines)} of {summary.plan.rounds} rounds ε is {', and '.join(parts)}.",
        svg_of("epsilon", (_WIDE, 3), paint),
        *_by_round(lines, {f"ε, {_BRIEFLY[v]}": map(epsilon_text, spent[v][1:]) for v in views}),
    )


def noise_chart(summary: RunSummary) -> Chart:
    """Draw the length of each round's answer and of the noise in it, over the clip norm."""
    lines = summary.rounds
    rounds = range(1, len(lines) + 1)
    norms = {key: [line[f"{key}_norm"] for line in lines] for key in ("answer", "noise")}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for key, colour, marker, size in (("answer", FIRST, "o", 5), ("noise", SECOND, "_", 11)):
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": size}
            axes.plot(rounds, norms[key], linewidth=0, label=key, **look)
        axes.set(ylabel="length / clip norm", yscale="log")
        _plain_numbers(axes)
        _round_axis(axes, len(lines))
        _mark_phases(axes, summary.phase_of_round[: len(lines)])
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)

    clear = sum(a > 1.05 * b for a, b in zip(norms["answer"], norms["noise"], strict=True))
    return Chart(
        "noise",
        "Answers and their noise",
        f"In {clear} of {len(lines)} rounds the answer is longer than its noise. Both are lengths "
        "of the whole vector of answers, over the longest vector that one record or person may "
        "have. An answer as long as its noise says little about single coordinates, and may still "
        "say much in a few directions.",
        svg_of("noise", (_WIDE, 3), paint),
        *_by_round(
            lines, {f"length of the {k} / C": (f"{n:.4g}" for n in norms[k]) for k in norms}
        ),
    )


def effort_chart(summary: RunSummary) -> Chart:
    """Draw seconds, bytes and sites of each round."""
    lines, plan = summary.rounds, summary.plan
    rounds = range(1, len(lines) + 1)
    up, down = ([line[f"{way}link_bytes"] / 1e6 for line in lines] for way in ("up", "down"))

    def paint(figure: Figure) -> None:
        seconds, bytes_, sites = figure.subplots(1, 3)
        seconds.bar(rounds, [line["seconds"] for line in lines], color=FIRST, width=0.8)
        seconds.set_title("seconds")
        bytes_.plot(rounds, up, color=FIRST, marker="^", markersize=4, label="to the server")
        bytes_.plot(rounds, down, color=SECOND, marker="v", markersize=4, label="to the sites")
        bytes_.set_title("MB, all sites together")
        bytes_.set_ylim(0, None)
        bytes_.legend(fontsize=8)
        joined = [line["sites"] for line in lines]
        sites.plot(rounds, joined, color=THIRD, drawstyle="steps-mid", linewidth=2)
        sites.axhline(plan.min_survivors, color=INK, linewidth=1.2)
        _note(sites, "fewest allowed", (rounds[0], plan.min_survivors), (2, -12))
        sites.set_title("sites in the sum")
        sites.set_ylim(0, 1.08 * plan.sites)
        for axes in (seconds, bytes_, sites):
            _round_axis(axes, len(lines))

    missing = summary.missing
    return Chart(
        "effort",
        "Seconds, bytes and sites of each round",
        f"{len(lines)} rounds took {summary.seconds:.0f} seconds; {sum(up):.1f} MB went up and "
        f"{sum(down):.1f} MB down, all sites together. "
        + (f"{missing} reports were missing." if missing else "No site was missing in any sum."),
        svg_of("effort", (_WIDE, 2.5), paint),
        *_by_round(
            lines,
            {
                "seconds": (f"{line['seconds']:.2f}" for line in lines),
                "MB up": (f"{size:.3f}" for size in up),
                "MB down": (f"{size:.3f}" for size in down),
                "sites in the sum": (str(line["sites"]) for line in lines),
            },
        ),
    )


def _by_round(
    lines: Sequence[Mapping[str, Any]], columns: Mapping[str, Iterable[str]]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Return the header and rows of a table with a row for each round."""
    rows = zip((line["phase"] for line in lines), *columns.values(), strict=True)
    return ("round", "phase", *columns), tuple((str(i), *row) for i, row in enumerate(rows, 1))


def accuracy_chart(name: str, evaluation: Evaluation, peers: Sequence[Peer]) -> Chart:
    """Draw the accuracy beside that of real images, and of other methods at the same epsilon."""
    score = evaluation.scores["accuracy"]
    ours, real = score.value or 0.0, score.real or 0.0
    looks: dict[str, Any] = {
        "ours": {"color": FIRST, "fmt": "o", "markersize": 8},
        "real": {"color": SECOND, "fmt": "D", "markersize": 6, "markerfacecolor": "none"},
        "peer": {"color": SOFT, "fmt": "s", "markersize": 5},
    }
    rows = [
        ("the real images (ε = ∞)", real, score.real_std, "real"),
        (f"this run, federated: {name}", ours, score.std, "ours"),
        *((f"{p.method}, {p.trust} ({p.measured_by})", p.accuracy, None, "peer") for p in peers),
    ]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for y, (_, value, std, kind) in enumerate(rows):
            axes.errorbar([value], [y], xerr=None if std is None else [std], **looks[kind])
            axes.text(
                1.01, y, f"{value:.3f}", transform=axes.get_yaxis_transform(), va="center", size=9
            )
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set(xlabel="accuracy", ylim=(len(rows) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")

    return Chart(
        "accuracy",
        "Accuracy beside real images and peers",
        f"A classifier trained on these images recognises {100 * ours:.1f} % of "
        f"{evaluation.raw['test_images']} real test images; trained on the real images, "
        f"{100 * real:.1f} %.",
        svg_of("accuracy", (_WIDE, 0.8 + 0.28 * len(rows)), paint),
        ("", "accuracy"),
        tuple((who, f"{v:.4f}" if s is None else f"{v:.4f} ± {s:.4f}") for who, v, s, _ in rows),
    )


def classes_chart(evaluation: Evaluation) -> Chart:
    """Draw accuracy and coverage of each class, beside those of real images."""
    kinds = ("accuracy", "coverage")
    accuracy, coverage = (evaluation.per_class[kind] for kind in kinds)
    names = [score.name for score in accuracy]

    def paint(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, kind in zip(panels, kinds, strict=True):
            scores = evaluation.per_class[kind]
            ours, real = (
                [float("nan") if x is None else x for x in values]
                for values in zip(*((s.value, s.real) for s in scores), strict=True)
            )
            axes.hlines(range(len(names)), ours, real, color=SOFT, linewidth=1.2)
            axes.plot(ours, range(len(names)), "o", color=FIRST, label="synthetic")
            axes.plot(
                real, range(len(names)), "D", color=SECOND, markerfacecolor="none", label="real"
            )
            axes.set_title(kind)
            axes.set(ylim=(len(names) - 0.5, -0.5))
        panels[0].set_yticks(range(len(names)), names)
        panels[1].legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)

    weakest = min(accuracy, key=lambda score: score.value or 0)
    return Chart(
        "classes",
        "Class by class",
        f"The class learned least well is {weakest.name}, with accuracy "
        f"{text_of(weakest.value, 3)}; trained on real images it is {text_of(weakest.real, 3)}.",
        svg_of("classes", (_WIDE, 0.8 + 0.26 * len(names)), paint),
        ("class", "accuracy", "accuracy, real", "coverage", "coverage, real"),
        tuple(
            (a.name, *(text_of(x, 3) for x in (a.value, a.real, c.value, c.real)))
            for a, c in zip(accuracy, coverage, strict=True)
        ),
    )


def svg_of(name: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> str:
    """Draw a figure of some inches as SVG; ``paint`` draws into it in the colours of this module.

    ``name`` is the prefix of every id inside, so that several drawings can share a page.
    """
    import matplotlib as mpl  # slow to import, and only needed here
    from matplotlib.figure import Figure

    with _ONE, mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', text)
    # The page chooses the size; the text beside the drawing describes it.
    return re.sub(
        r'<svg (.*?)width="[^"]*"', r'<svg aria-hidden="true" focusable="false" \1', text, count=1
    ).replace('height="', 'data-height="', 1)


def _note(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float]) -> None:
    axes.annotate(text, at, xytext=offset, textcoords="offset points", fontsize=8)


def _round_axis(axes: Axes, rounds: int, *, least: float = 0.5) -> None:
    """Number the lower axis by whole rounds, from ``least`` to the last."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="round", xlim=(least, rounds + max(0.5, 0.02 * rounds)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def _plain_numbers(axes: Axes) -> None:
    """Write the numbers of the left axis as plain text such as 0.01, not as formulas."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _mark_phases(axes: Axes, phases: Sequence[str]) -> None:
    """Mark the beginning of each phase, with its name above; ``phases`` has one per round."""
    start = 0
    for level, (name, found) in enumerate(groupby(phases)):
        end = start + len(list(found))
        if start:
            axes.axvline(start + 0.5, color=SOFT, linewidth=0.8, linestyle=(0, (1, 3)))
        axes.annotate(
            name,
            ((start + end) / 2 + 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3 + 11 * (level % 3)),  # short phases lie close together
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=SOFT,
        )
        start = end
