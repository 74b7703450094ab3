"""The one look of all figures: sizes, colours, markers, panels, legends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

from saeflow.config.sections import Figures
from saeflow.palette import FAINT, INK, SERIES

# Matplotlib is imported where it draws: whoever reads what figures are declared starts without it.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

P = ParamSpec("P")

EQUALITY: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3))}
"""The line on which what was predicted equals what was measured."""
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9A9A9A",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "text.parse_math": False,  # tokens and titles that hold `$` are no formulas
    "svg.fonttype": "path",
    "svg.hashsalt": "saeflow",  # names inside the SVG follow from its content, not from chance
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the house style, whatever matplotlib settings the user has."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib.style

        with matplotlib.style.context(STYLE, after_reset=True):
            figure = draw(*args, **kwargs)
        _write_powers_as_numbers(figure)
        return figure

    return wrapper


def _write_powers_as_numbers(figure: Figure) -> None:
    """Label logarithmic axes by plain numbers: matplotlib's own labels are formulas, which a style
    that reads `$` as a character would show as they are written."""
    from matplotlib.ticker import LogFormatterMathtext, NullFormatter

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter("{x:g}")
            if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(NullFormatter())


LONGEST_NAME = 60
"""Characters of a name that a figure has room for."""


def words(name: str) -> str:
    """A goal or a feature as it stands in a figure: ``want_to_die`` becomes ``want to die``.

    A name that leaves no room for the figure itself loses its middle, as names that differ do so at
    an end.
    """
    text = name.replace("_", " ")
    if len(text) <= LONGEST_NAME:
        return text
    end = LONGEST_NAME // 3
    return f"{text[: LONGEST_NAME - end - 1]}…{text[-end:]}"


def canvas(width: float, height: float, settings: Figures) -> Figure:
    """An empty figure, of so many inches, that makes room for all that is written in it."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=settings.dpi, layout="constrained")


LETTER, MARGIN = 0.08, 0.3
"""Inches that a letter of a title takes, and that lie between two titles."""


def panels(
    count: int,
    settings: Figures,
    height: float,
    share_x: bool = True,
    share_y: bool = True,
    columns: int | None = None,
    titles: Sequence[str] = (),
) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` equal panels in a grid.

    Args:
        count: how many panels.
        settings: width and resolution of the figure.
        height: of one row of panels, inches.
        columns: panels beside each other, at most; by default as many as stay readable.
        titles: of the panels, where they may be long: none is to run into the next.

    Returns:
        The figure, and its panels in reading order.
    """
    alone = columns is None and count == 1
    columns = columns or (count if count < 4 else 2 if count == 4 else 3 if count < 10 else 4)
    longest = max((len(line) for title in titles for line in title.split("\n")), default=0)
    columns = max(1, min(columns, count, int(settings.width / (LETTER * longest + MARGIN))))
    rows = -(-count // columns)
    size = (
        (min(settings.width, 6.5), 1.6 * height + 0.6)
        if alone
        else (settings.width, height * rows + 0.6)
    )
    figure = canvas(*size, settings)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    for column, spare in enumerate(grid[-1]):
        if (rows - 1) * columns + column >= count:
            spare.remove()
            grid[-2][column].tick_params(labelbottom=True)  # now the lowest of its column
    return figure, list(grid.flat)[:count]


def band_opacity(bands: int) -> float:
    """How opaque each of so many bands of intervals is, so that lines and grid are seen through all
    of them where they lie upon each other."""
    return min(0.13, 1 - 0.55 ** (1 / max(bands, 1)))


class Stroke(NamedTuple):
    """How one of many lines is drawn."""

    color: Any
    linestyle: Any


DASHES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.6, 1, 1.6)))
TOLD_APART = len(SERIES) * len(DASHES)
"""How many lines look different from all others; more are shaded in their order."""


def strokes(count: int) -> list[Stroke]:
    """As many lines, each unlike the others: colours first, then dashes; beyond that shades from
    dark to light."""
    if count > TOLD_APART:
        import matplotlib

        shades = matplotlib.colormaps["viridis"]
        return [Stroke(shades(0.95 * i / (count - 1)), "-") for i in range(count)]
    return [Stroke(SERIES[i % len(SERIES)], DASHES[i // len(SERIES)]) for i in range(count)]


def legend_entry(**look: Any) -> Line2D:
    """A line of a legend that stands for no line of the figure, drawn as matplotlib's Line2D."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def legend(figure: Figure, handles: Iterable[Any]) -> None:
    """One legend for all panels, above them, read line by line."""
    entries = list(handles)
    widths = [0.5 + 0.073 * len(str(entry.get_label())) for entry in entries]  # inches
    columns = next(
        count
        for count in range(max(1, len(entries)), 0, -1)
        if count == 1 or sum(max(widths[i::count]) for i in range(count)) <= figure.get_figwidth()
    )
    # Matplotlib fills column by column.
    order = [place for first in range(columns) for place in range(first, len(entries), columns)]
    made = figure.legend(
        handles=[entries[place] for place in order],
        loc="outside upper left",
        ncols=columns,
        columnspacing=1.4,
        handlelength=1.8,
    )
    made.texts = [made.texts[order.index(place)] for place in range(len(entries))]


def no_data(settings: Figures, what: str) -> Figure:
    """A figure that says in words that there is nothing to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(settings.width, 1.8), dpi=settings.dpi)
    figure.text(
        0.5, 0.5, f"no data: {what}", ha="center", va="center", color="#555555", fontsize=11
    )
    return figure
