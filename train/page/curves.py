"""Draw curves of several runs as inline SVG, told apart by colour, by dashes and by marks."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from markupsafe import Markup

WIDTH, HEIGHT = 360.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 10.0, 8.0, 22.0
MOST_POINTS = 300  # of a line: about one a pixel
MARKS_A_LINE = 5

COLOURS = 6  # the page's style defines .c0 to .c5
DASHES = ("none", "7 3", "2 3", "10 3 2 3", "14 4")
MARKS = (
    "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",  # disc
    "m-3-3h6v6h-6z",  # square
    "m0-4.5l4 7h-8z",  # triangle
    "m0-4.5l4 4.5l-4 4.5l-4-4.5z",  # diamond
    "m-4-1.2h2.8v-2.8h2.4v2.8h2.8v2.4h-2.8v2.8h-2.4v-2.8h-2.8z",  # cross
    "m0 4.5l4-7h-8z",  # triangle on its tip
)


@dataclass(frozen=True)
class Line:
    """A run's values of one metric; ``style`` is the run's number on the page."""

    name: str
    style: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Round numbers around all values, and where each value stands between two places."""

    ticks: tuple[float, ...]
    start: float
    end: float

    @classmethod
    def around(cls, low: float, high: float, most_ticks: int, start: float, end: float) -> "Axis":
        """Choose ticks a step of 1, 2 or 5 times a power of ten apart; the ends are ticks."""
        if low == high:
            low, high = low - (abs(low) / 2 or 1), high + (abs(high) / 2 or 1)
        step = _round_step((high - low) / most_ticks)
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        digits = max(0, 1 - floor(log10(step)))
        ticks = tuple(round(i * step, digits) + 0.0 for i in range(first, last + 1))
        return cls(ticks, start, end)

    def place(self, value: float) -> float:
        """Return where a value stands."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return self.start + share * (self.end - self.start)


def chart_svg(lines: Sequence[Line], label: str, *, from_zero: bool = False) -> Markup:
    """Draw lines over steps in one frame; the page's style gives the colours.

    Of a line of more than MOST_POINTS points each stretch shows its lowest and its highest, so
    that no spike is lost.
    """
    values = [y for line in lines for _, y in line.points]
    steps = [x for line in lines for x, _ in line.points]
    x_axis = Axis.around(0, max(steps), 4, LEFT, WIDTH - RIGHT)
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(low, 0), max(high, 0)
    y_axis = Axis.around(low, high, 4, HEIGHT - BOTTOM, TOP)
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {:g} {:g}">{}{}</svg>').format(
        label, WIDTH, HEIGHT, _frame(x_axis, y_axis), _drawn(lines, x_axis, y_axis)
    )


def mark_svg(style: int) -> Markup:
    """Draw a short piece of a run's line with its mark, for legends."""
    return Markup(
        '<svg class="mark c{}" aria-hidden="true" viewBox="0 0 34 12">'
        '<path class="line" stroke-dasharray="{}" d="M1 6H33"/><path class="at" d="M17 6{}"/></svg>'
    ).format(style % COLOURS, DASHES[style % len(DASHES)], MARKS[style % len(MARKS)])


def finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave out what no axis can show."""
    return [(x, y) for x, y in points if isfinite(y)]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most MOST_POINTS of a line's points, both ends and every extreme among them."""
    if len(points) <= MOST_POINTS:
        return list(points)
    inner, stretches = points[1:-1], MOST_POINTS // 2 - 1
    kept = [points[0]]
    for i in range(stretches):
        few = inner[i * len(inner) // stretches : (i + 1) * len(inner) // stretches]
        kept += sorted({min(few, key=lambda p: p[1]), max(few, key=lambda p: p[1])})
    return [*kept, points[-1]]


def tick_text(value: float) -> str:
    """Write a tick's number.

    >>> tick_text(0.004), tick_text(20000.0)
    ('0.004', '20,000')
    """
    return f"{value:,.6g}"


def _round_step(least: float) -> float:
    power = 10.0 ** floor(log10(least))
    return float(
        next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * 0.999)
    )


def _frame(x_axis: Axis, y_axis: Axis) -> Markup:
    grid = (
        Markup(
            '<path class="grid" d="M{:g} {:.2f}H{:g}"/>'
            '<text class="y" x="{:g}" y="{:.2f}" dy=".35em">{}</text>'
        ).format(LEFT, y, WIDTH - RIGHT, LEFT - 6, y, tick_text(tick))
        for tick, y in ((tick, y_axis.place(tick)) for tick in y_axis.ticks)
    )
    steps = (
        Markup('<text class="x" x="{:.2f}" y="{:g}">{}</text>').format(
            x_axis.place(tick), HEIGHT - 6, tick_text(tick)
        )
        for tick in x_axis.ticks
    )
    return Markup("").join([*grid, *steps])


def _drawn(lines: Sequence[Line], x_axis: Axis, y_axis: Axis) -> Markup:
    return Markup("").join(
        Markup('<g class="c{}">{}{}</g>').format(
            line.style % COLOURS, _path(line, x_axis, y_axis), _marks(line, x_axis, y_axis)
        )
        for line in lines
    )


def _path(line: Line, x_axis: Axis, y_axis: Axis) -> Markup:
    places = (f"{x_axis.place(x):.2f} {y_axis.place(y):.2f}" for x, y in thinned(line.points))
    return Markup('<path class="line" stroke-dasharray="{}" d="M{}"/>').format(
        DASHES[line.style % len(DASHES)], "L".join(places)
    )


def _marks(line: Line, x_axis: Axis, y_axis: Axis) -> Markup:
    """Mark a few points, other ones for each run, so that equal lines show all their marks."""
    last, apart = len(line.points) - 1, max(1, len(line.points) // MARKS_A_LINE)
    first = (line.style * apart // len(MARKS)) % apart
    return Markup("").join(
        Markup(
            '<path class="at" d="M{:.2f} {:.2f}{}"><title>{}, step {:,}: {:.4g}</title></path>'
        ).format(
            x_axis.place(x), y_axis.place(y), MARKS[line.style % len(MARKS)], line.name, int(x), y
        )
        for x, y in (line.points[i] for i in [*range(first, last, apart), last])
    )
