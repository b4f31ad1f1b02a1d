"""Others' tokenizers with our numbers for special tokens, and ours with theirs.

A tower knows tokens by number alone: where a tokenizer is renumbered, the rows of its weights go
along, and nothing else has to know whose tokenizer it is.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, processors
from torch import Tensor

from breadth.loaders.errors import OutputError, PoolError
from breadth.loaders.tokenize import BOS, EOS, SPECIALS, load_tokenizer

ROLES: Sequence[tuple[str, ...]] = (
    ("[PAD]", "<pad>"),
    ("[BOS]", "<|startoftext|>", "<start_of_text>", "[CLS]", "<s>"),
    ("[EOS]", "<|endoftext|>", "<end_of_text>", "[SEP]", "</s>"),
    ("[MASK]", "<mask>"),
)
"""What tokenizers call padding, begin, end and mask, in the order of our numbers."""


def renumber(path: Path) -> tuple[Tokenizer, list[int | None]]:
    """Read a tokenizer.json, of CLIP, BERT or another, and give its special tokens our numbers.

    Also returns the number that each token had, None for padding or a mask that it lacked. Raises
    PoolError where there is none, it is of another kind, or has no begin or end.
    """
    written = _read(path)
    known = _vocabulary(written)
    chosen = [next((name for name in names if name in known), None) for names in ROLES]
    if chosen[BOS] is None or chosen[EOS] is None:
        raise PoolError(
            f"{path} has no token for the begin or the end of a caption: give a tokenizer that has"
            f" one of {', '.join(ROLES[BOS])} and one of {', '.join(ROLES[EOS])}"
        )
    specials = [name or ours for name, ours in zip(chosen, SPECIALS, strict=True)]
    words = [token for token in sorted(known, key=known.__getitem__) if token not in specials]
    order = [*specials, *words]
    return _numbered(written, order, specials), [known.get(token) for token in order]


def given_tokenizer(path: Path, run: Path) -> Tokenizer:
    """Read a tokenizer.json for a run; raises OutputError where that has another already."""
    tokenizer, _ = renumber(path)
    held = run / "tokenizer.json"
    if held.is_file() and load_tokenizer(held).to_str() != tokenizer.to_str():
        raise OutputError(f"{run} has another tokenizer than {path}: leave the tokenizer out")
    return tokenizer


def for_others(tokenizer: Tokenizer) -> tuple[Tokenizer, list[int]]:
    """Return a run's tokenizer as CLIP has it: words, begin, end; it frames captions by itself.

    Also returns the number that each token has in the run. Padding and mask are left out: others
    pad with the end, which a causal tower never sees.
    """
    written = json.loads(tokenizer.to_str())
    known = _vocabulary(written)
    tokens = sorted(known, key=known.__getitem__)
    order = [*tokens[len(SPECIALS) :], tokens[BOS], tokens[EOS]]
    made = _numbered(written, order, order[-2:])
    begin, end = order[-2:]
    frame = [(begin, len(order) - 2), (end, len(order) - 1)]
    made.post_processor = processors.TemplateProcessing(
        single=[begin, "$A", end], special_tokens=frame
    )
    return made, [known[token] for token in order]


def rows_of(weight_VD: Tensor, numbers: Sequence[int | None]) -> Tensor:
    """Return the rows of a token table in a new order, zeros for a token that it has not.

    Raises PoolError where the table is too small for the tokenizer.
    """
    largest = max(number for number in numbers if number is not None)
    if largest >= len(weight_VD):
        raise PoolError(
            f"the tokenizer has a token {largest}, the weights know {len(weight_VD)}: give the"
            " tokenizer that they were trained with"
        )
    rows = torch.tensor([-1 if number is None else number for number in numbers])
    return torch.where(rows[:, None] >= 0, weight_VD[rows.clamp(min=0)], 0)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PoolError(f"there is no tokenizer {path}: give a tokenizer.json")
    try:
        written = json.loads(Tokenizer.from_str(path.read_text(encoding="utf-8")).to_str())
    except Exception as error:  # the library raises nothing narrower
        raise PoolError(f"{path} is no tokenizer.json ({error}): give another file") from error
    if written["model"]["type"] not in ("BPE", "WordPiece", "WordLevel"):
        raise PoolError(f"{path} is a {written['model']['type']} tokenizer: give BPE or WordPiece")
    return dict(written)


def _vocabulary(written: Mapping[str, Any]) -> dict[str, int]:
    """Return every token's number, those that were added to the model's included."""
    added = {token["content"]: token["id"] for token in written["added_tokens"]}
    return {**written["model"]["vocab"], **added}


def _numbered(written: Mapping[str, Any], order: list[str], specials: list[str]) -> Tokenizer:
    """Make a tokenizer whose tokens have the numbers of ``order``, and that frames nothing."""
    numbers = {token: number for number, token in enumerate(order)}
    added = [
        token | {"id": numbers[token["content"]]}
        for token in written["added_tokens"]
        if token["content"] in numbers
    ]
    named = {token["content"] for token in added}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added += [
        {"id": numbers[name], "content": name, "special": True, **plain}
        for name in specials
        if name not in named
    ]
    changed = {
        **written,
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
        "model": {**written["model"], "vocab": numbers},
    }
    made = Tokenizer.from_str(json.dumps(changed))
    suffix = written["model"].get("end_of_word_suffix")
    if suffix and isinstance(made.decoder, decoders.ByteLevel):
        # CLIP leaves it to its users to turn the end of a word into a space.
        made.decoder = decoders.Sequence([made.decoder, decoders.Replace(suffix, " ")])
    return made
