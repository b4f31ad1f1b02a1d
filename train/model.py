"""Two towers, their heads and a joint decoder: no more than the planned views need.

Shapes: B batch, N patches, T caption tokens, K kept tokens, D width, E embedding, P values in a
patch, M hidden caption tokens, V vocabulary.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from breadth.loaders.tokenize import PAD

from .blocks import Stack, grid_positions, line_positions, patchify
from .decoder import Decoder, patch_targets
from .mask import Mask, take
from .pool import pool_tokens
from .recipe import SIZES, Size, TrainRecipe
from .seeds import generator
from .terms import Views, plan_views


class ImageTower(nn.Module):
    """A class token and the patches it is given, through a stack."""

    positions_ND: Tensor

    def __init__(self, size: Size, image_px: int, patch_px: int) -> None:
        super().__init__()
        self.patch = nn.Linear(3 * patch_px**2, size.width)
        self.class_token = nn.Parameter(torch.zeros(size.width))
        self.stack = Stack(size.width, size.depth, size.heads)
        positions = grid_positions(image_px // patch_px, size.width)
        self.register_buffer("positions_ND", positions, persistent=False)

    def forward(self, patches_BNP: Tensor, mask: Mask | None = None) -> Tensor:
        """Return [B, 1 + N, D], or [B, 1 + K, D]: hidden patches never enter."""
        return self.stack(self.enter(patches_BNP, mask))

    def states(self, patches_BNP: Tensor) -> list[Tensor]:
        """Return the tokens [B, 1 + N, D] before the first block and after each."""
        return self.stack.states(self.enter(patches_BNP, None))

    def enter(self, patches_BNP: Tensor, mask: Mask | None) -> Tensor:
        """Return the tokens that the stack is given."""
        positions_BND = self.positions_ND.expand(len(patches_BNP), -1, -1)
        if mask is not None:
            patches_BNP = take(patches_BNP, mask.keep_BK)
            positions_BND = take(positions_BND, mask.keep_BK)
        tokens_BND = self.patch(patches_BNP) + positions_BND
        first_B1D = self.class_token.expand(len(tokens_BND), 1, -1)
        return torch.cat([first_B1D, tokens_BND], dim=1)


class TextTower(nn.Module):
    """The caption tokens it is given, through a stack."""

    positions_TD: Tensor

    def __init__(self, size: Size, vocabulary: int, context_length: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, size.text_width)
        self.stack = Stack(size.text_width, size.text_depth, size.text_heads)
        positions = line_positions(context_length, size.text_width)
        self.register_buffer("positions_TD", positions, persistent=False)

    def forward(self, tokens_BT: Tensor, mask: Mask | None = None) -> tuple[Tensor, Tensor]:
        """Return [B, T or K, D] and which of them are real: hidden tokens never enter."""
        positions_BTD = self.positions_TD[: tokens_BT.shape[1]].expand(len(tokens_BT), -1, -1)
        real_BT = tokens_BT != PAD
        if mask is not None:
            tokens_BT = tokens_BT.gather(1, mask.keep_BK)
            positions_BTD = take(positions_BTD, mask.keep_BK)
            real_BT = mask.seen_BK
        return self.stack(self.token(tokens_BT) + positions_BTD, real_BT), real_BT


class Model(nn.Module):
    """The towers, heads and decoder that a recipe's terms need; nothing else is made."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, recipe: TrainRecipe, vocabulary: int) -> None:
        super().__init__()
        size, self.recipe, self.views = SIZES[recipe.size], recipe, plan_views(recipe.weights)
        if self.views & {"image", "masked image"}:
            self.image = ImageTower(size, recipe.image_px, recipe.patch_px)
        if self.views & {"text", "masked text"}:
            self.text = TextTower(size, vocabulary, recipe.context_length)
        if self.views & {"image", "text"}:
            self.image_head = nn.Linear(size.width, size.embedding, bias=False)
            self.text_head = nn.Linear(size.text_width, size.embedding, bias=False)
            self.logit_scale = nn.Parameter(torch.zeros(()))
        if self.views & {"masked image", "masked text"}:
            self.decoder = Decoder(size, recipe, vocabulary)
        mean, std = torch.tensor(recipe.pixel_mean), torch.tensor(recipe.pixel_std)
        self.register_buffer("pixel_mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", std.view(3, 1, 1), persistent=False)

    def forward(self, images_BCHW: Tensor, tokens_BT: Tensor, masks: Mapping[str, Mask]) -> Views:
        """Encode every planned view once; ``images_BCHW`` is uint8, masks by view.

        Gives, as planned: ``image``, ``text`` [B, E] of norm 1 and ``logit_scale``;
        ``predicted_patches``, ``target_patches`` [B, N, P] and ``hidden_patches`` [B, N];
        ``token_logits`` [M, V] and ``hidden_tokens`` [M].
        """
        views: Views = {}
        patches_BNP = self.patches(images_BCHW)
        if "image" in self.views:
            views["image"] = self.embed_patches(patches_BNP)
            views["text"] = self.embed_tokens(tokens_BT)
            views["logit_scale"] = self.logit_scale
        if self.views & {"masked image", "masked text"}:
            views |= self.decode(patches_BNP, tokens_BT, masks)
        return views

    def patches(self, images_BCHW: Tensor) -> Tensor:
        """Normalise uint8 pictures and cut them: float32 [B, N, P]."""
        scaled = (images_BCHW.float() / 255 - self.pixel_mean) / self.pixel_std
        return patchify(scaled, self.recipe.patch_px)

    def features(self, patches_BNP: Tensor) -> Tensor:
        """Pool whole pictures, before any projection: [B, D]."""
        return self.pool(self.image(patches_BNP))

    def pool(self, tokens_BLD: Tensor) -> Tensor:
        """Pool a picture's tokens [B, 1 + N, D] to [B, D]."""
        return pool_tokens(tokens_BLD, self.recipe.pool)

    def embed_patches(self, patches_BNP: Tensor) -> Tensor:
        """Embed whole pictures: [B, E] of norm 1."""
        return F.normalize(self.image_head(self.features(patches_BNP)), dim=1)

    def embed_tokens(self, tokens_BT: Tensor) -> Tensor:
        """Embed whole captions by the mean of their tokens: [B, E] of norm 1."""
        tokens_BTD, real_BT = self.text(tokens_BT)
        total_BD = torch.where(real_BT[..., None], tokens_BTD, 0).sum(dim=1)
        mean_BD = total_BD / real_BT.sum(dim=1, keepdim=True).clamp(min=1)
        return F.normalize(self.text_head(mean_BD), dim=1)

    def decode(self, patches_BNP: Tensor, tokens_BT: Tensor, masks: Mapping[str, Mask]) -> Views:
        """Encode the masked views, decode them together, and set targets beside predictions."""
        image_BKD = text_BKD = None
        if "masked image" in self.views:
            image_BKD = self.image(patches_BNP, masks["masked image"])[:, 1:]
        if "masked text" in self.views:
            text_BKD, _ = self.text(tokens_BT, masks["masked text"])
        patches_BND, tokens_BTD = self.decoder(image_BKD, text_BKD, masks)
        views: Views = {}
        if image_BKD is not None:
            views["predicted_patches"] = self.decoder.patch_out(patches_BND)
            views["target_patches"] = patch_targets(patches_BNP, self.recipe)
            views["hidden_patches"] = masks["masked image"].hidden_BL
        if text_BKD is not None:
            hidden_BT = masks["masked text"].hidden_BL
            views["token_logits"] = self.decoder.token_out(tokens_BTD[hidden_BT])
            views["hidden_tokens"] = tokens_BT[hidden_BT]
        return views


def initialise(model: nn.Module, seed: int) -> None:
    """Set every parameter from a stream of its own name, whatever else the model holds."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draws = generator(seed, f"init/{name}")
            if name == "logit_scale":
                parameter.fill_(math.log(1 / 0.07))  # CLIP, section 2.5
            elif name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            elif name == "text.token.weight":
                # As large as the fixed positions, which would drown a small start in one layer.
                parameter.normal_(std=0.7, generator=draws)
            elif parameter.ndim == 1:
                parameter.normal_(std=0.02, generator=draws)
            else:
                nn.init.xavier_uniform_(parameter, generator=draws)
        for stack in (m for m in model.modules() if isinstance(m, Stack)):
            stack.quieten()


def build_model(recipe: TrainRecipe, vocabulary: int) -> Model:
    """Make an initialised model on the CPU; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        model = Model(recipe, vocabulary)
    initialise(model, recipe.seed)
    return model
