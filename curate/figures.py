"""Draw histograms as inline SVG, and write numbers for people."""

from collections.abc import Sequence

from markupsafe import Markup

HEIGHT = 100.0


def histogram_svg(kept: Sequence[int], dropped: Sequence[int], label: str) -> Markup:
    """Draw stacked bars, kept below dropped; the page's style gives width and colours."""
    tallest = max([a + b for a, b in zip(kept, dropped, strict=True)] + [1])
    bars = []
    for x, (below, above) in enumerate(zip(kept, dropped, strict=True)):
        bars.append(_bar(x, 0, below, tallest, "kept"))
        bars.append(_bar(x, below, above, tallest, "dropped"))
    return Markup(
        '<svg role="img" aria-label="{}" viewBox="0 0 {} {:g}" preserveAspectRatio="none">{}</svg>'
    ).format(label, len(kept), HEIGHT, Markup("").join(bars))


def _bar(x: int, below: int, count: int, tallest: int, kind: str) -> Markup:
    if not count:
        return Markup("")
    height = max(HEIGHT * count / tallest, 1.0)  # a single pair among thousands stays visible
    y = max(HEIGHT - HEIGHT * below / tallest - height, 0.0)
    return Markup('<rect class="{}" x="{:g}" y="{:.2f}" width=".92" height="{:.2f}"/>').format(
        kind, x + 0.04, y, height
    )


def breakable(name: str) -> Markup:
    """Let a long name break after its underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def is_log(edges: Sequence[float]) -> bool:
    """Say whether bin edges grow by a factor rather than a step."""
    first, last = edges[1] - edges[0], edges[-1] - edges[-2]
    return last > 2 * first


def number(value: float | None) -> str:
    """Write a count with thousands separated, other numbers with four digits.

    >>> number(12345), number(0.123456), number(None)
    ('12,345', '0.1235', 'none')
    """
    if value is None:
        return "none"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(share: int, of: int) -> str:
    """Write a share in percent; a part that is not all is never rounded to 100 or to 0.

    >>> percent(9999, 10000), percent(1, 100000), percent(0, 0)
    ('> 99.9 %', '< 0.1 %', '0 %')
    """
    if not share or not of:
        return "0 %"
    value = 100 * share / of
    if value < 0.1:
        return "< 0.1 %"
    if 99.9 < value < 100:
        return "> 99.9 %"
    return f"{value:.1f} %"
