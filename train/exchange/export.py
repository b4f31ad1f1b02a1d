"""Write a run for other programs: plain safetensors, or the folder that transformers loads."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from tokenizers import Tokenizer
from torch import Tensor

from breadth.loaders.errors import OutputError, Refused
from breadth.loaders.tokenize import save_tokenizer
from breadth.loaders.whole_file import replaced

from ..checkpoint import Run, load_run
from ..recipe import TrainRecipe
from ..run_folder import write_json
from .layout import to_theirs
from .names import clip_rules, mae_weights
from .numbering import for_others, rows_of

LAYOUTS = ("safetensors", "transformers")
ACTIVATIONS = {"clip": "quick_gelu", "clip_gelu": "gelu"}
"""What transformers calls the activation of an architecture that is its CLIP."""
CLIP_PARTS = ("image", "text", "image_head", "text_head", "logit_scale")
MAE_PARTS = ("image", "decoder")
"""The parts of a model of ours that transformers' have, too."""
WEIGHTS = "model.safetensors"


def export_run(path: str | Path, out: str | Path, layout: str) -> str:
    """Write a run's weights to a new folder, the averaged ones where it has them.

    Returns what it is, and which parts of the run it has no place for.

    "safetensors" holds every tensor by our names, fixed positions and pixel statistics among them,
    beside recipe.json and tokenizer.json. "transformers" is what ``from_pretrained`` of CLIPModel
    loads, or of ViTMAEForPreTraining. Raises Refused where that has no such model, PoolError where
    there is no run, OutputError where ``out`` holds something.
    """
    run, out = load_run(path), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not empty; name another folder")
    if layout == "safetensors":
        said, files = "weights by Breadth's names", _plain(run)
    elif run.recipe.architecture in ACTIVATIONS:
        said, files = "CLIPModel of transformers" + _without(run, CLIP_PARTS), _clip(run)
    elif run.recipe.architecture == "mae":
        said, files = "ViTMAEForPreTraining of transformers" + _without(run, MAE_PARTS), _mae(run)
    else:
        raise Refused(
            f"transformers has no model of architecture {run.recipe.architecture}: train with"
            f" {', '.join([*ACTIVATIONS, 'mae'])}, or export as safetensors"
        )
    _write(out, files)
    return said


def _without(run: Run, held: Sequence[str]) -> str:
    parts = dict.fromkeys(name.partition(".")[0] for name, _ in run.model.named_parameters())
    left_out = [part for part in parts if part not in held]
    return f", without {', '.join(left_out)}" if left_out else ""


def _plain(run: Run) -> dict[str, Any]:
    return {
        "recipe.json": run.recipe.to_json(),
        "tokenizer.json": run.tokenizer,
        WEIGHTS: _weights(run),
    }


def _clip(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    if recipe.towers != "two" or recipe.pool != "cls" or not run.has_joint_space:
        raise Refused(
            f"transformers' CLIP has two towers, the pool cls and a joint space, {run.path} has"
            f" {recipe.towers} towers, the pool {recipe.pool} and"
            f" {'a' if run.has_joint_space else 'no'} joint space: export as safetensors"
        )
    tokenizer, numbers = for_others(run.tokenizer)
    weights = _weights(run)
    weights["text.token.weight"] = rows_of(weights["text.token.weight"], numbers)
    return {
        **_tokenizer_files(tokenizer, recipe.context_length),
        "preprocessor_config.json": _preprocessing(recipe, "CLIPImageProcessor"),
        "config.json": _clip_config(recipe, len(numbers)),
        WEIGHTS: to_theirs(clip_rules(recipe), weights),
    }


def _clip_config(recipe: TrainRecipe, vocabulary: int) -> dict[str, Any]:
    size, activation = recipe.widths, ACTIVATIONS[recipe.architecture]
    both = {"hidden_act": activation, "layer_norm_eps": recipe.towers_architecture.eps}
    both |= {"attention_dropout": 0.0, "projection_dim": size.embedding}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": size.embedding,
        "text_config": both
        | {
            "model_type": "clip_text_model",
            "hidden_size": size.text_width,
            "intermediate_size": 4 * size.text_width,
            "num_hidden_layers": size.text_depth,
            "num_attention_heads": size.text_heads,
            "max_position_embeddings": recipe.context_length,
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
        },
        "vision_config": both
        | {
            "model_type": "clip_vision_model",
            "hidden_size": size.width,
            "intermediate_size": 4 * size.width,
            "num_hidden_layers": size.depth,
            "num_attention_heads": size.heads,
            "image_size": recipe.image_px,
            "patch_size": recipe.patch_px,
        },
    }


def _mae(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    if not run.has_pixels or "masked text" in run.model.views:
        raise Refused(
            f"transformers' MAE has a decoder of pictures alone, which {run.path} has not: export"
            " as safetensors"
        )
    size = recipe.widths
    config = {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "hidden_size": size.width,
        "intermediate_size": 4 * size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "decoder_hidden_size": size.decoder_width,
        "decoder_intermediate_size": 4 * size.decoder_width,
        "decoder_num_hidden_layers": size.decoder_depth,
        "decoder_num_attention_heads": size.decoder_heads,
        "hidden_act": recipe.towers_architecture.activation,
        "layer_norm_eps": recipe.towers_architecture.eps,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
        "image_size": recipe.image_px,
        "patch_size": recipe.patch_px,
        "mask_ratio": recipe.image_mask,
        "norm_pix_loss": recipe.pixel_target == "patch",
    }
    return {
        "preprocessor_config.json": _preprocessing(recipe, "ViTImageProcessor"),
        "config.json": config,
        WEIGHTS: mae_weights(recipe, _weights(run)),
    }


def _preprocessing(recipe: TrainRecipe, processor: str) -> dict[str, Any]:
    side = {"height": recipe.image_px, "width": recipe.image_px}
    return {
        "image_processor_type": processor,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": recipe.image_px} if processor[:4] == "CLIP" else side,
        "resample": 3,
        "do_center_crop": processor[:4] == "CLIP",
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(recipe.pixel_mean),
        "image_std": list(recipe.pixel_std),
    }


def _tokenizer_files(tokenizer: Tokenizer, context_length: int) -> dict[str, Any]:
    words = tokenizer.get_vocab_size() - 2
    begin, end = tokenizer.id_to_token(words), tokenizer.id_to_token(words + 1)
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "pad_token": end,
        "model_max_length": context_length,
        "padding_side": "right",
        "truncation_side": "right",
    }
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": about}


def _weights(run: Run) -> dict[str, Tensor]:
    """Return every tensor that the run computes with."""
    tensors = (*run.model.named_parameters(), *run.model.named_buffers())
    return {name: tensor.detach().contiguous() for name, tensor in tensors}


def _write(out: Path, files: Mapping[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, held in files.items():
        if name == WEIGHTS:
            with replaced(out / name) as file:
                file.write(save(held, metadata={"format": "pt"}))
        elif isinstance(held, Tokenizer):
            save_tokenizer(held, out / name)
        else:
            write_json(out / name, held)
