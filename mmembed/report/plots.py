"""Plots as inline SVG that takes its text colour and typeface from the page around it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from mmembed.report.score_table import Score, number

WIDTH = 9.5  # inches; the page scales it to its own width
PALETTE = (
    "#4c78d0", "#e0823d", "#3fa66b", "#c94f5d", "#8a6fc7",
    "#35a3b4", "#d479b3", "#a0785a", "#b0a83c", "#7f8c8d",
)  # fmt: skip
MARKED_POINTS = 30  # a curve of no more points than this shows them
CURVE_POINTS = 200  # a longer curve is averaged down to this many
MARKED_CELLS = 150  # a matrix of no more cells than this shows its numbers

# Colours that do not occur otherwise; in the SVG they become the page's own colours.
_TEXT, _GRID = "#010203", "#010204"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "mmembed",  # the same plot gives the same bytes
    "text.parse_math": False,  # names are shown as they are
    "font.size": 9.0,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}

Curve = tuple[ArrayLike, ArrayLike]
Colours = dict[str, str]


@dataclass(frozen=True)
class Plot:
    """A drawing for the macro `figure`.

    Attributes:
        svg: the element; together with the style sheet the only markup that no template writes.
        description: the drawing in words; no other drawing of a page has the same.
        width: fraction of the page's; narrow drawings stay narrow, so that their letters match.
    """

    svg: Markup
    description: str
    width: float


def colours_of(names: Sequence[str]) -> Colours:
    """A colour for each distinct name, in sorted order."""
    distinct = sorted(set(names))
    if len(distinct) <= len(PALETTE):
        return dict(zip(distinct, PALETTE, strict=False))
    wheel = mpl.colormaps["turbo"](np.linspace(0.05, 0.95, len(distinct)))
    return {name: mpl.colors.to_hex(c) for name, c in zip(distinct, wheel, strict=True)}


@mpl.rc_context(_STYLE)
def curves(panels: Mapping[str, Curve], across: int) -> Plot:
    """Small multiples of line plots over steps: panel title -> (x, y)."""
    rows = -(-len(panels) // across)
    figure = Figure(figsize=(WIDTH, 2.3 * rows))
    axes = figure.subplots(rows, across, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (title, (x, y)) in zip(axes, panels.items(), strict=False):
        marker = "o" if np.size(x) <= MARKED_POINTS else None
        axis.plot(_thin(x), _thin(y), color=PALETTE[0], marker=marker, markersize=3)
        axis.set(title=title, xlabel="step")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.margins(x=0.02)
    return _plot(figure, f"curves of {', '.join(panels)}")


@mpl.rc_context(_STYLE)
def bars(
    values: Mapping[str, object],
    label: str,
    marks: tuple[str, Mapping[str, Score]] | None = None,
    digits: int = 3,
) -> Plot:
    """Horizontal bars with intervals, in the order given.

    Args:
        values: for each bar what `Score.of` reads.
        label: of the axis.
        marks: a name for the legend, and a score for some bars to compare with.
        digits: after the point, of the numbers beside the bars.
    """
    figure = Figure(figsize=(WIDTH, 0.7 + 0.3 * len(values)))
    axis = figure.subplots()
    heights, scores = np.arange(len(values)), [Score.of(value) for value in values.values()]
    axis.barh(heights, [score.mean for score in scores], 0.66, color=PALETTE[0])
    for height, score in zip(heights, scores, strict=True):
        if np.isfinite(score.low) and np.isfinite(score.high):
            axis.plot([score.low, score.high], [height, height], color=_TEXT, linewidth=1.2)
        end = (np.nanmax([0.0, score.mean, score.high]), height)
        text = number(score.mean, digits)
        axis.annotate(text, end, (5, 0), textcoords="offset points", va="center")
    if marks is not None and (known := [name for name in values if name in marks[1]]):
        axis.scatter(
            [marks[1][name].mean for name in known],
            [height for height, name in enumerate(values) if name in known],
            marker="D", s=22, color=PALETTE[1], label=marks[0], zorder=3,
        )  # fmt: skip
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1))
    axis.set_yticks(heights, list(values))
    axis.set(xlabel=label)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.margins(x=0.08, y=0.02)
    return _plot(figure, f"bars of {label}")


@mpl.rc_context(_STYLE)
def histogram(values: ArrayLike, label: str, unit: str) -> Plot:
    """How many values lie where: counts of `unit` along an axis called `label`."""
    figure = Figure(figsize=(WIDTH, 2.4))
    axis = figure.subplots()
    array = np.asarray(values, np.float64)
    axis.hist(array, bins=min(60, max(10, round(len(array) ** 0.5))), color=PALETTE[0])
    axis.set(xlabel=label, ylabel=unit)
    axis.grid(axis="x", visible=False)
    return _plot(figure, f"histogram of {label}")


@mpl.rc_context(_STYLE)
def paired_bars(groups: Sequence[str], series: Mapping[str, ArrayLike], label: str) -> Plot:
    """Vertical bars side by side: one cluster for each group, one colour for each series."""
    figure = Figure(figsize=(WIDTH, 2.4))
    axis = figure.subplots()
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        left = np.arange(len(groups)) + (i - (len(series) - 1) / 2) * width
        axis.bar(left, np.asarray(values), width * 0.94, color=PALETTE[i], label=name)
    axis.set_xticks(np.arange(len(groups)), groups)
    axis.set(ylabel=label)
    axis.grid(axis="x", visible=False)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(series))
    return _plot(figure, label)


@mpl.rc_context(_STYLE)
def agreement(truth: ArrayLike, predicted: ArrayLike, names: Sequence[str]) -> Plot:
    """Predicted against true sentiment, coloured by name, with the line of perfect prediction."""
    figure = Figure(figsize=(WIDTH * 0.62, WIDTH * 0.46))
    axis = figure.subplots()
    axis.plot([-3, 3], [-3, 3], color=_TEXT, linewidth=0.8, linestyle="--")
    colours = list(map(colours_of(names).__getitem__, names))
    axis.scatter(np.asarray(truth), np.asarray(predicted), s=16, c=colours, alpha=0.75, lw=0)
    axis.set(xlabel="true sentiment", ylabel="predicted sentiment", xlim=(-3.2, 3.2))
    return _plot(figure, "predicted against true sentiment")


@mpl.rc_context(_STYLE)
def maps(
    positions: NDArray[np.float64],
    by_name: Mapping[str, Sequence[str]],
    by_value: Mapping[str, NDArray[np.float64]],
) -> Plot:
    """The same (N, 2) positions side by side, coloured by names and by values in [-3, 3]."""
    count = len(by_name) + len(by_value)
    figure = Figure(figsize=(WIDTH, WIDTH / 3 if count > 2 else WIDTH / 2.4))
    axes = iter(figure.subplots(1, count, squeeze=False).ravel())
    for title, names in by_name.items():
        _dots(next(axes), title, positions, list(map(colours_of(names).__getitem__, names)))
    for title, values in by_value.items():
        known = np.isfinite(values)
        colours = mpl.colormaps["coolwarm"]((np.clip(values[known], -3, 3) + 3) / 6)
        _dots(next(axes), title, positions[known], list(colours))
    return _plot(figure, "map of embeddings")


@mpl.rc_context(_STYLE)
def heat(
    matrix: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    axes: tuple[str, str],
    label: str,
    title: str,
    top: float = 1.0,
) -> Plot:
    """A matrix as a picture: the first row on top, values in the cells of a small one.

    Args:
        matrix: (rows, columns) in [0, top].
        rows: names down the side.
        columns: names along the bottom.
        axes: what the rows and the columns are.
        label: what the values are.
        title: the picture in words; no other of the page has the same.
        top: the value of the brightest colour.
    """
    values = np.asarray(matrix, np.float64)
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"{values.shape} values, {len(rows)} rows, {len(columns)} columns")
    shades = mpl.colormaps["viridis"].resampled(20)
    figure = Figure(figsize=(WIDTH * 0.7, 1.4 + WIDTH * 0.55 * len(rows) / len(columns)))
    axis = figure.subplots()
    mesh = axis.pcolormesh(values, cmap=shades, vmin=0, vmax=top)
    if values.size <= MARKED_CELLS:
        for (row, column), value in np.ndenumerate(values):
            shade = "black" if value > 0.6 * top else "white"
            middle = (column + 0.5, row + 0.5)
            axis.annotate(f"{value:.2f}", middle, ha="center", va="center", color=shade, size=7)
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90)
    axis.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axis.set(xlabel=axes[1], ylabel=axes[0])
    axis.invert_yaxis()
    axis.grid(visible=False)
    figure.colorbar(mesh, ax=axis, label=label)
    return _plot(figure, title)


def _dots(axis: Axes, title: str, positions: NDArray[np.float64], colours: Sequence[Any]) -> None:
    axis.scatter(positions[:, 0], positions[:, 1], s=16, c=list(colours), alpha=0.85, linewidths=0)
    axis.set(title=title, xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _thin(values: ArrayLike) -> NDArray[np.float64]:
    """(n,) -> at most `CURVE_POINTS` means of neighbours."""
    array = np.asarray(values, np.float64)
    parts = np.array_split(array, min(len(array), CURVE_POINTS))
    return np.array([part.mean() for part in parts])


def _plot(figure: Figure, description: str) -> Plot:
    """The figure as an element that can stand beside others: own ids, no outside reference."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the page's own typeface shows them
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]  # drops the XML declaration and the document type
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows the name spaces
    svg = svg.replace("xlink:href", "href")
    # Only ids that something refers to are kept, under a name that no other plot has.
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    prefix = re.sub(r"\W+", "-", description)
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", svg)
    svg = svg.replace(_TEXT, "currentColor").replace(_GRID, "var(--grid)")
    return Plot(Markup(svg), description, figure.get_figwidth() / WIDTH)  # noqa: S704
