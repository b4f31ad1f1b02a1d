"""Turn captions into token ids with a byte-level BPE that is learnt from the captions."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from .errors import PoolError
from .whole_file import replaced

PAD, BOS, EOS, MASK = 0, 1, 2, 3
SPECIALS = ("[PAD]", "[BOS]", "[EOS]", "[MASK]")


def train_tokenizer(captions: Iterable[str], vocabulary: int = 4096) -> Tokenizer:
    """Learn a tokenizer of at most ``vocabulary`` tokens; captions are lower-cased as in CLIP.

    Every text can be encoded: the 256 bytes are always tokens. Equal captions give equal tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, captions: Sequence[str], context_length: int) -> np.ndarray:
    """Encode captions: int64 [n, context_length], BOS first, EOS after the last token, then PAD.

    A caption that is too long loses its end, never its EOS.
    """
    tokenizer.encode_special_tokens = True  # "[MASK]" in a caption is text; JSON forgets this
    tokens = np.full((len(captions), context_length), PAD, dtype=np.int64)
    encodings = tokenizer.encode_batch(list(captions), add_special_tokens=False)
    for row, encoding in zip(tokens, encodings, strict=True):
        ids = [BOS, *encoding.ids[: context_length - 2], EOS]
        row[: len(ids)] = ids
    return tokens


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write a tokenizer as one JSON file."""
    with replaced(path) as file:
        file.write(tokenizer.to_str(pretty=True).encode())


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer that was saved; raises PoolError where there is none, or a damaged one."""
    if not path.is_file():
        raise PoolError(f"there is no tokenizer {path}: give the folder of a run")
    try:
        return Tokenizer.from_str(path.read_bytes().decode())
    except Exception as error:  # the library raises nothing narrower
        raise PoolError(f"{path} is no tokenizer ({error}): put the run's own file back") from error
