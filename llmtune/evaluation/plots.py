"""Charts as inline SVG. Their colours come from report.css, so that they follow light and dark mode."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 14, 12, 42
MOST_MARKED = 60  # points of a line that get a mark with a tooltip
MANY_DOTS = 500  # more are drawn smaller
NUM_BARS = 40  # of a histogram
LEFT_OUT = 0.005  # share of the largest values that would stretch a histogram
LARGEST = 1e150  # beyond it, differences would overflow

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Attributes:
        name: in the legend; an empty one has no entry.
        points: None and what is not finite is left out.
        look: 'line', 'dots', 'faint' (a thin line behind others), 'dashed', or 'area' (a line above a filled area).
        colour: 1 to 4, of the style sheet.
    """

    name: str
    points: Sequence[tuple[float | None, float | None]]
    look: Literal["line", "dots", "faint", "dashed", "area"] = "line"
    colour: int = 1


def chart(title: str, series: Sequence[Series], *, x_name: str, y_name: str = "", most_points: int = 500) -> str:
    """A figure with title, legend and axes; '' if there is not a single point to show."""
    drawn = [(s, thin(drawable(s.points), most_points)) for s in series]
    everything = [p for _, points in drawn for p in points]
    if not everything:
        return ""
    x_axis = _Axis.around([x for x, _ in everything], start=LEFT, end=WIDTH - RIGHT, margin=0.02)
    y_axis = _Axis.around([y for _, y in everything], start=HEIGHT - BOTTOM, end=TOP, margin=0.05)
    parts = [_frame(x_axis, y_axis, x_name, y_name)]
    parts += [_marks(s, [(x_axis(x), y_axis(y)) for x, y in points], points) for s, points in drawn if points]
    named = [s for s, points in drawn if s.name and points]
    legend = "".join(f'<span class="key c{s.colour} {s.look}">{escape(s.name)}</span>' for s in named)
    return (
        f'<figure><figcaption><b>{escape(title)}</b>{legend}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg></figure>'
    )


def histogram(title: str, values: Mapping[str, np.ndarray], *, x_name: str) -> str:
    """Shares of the values that lie in each of `NUM_BARS` intervals, a series for each name; '' without values.

    The largest values, `LEFT_OUT` of all, are counted in the last interval.
    """
    known = {name: found[np.isfinite(found)] for name, found in values.items()}
    known = {name: found for name, found in known.items() if len(found)}
    if not known:
        return ""
    everything = np.concatenate(list(known.values()))
    low, high = float(everything.min()), float(np.quantile(everything, 1 - LEFT_OUT))
    is_whole = bool((everything == np.round(everything)).all())
    high = max(high, low + (1.0 if is_whole else 1e-9 * max(1.0, abs(low))))
    width = max(1.0, np.ceil((high + 1 - low) / NUM_BARS)) if is_whole else (high - low) / NUM_BARS
    edges = low + width * np.arange(int(np.ceil((high + is_whole - low) / width - 1e-9)) + 1)
    series = []
    for colour, (name, found) in enumerate(known.items(), 1):
        counts, _ = np.histogram(np.minimum(found, edges[-1] - width / 2), edges)
        shares = np.repeat(counts / len(found), 2).tolist()
        places = np.repeat(edges, 2)[1:-1].tolist()
        points = [(places[0], 0.0), *zip(places, shares, strict=True), (places[-1], 0.0)]
        series.append(Series(name if len(known) > 1 else "", points, look="area", colour=colour))
    return chart(title, series, x_name=x_name, y_name="share of rows")


def drawable(points: Sequence[tuple[float | None, float | None]]) -> list[Point]:
    """The points without None, NaN, infinity, and what overflows a picture's arithmetic."""
    return [p for p in points if all(v is not None and math.isfinite(v) and abs(v) < LARGEST for v in p)]


def thin(points: Sequence, most: int) -> list:
    """At most `most` of the points, evenly spaced, the first and the last included."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def smooth(points: Sequence[Point], share: float = 0.04) -> list[Point]:
    """Each y as a running mean that looks back over a share of all points; exponential weights."""
    decay = 1 - 1 / max(1.0, share * len(points))
    smoothed, total, weight = [], 0.0, 0.0
    for x, y in points:
        total, weight = decay * total + y, decay * weight + 1
        smoothed.append((x, total / weight))
    return smoothed


@dataclass(frozen=True)
class _Axis:
    """Maps values to positions in the picture."""

    low: float
    high: float
    start: float
    end: float
    step: float

    @classmethod
    def around(cls, values: Sequence[float], *, start: float, end: float, margin: float) -> "_Axis":
        low, high = min(values), max(values)
        span = high - low if high - low > 1e-12 * max(abs(low), abs(high)) else (abs(low) or 1.0) * 0.2
        centre = (low + high) / 2
        step = _round_step(span / (abs(end - start) / 70))
        if all(isinstance(v, int) for v in values):
            step = max(1.0, step)
        half = span * (0.5 + margin)
        return cls(centre - half, centre + half, start, end, step)

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        first, last = math.ceil(self.low / self.step), math.floor(self.high / self.step)
        values = [i * self.step for i in range(first, last + 1)]
        largest = max((abs(v) for v in values), default=0.0)
        if largest >= 1e6 or self.step < 1e-4:
            return [(v, f"{v:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")) for v in values]
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return [(v, f"{v:,.{decimals}f}") for v in values]


def _round_step(step: float) -> float:
    """The next larger of 1, 2, 5 and their multiples by powers of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(nice for nice in (power, 2 * power, 5 * power, 10 * power) if nice >= step * (1 - 1e-9))


def _frame(x_axis: _Axis, y_axis: _Axis, x_name: str, y_name: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, label in y_axis.ticks():
        y = y_axis(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>')
        parts.append(f'<text class="left" x="{LEFT - 7}" y="{y + 4}">{label}</text>')
    for value, label in x_axis.ticks():
        x = x_axis(value)
        parts.append(f'<path class="grid" d="M{x} {bottom}v5"/><text x="{x}" y="{bottom + 18}">{label}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    parts.append(f'<text class="name" x="{(LEFT + right) / 2}" y="{HEIGHT - 6}">{escape(x_name)}</text>')
    if y_name:
        middle = (TOP + bottom) / 2
        parts.append(f'<text class="name" x="13" y="{middle}" transform="rotate(-90 13 {middle})">{escape(y_name)}</text>')
    return "".join(parts)


def _marks(series: Series, positions: Sequence[Point], values: Sequence[Point]) -> str:
    if series.look == "dots":
        radius = 3 if len(positions) <= MANY_DOTS else 2
        dots = "".join(f'<circle cx="{x:g}" cy="{y:g}" r="{radius}"/>' for x, y in positions)
        return f'<g class="dots c{series.colour}">{dots}</g>'
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in positions)
    if series.look == "area":
        path += f"V{HEIGHT - BOTTOM}H{positions[0][0]:g}Z"
    line = f'<path class="{series.look} c{series.colour}" d="{path}"/>'
    if series.look != "line" or len(positions) > MOST_MARKED:
        return line
    told = [f"<title>{escape(f'{series.name} {y:.5g} at {x:g}'.strip())}</title>" for x, y in values]
    dots = "".join(f'<circle cx="{x:g}" cy="{y:g}" r="3.5">{t}</circle>' for (x, y), t in zip(positions, told, strict=True))
    return f'{line}<g class="marks c{series.colour}">{dots}</g>'
