"""In what published towers of one size differ: one word of a recipe sets it all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Architecture:
    """The choices that a tower's width and depth leave open."""

    activation: str = "gelu"  # gelu, gelu_tanh or quick_gelu
    eps: float = 1e-5  # of every normalisation
    learned_positions: bool = False  # else fixed sines and cosines
    position_scale: float = 0.3  # of fixed ones: at 1 they cost 1 to 2 points in 400 steps
    columns_first: bool = False  # of fixed ones: the first half of the channels codes the column
    class_token: bool = True
    patch_bias: bool = True
    norm_first: bool = False  # one more normalisation, before the picture's blocks
    causal_text: bool = False
    text_pool: str = "mean"  # of a caption's tokens: mean, begin, end, or last with padding
    padding_seen: bool = False  # captions attend to their padding
    projects: bool = True  # two linear heads into the joint space; else widths must agree


CLIP = Architecture(
    activation="quick_gelu",
    learned_positions=True,
    patch_bias=False,
    norm_first=True,
    causal_text=True,
    text_pool="end",
)
ARCHITECTURES: Mapping[str, Architecture] = {
    "breadth": Architecture(),
    # Radford et al. 2021, section 2.4
    "clip": CLIP,
    # Cherti et al. 2022: open_clip's own models
    "clip_gelu": replace(CLIP, activation="gelu"),
    # He et al. 2021, appendix; the numbers of transformers' ViTMAE
    "mae": Architecture(eps=1e-12, position_scale=1.0, columns_first=True),
    # Zhai et al. 2023; the numbers of transformers' SigLIP
    "siglip": Architecture(
        activation="gelu_tanh",
        eps=1e-6,
        learned_positions=True,
        class_token=False,
        text_pool="last",
        padding_seen=True,
        projects=False,
    ),
    # Yu et al. 2022: a causal caption tower whose last token enters the joint space
    "coca": Architecture(causal_text=True, text_pool="end"),
    # Jia et al. 2021: the caption's first token, as BERT has it
    "align": Architecture(text_pool="begin"),
}
