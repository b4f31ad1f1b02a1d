"""How large a model is: one word of a recipe, or the ten numbers behind it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Widths and depths of the two towers, the joint space and the decoder."""

    width: int
    depth: int
    heads: int
    text_width: int
    text_depth: int
    text_heads: int
    embedding: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int


SIZES: Mapping[str, Size] = {
    "nano": Size(64, 3, 2, 64, 1, 2, 64, 32, 1, 2),
    "micro": Size(128, 6, 4, 128, 2, 4, 128, 128, 1, 4),
    "tiny": Size(192, 12, 3, 192, 4, 3, 192, 128, 2, 4),
    "small": Size(384, 12, 6, 384, 6, 6, 384, 256, 4, 8),
    "base": Size(768, 12, 12, 512, 12, 8, 512, 512, 8, 16),  # ViT-B and CLIP's caption tower
}
