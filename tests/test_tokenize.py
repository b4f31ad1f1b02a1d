"""Tokens of captions: framed, padded, and able to say everything."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breadth.loaders.errors import PoolError
from breadth.loaders.tokenize import (
    BOS,
    EOS,
    PAD,
    SPECIALS,
    encode,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)

CAPTIONS = [f"a {c} {s} on a {b} ground" for c in ("red", "blue") for s in ("disc", "star")
            for b in ("grey", "white")]  # fmt: skip
TOKENIZER = train_tokenizer(CAPTIONS, 400)


@given(st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_encoded_and_read_back(text: str) -> None:
    """Every Unicode text survives, in lower case: there is no unknown token."""
    import unicodedata

    row = encode(TOKENIZER, [text], 400)[0]
    ids = [int(i) for i in row if i not in (PAD, BOS, EOS)]
    expected = unicodedata.normalize("NFC", text).lower()
    assert TOKENIZER.decode(ids, skip_special_tokens=False).removeprefix(" ") == expected or (
        expected.startswith(" ") and TOKENIZER.decode(ids) == expected
    )


def test_rows_are_framed_and_padded() -> None:
    """A row is BOS, tokens, EOS, PAD; a caption that is too long loses its end, not its EOS."""
    rows = encode(TOKENIZER, ["", CAPTIONS[0], CAPTIONS[0] * 10], 12)
    assert rows.dtype == np.int64
    assert rows.shape == (3, 12)
    assert rows[0].tolist() == [BOS, EOS] + [PAD] * 10
    assert (rows[:, 0] == BOS).all()
    assert ((rows == EOS).sum(1) == 1).all()
    assert rows[2, -1] == EOS
    after = np.cumsum(rows == EOS, axis=1) - (rows == EOS)
    assert ((rows == PAD) == (after > 0)).all()


def test_a_caption_cannot_forge_a_special_token() -> None:
    """The text "[MASK]" or "[EOS]" in a caption is text."""
    for special in SPECIALS:
        row = encode(TOKENIZER, [f"a {special} b"], 40)[0]
        assert [int(i) for i in row if i in (1, 2, 3)] == [BOS, EOS]


def test_equal_captions_train_equal_tokenizers(tmp_path: Path) -> None:
    """Training is deterministic, keeps to the vocabulary asked for, and survives the disk."""
    again = train_tokenizer(iter(CAPTIONS), 400)
    assert again.to_str() == TOKENIZER.to_str()
    assert 260 < again.get_vocab_size() <= 400
    assert [again.token_to_id(name) for name in SPECIALS] == [0, 1, 2, 3]
    save_tokenizer(again, tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json").to_str() == TOKENIZER.to_str()
    with pytest.raises(PoolError, match=r"no tokenizer .*other\.json"):
        load_tokenizer(tmp_path / "other.json")
