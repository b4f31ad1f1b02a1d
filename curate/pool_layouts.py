"""The column layouts of published pools, by the names a recipe gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PoolLayout:
    """Which columns of a pool's files mean what, in lower case.

    ``header`` names the columns of a TSV that has none: not quoted, and cut at every tab.
    ``means`` gives columns the name they have here.
    """

    url: tuple[str, ...] = ("url",)
    caption: tuple[str, ...] = ("caption",)
    means: Mapping[str, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()


_FOUND_SIZE = {"width": "original_width", "height": "original_height"}
"""Both pools give the size of the picture as it was found, before any resizing."""

LAYOUTS: dict[str, PoolLayout] = {
    # URL, TEXT, WIDTH, HEIGHT, similarity, ... of 400M and 5B; url, caption of Re-LAION
    "laion": PoolLayout(caption=("text", "caption"), means=_FOUND_SIZE),
    # uid, url, text, original_width, original_height, ..., sha256
    "datacomp": PoolLayout(caption=("text",)),
    # Conceptual Captions' TSV; the subset with image labels has three columns more
    "cc3m": PoolLayout(
        url=("url", "image_url"), header=("caption", "url", "labels", "mids", "confidences")
    ),
    "cc12m": PoolLayout(url=("url", "image_url"), header=("url", "caption")),
    # id, url, text, width, height, image_phash, ...
    "coyo": PoolLayout(caption=("text",), means=_FOUND_SIZE),
}
"""Layouts by name; a TSV that somebody has given a header line is read all the same."""
