"""Keep captions of a sensible length."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..options import check_whole
from ..stage import Filter


@dataclass(frozen=True)
class CaptionLength(Filter, name="caption_length"):
    """Keep pairs whose caption has enough words and characters.

    Words are what whitespace separates; characters are Unicode code points.
    Source: DataComp (arXiv 2304.14108), basic filtering: more than 2 words and 5 characters.
    """

    min_words: int = 3  # DataComp
    min_characters: int = 6  # DataComp

    reads = ("caption",)
    writes = {"words": pa.int32(), "characters": pa.int32()}
    thresholds = ("min_words", "min_characters")

    def __post_init__(self) -> None:
        check_whole(self, "min_words", 0)
        check_whole(self, "min_characters", 0)

    def annotate(self, pairs: pa.Table) -> dict[str, pa.Array]:
        """Count words and characters; null where there is no caption."""
        captions = pairs["caption"].to_pylist()
        words = [None if c is None else len(c.split()) for c in captions]
        characters = [None if c is None else len(c) for c in captions]
        return {
            "words": pa.array(words, pa.int32()),
            "characters": pa.array(characters, pa.int32()),
        }

    def keep(self, pairs: pa.Table) -> pa.BooleanArray:
        """Keep captions that reach both limits."""
        long = pc.and_(
            pc.greater_equal(pairs["words"], self.min_words),
            pc.greater_equal(pairs["characters"], self.min_characters),
        )
        return pc.fill_null(long, False)

    def reason(self, dropped: pa.Table) -> pa.Array:
        """Name the first limit that is not reached; "missing" where there is no caption."""
        few = pc.less(dropped["words"], self.min_words)
        return pc.fill_null(pc.if_else(few, "words", "characters"), "missing")
