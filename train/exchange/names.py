"""What transformers and open_clip call the weights of CLIP, and transformers those of MAE."""

import torch
from torch import Tensor

from ..recipe import TrainRecipe
from .layout import Rule, affine, block_rules, pair, to_theirs

CLIP_BLOCK = {
    "attention_norm": ["layer_norm1.{}"],
    "qkv": ["self_attn.q_proj.{}", "self_attn.k_proj.{}", "self_attn.v_proj.{}"],
    "out": ["self_attn.out_proj.{}"],
    "mlp_norm": ["layer_norm2.{}"],
    "up": ["mlp.fc1.{}"],
    "down": ["mlp.fc2.{}"],
}
OPEN_CLIP_BLOCK = {
    "attention_norm": ["ln_1.{}"],
    "qkv": ["attn.in_proj_{}"],
    "out": ["attn.out_proj.{}"],
    "mlp_norm": ["ln_2.{}"],
    "up": ["mlp.c_fc.{}"],
    "down": ["mlp.c_proj.{}"],
}
MAE_ATTENTION = "attention.attention"
MAE_BLOCK = {
    "attention_norm": ["layernorm_before.{}"],
    "qkv": [f"{MAE_ATTENTION}.{which}.{{}}" for which in ("query", "key", "value")],
    "out": ["attention.output.dense.{}"],
    "mlp_norm": ["layernorm_after.{}"],
    "up": ["intermediate.dense.{}"],
    "down": ["output.dense.{}"],
}
CLIP_TOKENS = "text_model.embeddings.token_embedding.weight"
OPEN_CLIP_TOKENS = "token_embedding.weight"
POSITIONS = ("image.class_position", "image.positions_ND")


def clip_rules(recipe: TrainRecipe) -> list[Rule]:
    """Return the rules of transformers' CLIPModel."""
    size, px = recipe.widths, recipe.patch_px
    picture, caption = "vision_model", "text_model"
    return [
        *block_rules("image.stack", f"{picture}.encoder.layers", size.depth, CLIP_BLOCK),
        *block_rules("text.stack", f"{caption}.encoder.layers", size.text_depth, CLIP_BLOCK),
        *affine("image.first_norm", f"{picture}.pre_layrnorm"),
        *affine("image.stack.norm", f"{picture}.post_layernorm"),
        *affine("text.stack.norm", f"{caption}.final_layer_norm"),
        pair("image.class_token", f"{picture}.embeddings.class_embedding"),
        Rule(POSITIONS, (f"{picture}.embeddings.position_embedding.weight",), (-1, size.width)),
        pair("image.patch.weight", f"{picture}.embeddings.patch_embedding.weight", (-1, 3, px, px)),
        pair("text.token.weight", CLIP_TOKENS),
        pair("text.positions_TD", f"{caption}.embeddings.position_embedding.weight"),
        pair("image_head.weight", "visual_projection.weight"),
        pair("text_head.weight", "text_projection.weight"),
        pair("logit_scale", "logit_scale", ()),
    ]


def open_clip_rules(recipe: TrainRecipe) -> list[Rule]:
    """Return the rules of open_clip's CLIP, which are those of OpenAI's code."""
    size, px = recipe.widths, recipe.patch_px
    picture_blocks, caption_blocks = "visual.transformer.resblocks", "transformer.resblocks"
    return [
        *block_rules("image.stack", picture_blocks, size.depth, OPEN_CLIP_BLOCK),
        *block_rules("text.stack", caption_blocks, size.text_depth, OPEN_CLIP_BLOCK),
        *affine("image.first_norm", "visual.ln_pre"),
        *affine("image.stack.norm", "visual.ln_post"),
        *affine("text.stack.norm", "ln_final"),
        pair("image.class_token", "visual.class_embedding"),
        Rule(POSITIONS, ("visual.positional_embedding",), (-1, size.width)),
        pair("image.patch.weight", "visual.conv1.weight", (-1, 3, px, px)),
        pair("text.token.weight", OPEN_CLIP_TOKENS),
        pair("text.positions_TD", "positional_embedding"),
        Rule(("image_head.weight",), ("visual.proj",), transposed=True),
        Rule(("text_head.weight",), ("text_projection",), transposed=True),
        pair("logit_scale", "logit_scale", ()),
    ]


def mae_weights(recipe: TrainRecipe, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a run's weights, fixed positions among them, as transformers' ViTMAEForPreTraining.

    The kind that our decoder adds to every token goes into what it is added to; the values of a
    predicted patch are put in their order, colours last.
    """
    size, px = recipe.widths, recipe.patch_px
    kind = weights["decoder.image.kind"]
    ours = weights | {
        "filler": weights["decoder.image.filler"] + kind,
        "project.bias": weights["decoder.image.project.bias"] + kind,
        "out.weight": _colours_last(weights["decoder.patch_out.weight"], px),
        "out.bias": _colours_last(weights["decoder.patch_out.bias"], px),
        "positions": _below_zero(weights["image.positions_ND"]),
        "decoder positions": _below_zero(weights["decoder.image.positions_LD"]),
    }
    tower, decoder = "vit.encoder.layer", "decoder.decoder_encoder.layer"
    embeddings, first = "vit.embeddings", (1, 1, -1)
    rules = [
        *block_rules("image.stack", tower, size.depth, MAE_BLOCK),
        *block_rules("decoder.stack", decoder, size.decoder_depth, MAE_BLOCK),
        *affine("image.stack.norm", "vit.layernorm"),
        *affine("decoder.stack.norm", "decoder.decoder_norm"),
        *affine("out", "decoder.decoder_pred"),
        pair("image.class_token", f"{embeddings}.cls_token", first),
        pair("positions", f"{embeddings}.position_embeddings", (1, -1, size.width)),
        pair(
            "image.patch.weight",
            f"{embeddings}.patch_embeddings.projection.weight",
            (-1, 3, px, px),
        ),
        pair("image.patch.bias", f"{embeddings}.patch_embeddings.projection.bias"),
        pair("decoder.image.project.weight", "decoder.decoder_embed.weight"),
        pair("project.bias", "decoder.decoder_embed.bias"),
        pair("filler", "decoder.mask_token", first),
        pair("decoder positions", "decoder.decoder_pos_embed", (1, -1, size.decoder_width)),
    ]
    return to_theirs(rules, ours)


def _colours_last(rows: Tensor, patch_px: int) -> Tensor:
    """Put rows by colour, then place [3 * px * px, ...] in the order of place, then colour."""
    return rows.unflatten(0, (3, patch_px**2)).transpose(0, 1).flatten(0, 1)


def _below_zero(positions_ND: Tensor) -> Tensor:
    """Put the positions below that of the class token, which is nowhere."""
    return torch.cat([torch.zeros_like(positions_ND[:1]), positions_ND])
