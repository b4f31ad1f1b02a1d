"""Two towers or a shared one, their heads and decoders: no more than the planned views need.

Shapes: B batch, N patches, T caption tokens, K kept tokens, D width, E embedding, P values in a
patch, M places in captions, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Stack, patchify
from .crops import cut
from .decoder import Captioner, Decoder, Projector, TokenHead, patch_targets
from .initialise import LOGIT_SCALE, initialise
from .inputs import Inputs
from .pool import AttentionPool, pool_tokens
from .recipe import TrainRecipe
from .terms import Views
from .towers import ImageTower, TextTower, joint_pass, share_tower

EMBEDDINGS = ("image", "text", "crop_1", "crop_2")
"""The entries of encoded views in which pairs are compared with each other."""


class Model(nn.Module):
    """The towers, heads and decoders that a recipe's terms need; nothing else is made."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, recipe: TrainRecipe, vocabulary: int) -> None:
        super().__init__()
        self.recipe, self.views = recipe, recipe.views
        self._make_towers(recipe, vocabulary)
        self._make_heads(recipe, vocabulary)
        mean, std = torch.tensor(recipe.pixel_mean), torch.tensor(recipe.pixel_std)
        self.register_buffer("pixel_mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", std.view(3, 1, 1), persistent=False)

    def _make_towers(self, recipe: TrainRecipe, vocabulary: int) -> None:
        size, chosen = recipe.widths, recipe.towers_architecture
        self.text_width = size.width if recipe.towers == "shared" else size.text_width
        if self.views & {"image", "masked image", "two crops"}:
            stack = Stack(size.width, size.depth, size.heads, chosen)
            self.image = ImageTower(stack, size.width, recipe.grid, recipe.patch_px, chosen)
            if recipe.pool == "map":
                self.attention_pool = AttentionPool(size.width, size.heads, chosen)
        if self.views & {"text", "masked text", "corrupted text"}:
            if recipe.towers == "shared":
                stack = Stack(size.width, size.depth, size.heads, chosen)
            else:
                stack = Stack(size.text_width, size.text_depth, size.text_heads, chosen)
            context = recipe.context_length
            self.text = TextTower(stack, self.text_width, vocabulary, context, chosen)
        if recipe.towers == "shared" and hasattr(self, "image") and hasattr(self, "text"):
            share_tower(self.image, self.text, size.width)

    def _make_heads(self, recipe: TrainRecipe, vocabulary: int) -> None:
        size, chosen = recipe.widths, recipe.towers_architecture
        if self.views & {"image", "text"}:
            self.image_head: nn.Module
            if chosen.projects:
                self.image_head = nn.Linear(size.width, size.embedding, bias=False)
                self.text_head = nn.Linear(self.text_width, size.embedding, bias=False)
            else:
                self.image_head = nn.Identity()
                self.text_head = nn.Linear(self.text_width, size.embedding)
            self.logit_scale = nn.Parameter(torch.zeros(()))
        if any(type(w.term).__name__ == "Sigmoid" for w in recipe.objective.values()):
            self.logit_bias = nn.Parameter(torch.zeros(()))
        if "two crops" in self.views:
            self.projector = Projector(size.width, size.embedding)
        if self.views & {"masked image", "masked text"}:
            self.decoder = Decoder(size, recipe, vocabulary, self.views, self.text_width)
        if "corrupted text" in self.views:
            self.token_head = TokenHead(self.text_width, vocabulary)
        if "caption" in self.views:
            self.captioner = Captioner(size, recipe, vocabulary, self.text_width)

    def forward(self, inputs: Inputs) -> Views:
        """Encode every planned view once.

        Gives, as planned: ``image``, ``text`` [B, E] of norm 1, ``logit_scale``, ``logit_bias``;
        ``crop_1``, ``crop_2`` [B, E]; ``predicted_patches``, ``target_patches`` [B, N, P] and
        ``hidden_patches`` [B, N]; ``token_logits`` [M, V] and ``hidden_tokens`` [M];
        ``caption_logits`` and ``caption_targets`` likewise; ``pairs`` and ``caption_group`` [B].
        """
        views: Views = dict(inputs.known)
        patches_BNP = self.patches(inputs.images_BCHW)
        if "image" in self.views:
            views |= self._contrasted(patches_BNP, inputs)
        if "two crops" in self.views:
            for number, crop in enumerate(inputs.crops, start=1):
                cut_BNP = self._normalised(cut(inputs.images_BCHW, crop))
                views[f"crop_{number}"] = self.projector(self.features(cut_BNP))
        if self.views & {"masked image", "masked text"}:
            views |= self.decoded(patches_BNP, inputs)
        if "corrupted text" in self.views:
            assert inputs.corrupted_BT is not None
            text_BTD, _ = self.text(inputs.corrupted_BT)
            views["token_logits"] = self.token_head(text_BTD.flatten(0, 1)[inputs.places["hidden"]])
        return views

    def patches(self, images_BCHW: Tensor) -> Tensor:
        """Normalise uint8 pictures and cut them: float32 [B, N, P]."""
        return self._normalised(images_BCHW.float() / 255)

    def features(self, patches_BNP: Tensor) -> Tensor:
        """Pool whole pictures, before any projection: [B, D]."""
        return self.pool(self.image(patches_BNP))

    def pool(self, tokens_BLD: Tensor) -> Tensor:
        """Pool a picture's tokens [B, prefix + N, D] to [B, D]."""
        if self.recipe.pool == "map":
            return self.attention_pool(tokens_BLD[:, self.image.prefix :])[:, 0]
        return pool_tokens(tokens_BLD, self.recipe.pool, self.image.prefix)

    def embed_patches(self, patches_BNP: Tensor) -> Tensor:
        """Embed whole pictures: [B, E] of norm 1."""
        return F.normalize(self.image_head(self.features(patches_BNP)), dim=1)

    def embed_tokens(self, tokens_BT: Tensor) -> Tensor:
        """Embed whole captions: [B, E] of norm 1."""
        text_BTD, _ = self.text(tokens_BT)
        return F.normalize(self.text_head(self.text.pool(text_BTD, tokens_BT)), dim=1)

    def _normalised(self, pictures_BCHW: Tensor) -> Tensor:
        scaled = (pictures_BCHW - self.pixel_mean) / self.pixel_std
        return patchify(scaled, self.recipe.patch_px)

    def _contrasted(self, patches_BNP: Tensor, inputs: Inputs) -> Views:
        """Encode the clean picture and caption, and what is written from both."""
        tokens_BT = inputs.tokens_BT
        image_BLD = self.image(patches_BNP, inputs.masks.get("image"))
        text_BTD, _ = self.text(tokens_BT)
        views = {
            "image": F.normalize(self.image_head(self.pool(image_BLD)), dim=1),
            "text": F.normalize(self.text_head(self.text.pool(text_BTD, tokens_BT)), dim=1),
            "logit_scale": self.logit_scale,
        }
        if hasattr(self, "logit_bias"):
            views["logit_bias"] = self.logit_bias
        if "caption" in self.views:
            places_M = inputs.places["before"]
            views["caption_logits"] = self.captioner(image_BLD, text_BTD, places_M)
        return views

    def decoded(self, patches_BNP: Tensor, inputs: Inputs) -> Views:
        """Encode the masked views, decode them, and set targets beside predictions."""
        image_BKD, text_BKD = self._masked(patches_BNP, inputs)
        if self.recipe.placebo:
            image_BKD = None if image_BKD is None else image_BKD.detach()
            text_BKD = None if text_BKD is None else text_BKD.detach()
        patches_BND, tokens_BTD = self.decoder(image_BKD, text_BKD, inputs.masks)
        views: Views = {}
        if patches_BND is not None:
            views["predicted_patches"] = self.decoder.patch_out(patches_BND)
            views["target_patches"] = patch_targets(patches_BNP, self.recipe)
        if tokens_BTD is not None:
            hidden_MD = tokens_BTD.flatten(0, 1)[inputs.places["hidden"]]
            views["token_logits"] = self.decoder.token_out(hidden_MD)
        return views

    def _masked(self, patches_BNP: Tensor, inputs: Inputs) -> tuple[Tensor | None, Tensor | None]:
        """Return what the towers make of the masked views, each where it is planned."""
        has_image, has_text = "masked image" in self.views, "masked text" in self.views
        if self.recipe.towers == "shared" and has_image and has_text:
            return joint_pass(self.image, self.text, patches_BNP, inputs.tokens_BT, inputs.masks)
        image = self.image(patches_BNP, inputs.masks["masked image"]) if has_image else None
        text = self.text(inputs.tokens_BT, inputs.masks["masked text"])[0] if has_text else None
        return image, text


def build_model(recipe: TrainRecipe, vocabulary: int) -> Model:
    """Make an initialised model on the CPU; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        model = Model(recipe, vocabulary)
    kinds = {type(weighted.term).__name__ for weighted in recipe.objective.values()}
    scale = LOGIT_SCALE["Sigmoid" if "Sigmoid" in kinds else "InfoNCE"]
    initialise(model, recipe.seed, scale)
    for stack in (m for m in model.modules() if isinstance(m, Stack)):
        stack.recomputes = recipe.recomputes
    return model
