"""What a pair costs by its recipe: multiplications and additions of all matrices, there and back.

Counted once, as if nothing were computed twice: neither recomputed activations nor the first pass
over micro-batches add to it. Elementwise work, softmax, norms and the cutting of crops are left
out, as torch's counter has it. Shapes: L tokens, S tokens looked at, D width.
"""

from dataclasses import dataclass

from .inputs import Inputs
from .mask import kept_patches
from .recipe import TrainRecipe
from .size import Size

TRAINED = 3  # a forward pass, and one backwards for inputs and weights each
AT_THE_START = 2  # no gradient goes on to what was given
UNTAUGHT = 1  # a placebo's masked views


@dataclass(frozen=True)
class Lengths:
    """Caption tokens of a batch: those of the longest, and kept, hidden, written ones a pair.

    ``kept`` are the slots that the masked view's tower is given.
    """

    tokens: int
    kept: int
    hidden: float
    written: float


def lengths_of(inputs: Inputs) -> Lengths:
    """Return the lengths of a batch or a part of it."""
    pairs, tokens = inputs.tokens_BT.shape
    kept, hidden = 0, 0.0
    if "masked text" in inputs.masks:
        mask = inputs.masks["masked text"]
        kept, hidden = mask.keep_BK.shape[1], int(mask.hidden_BL.sum()) / pairs
    written = int((inputs.tokens_BT[:, 1:] != 0).sum()) / pairs
    return Lengths(tokens, kept, hidden, written)


def full_lengths(recipe: TrainRecipe) -> Lengths:
    """Return the lengths of captions that fill the context."""
    tokens = recipe.context_length
    hidden = max(1, round((tokens - 2) * recipe.text_mask))
    return Lengths(tokens, tokens - hidden, hidden, tokens - 1)


def pair_flops(recipe: TrainRecipe, vocabulary: int, lengths: Lengths) -> float:
    """Return the operations of one pair in one step, an addition and a multiplication being two.

    Terms that compare pairs count with the recipe's whole batch; a user's own terms with nothing.
    """
    cost = _Cost(recipe, vocabulary, lengths)
    views = recipe.views
    total = _terms(recipe)
    if "image" in views:
        total += cost.contrasted()
    if "caption" in views:
        total += cost.captioner()
    if "two crops" in views:
        total += 2 * cost.crop()
    if views & {"masked image", "masked text"}:
        total += cost.masked_towers() + cost.decoder()
    if "corrupted text" in views:
        width = cost.text_width
        head = lengths.hidden * (_linear(1, width, width) + _linear(1, width, vocabulary))
        total += TRAINED * (cost.text_stack(lengths.tokens) + head)
    return total


class _Cost:
    """The parts of one recipe's model, per pair."""

    def __init__(self, recipe: TrainRecipe, vocabulary: int, lengths: Lengths) -> None:
        self.recipe, self.vocabulary, self.lengths = recipe, vocabulary, lengths
        self.size: Size = recipe.widths
        self.prefix, self.patches = int(recipe.towers_architecture.class_token), recipe.grid**2
        shared = recipe.towers == "shared"
        self.text_width = self.size.width if shared else self.size.text_width
        self.text_depth = self.size.depth if shared else self.size.text_depth
        self.values = 3 * recipe.patch_px**2

    def image_stack(self, tokens: int) -> float:
        return _stack(tokens, self.size.width, self.size.depth)

    def text_stack(self, tokens: int) -> float:
        return _stack(tokens, self.text_width, self.text_depth)

    def image_tower(self, patches: int) -> float:
        """Patches enter, pass the stack and are pooled."""
        entered = AT_THE_START * _linear(patches, self.values, self.size.width)
        pooled = 0.0
        if self.recipe.pool == "map":
            pooled = _attention_pool(1, patches, self.size.width)
        return entered + TRAINED * (self.image_stack(self.prefix + patches) + pooled)

    @property
    def seen(self) -> int:
        """Patches of the contrasted picture."""
        return kept_patches(self.patches, self.recipe.patch_dropout)

    def contrasted(self) -> float:
        size, chosen = self.size, self.recipe.towers_architecture
        heads = _linear(1, self.text_width, size.embedding)
        if chosen.projects:
            heads += _linear(1, size.width, size.embedding)
        text = self.text_stack(self.lengths.tokens)
        return self.image_tower(self.seen) + TRAINED * (text + heads)

    def captioner(self) -> float:
        width, queries = self.text_width, self.recipe.caption_queries
        looked = _attention_pool(queries, self.prefix + self.seen, self.size.width)
        tokens = self.lengths.tokens
        block = _linear(tokens, width, 2 * width) + _linear(queries, self.size.width, 2 * width)
        asked = self.size.text_depth * (block + 4 * tokens * queries * width)
        own = _stack(tokens, width, self.size.text_depth)
        words = _linear(self.lengths.written, width, self.vocabulary)
        return TRAINED * (looked + asked + own + words)

    def crop(self) -> float:
        width = self.size.width
        projected = _linear(1, width, 4 * width) + _linear(1, 4 * width, self.size.embedding)
        return self.image_tower(self.patches) + TRAINED * projected

    def masked_towers(self) -> float:
        views, kept = self.recipe.views, kept_patches(self.patches, self.recipe.image_mask)
        times = UNTAUGHT if self.recipe.placebo else TRAINED
        has_image, has_text = "masked image" in views, "masked text" in views
        total, image, text = 0.0, self.prefix + kept, self.lengths.kept
        if has_image:
            entered = _linear(kept, self.values, self.size.width)
            total += min(times, AT_THE_START) * entered
        if has_image and has_text and self.recipe.towers == "shared":
            return total + times * self.image_stack(image + text)
        total += times * self.image_stack(image) if has_image else 0
        return total + (times * self.text_stack(text) if has_text else 0)

    def decoder(self) -> float:
        views, width, total = self.recipe.views, self.size.decoder_width, 0.0
        times = AT_THE_START if self.recipe.placebo else TRAINED
        decoded = []
        if "masked image" in views:
            kept = self.prefix + kept_patches(self.patches, self.recipe.image_mask)
            total += times * _linear(kept, self.size.width, width)
            total += TRAINED * _linear(self.patches, width, self.values)
            decoded.append(self.prefix + self.patches)
        if "masked text" in views:
            total += times * _linear(self.lengths.kept, self.text_width, width)
            total += TRAINED * _linear(self.lengths.hidden, width, self.vocabulary)
            decoded.append(self.lengths.tokens)
        together = [sum(decoded)] if self.recipe.decoder == "joint" else decoded
        depth = self.size.decoder_depth
        return total + TRAINED * sum(_stack(tokens, width, depth) for tokens in together)


def _linear(tokens: float, given: int, made: int) -> float:
    return 2.0 * tokens * given * made


def _stack(tokens: int, width: int, depth: int) -> float:
    """Blocks of attention (4 D^2 weights) and a perceptron (8 D^2), forwards."""
    return depth * (_linear(tokens, width, 12 * width) + 4.0 * tokens**2 * width)


def _attention_pool(queries: int, tokens: int, width: int) -> float:
    asked = _linear(queries, width, 10 * width) + _linear(tokens, width, 2 * width)
    return asked + 4.0 * queries * tokens * width


def _terms(recipe: TrainRecipe) -> float:
    """Return what comparing one pair with all of the batch costs."""
    rows = {"InfoNCE": 2, "Sigmoid": 1, "NTXent": 4}
    made = [rows.get(type(entry.term).__name__, 0) for entry in recipe.objective.values()]
    return TRAINED * sum(made) * _linear(1, recipe.widths.embedding, recipe.batch_pairs)
