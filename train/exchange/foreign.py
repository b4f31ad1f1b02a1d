"""What others' folders and files say of a CLIP: its numbers as a recipe's options, its weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from breadth.loaders.errors import PoolError

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
OPEN_CLIP_CONFIG = "open_clip_config.json"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)  # OpenAI's
BUFFERS = ("attn_mask", "position_ids", "input_resolution", "context_length", "vocab_size")
"""What old files hold beside weights."""

# What a folder leaves out is what transformers takes for granted, likewise for open_clip.
TEXT = {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8}
TEXT |= {"intermediate_size": 2048, "max_position_embeddings": 77}
VISION = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
VISION |= {"intermediate_size": 3072, "image_size": 224, "patch_size": 32, "num_channels": 3}
BOTH = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
OPEN_VISION = {"width": 768, "layers": 12, "head_width": 64, "patch_size": 16, "image_size": 224}
OPEN_TEXT = {"width": 512, "layers": 12, "heads": 8, "context_length": 77, "vocab_size": 49408}
DECODER = {"decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16}
"""MAE's, of which a CLIP makes nothing."""


class Foreign(NamedTuple):
    """Another's CLIP: options of the recipe that describes it, its weights by their names."""

    layout: str
    options: dict[str, Any]
    weights: dict[str, Tensor]
    folder: Path


def read_foreign(source: Path, config: Path | None) -> Foreign:
    """Read a CLIP folder of transformers, or an open_clip folder or checkpoint.

    ``config`` is the checkpoint's configuration where none lies beside it. Raises PoolError where
    there is neither, or it is no plain CLIP.
    """
    if source.is_file():
        if source.suffix not in SUFFIXES:
            raise PoolError(f"{source} is no checkpoint: give a {', '.join(SUFFIXES)}, or a folder")
        return _open_clip(source, config or source.parent / OPEN_CLIP_CONFIG)
    there = [name for name in WEIGHT_FILES if (source / name).is_file()]
    if there and (source / "config.json").is_file():
        options = _understood(_transformers_options, source / "config.json")
        return Foreign("transformers", options, read_weights(source / there[0]), source)
    open_clip = [name for name in OPEN_CLIP_FILES if (source / name).is_file()]
    if open_clip:
        return _open_clip(source / open_clip[0], config or source / OPEN_CLIP_CONFIG)
    raise PoolError(
        f"{source} holds no CLIP: give a folder with config.json and {WEIGHT_FILES[0]}, one with"
        f" {OPEN_CLIP_FILES[0]}, or a checkpoint of open_clip"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict; nothing in the file is run. Raises PoolError where it is none."""
    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # neither library raises anything narrower
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise PoolError(f"{path} is no file of weights ({reason}): give a state dict") from error
    held = held.get("state_dict", held) if isinstance(held, Mapping) else held
    if not isinstance(held, Mapping) or not all(torch.is_tensor(t) for t in held.values()):
        raise PoolError(f"{path} holds no state dict: give one of names and tensors")
    return {
        name.removeprefix("module."): tensor
        for name, tensor in held.items()
        if name.split(".")[-1] not in BUFFERS
    }


def _understood(read: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    """Read a configuration; what is of another kind than it should be is one line."""
    try:
        return read(path)
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise PoolError(f"{path} is no configuration of a CLIP ({error}): give another") from error


def _transformers_options(path: Path) -> dict[str, Any]:
    said = _json(path)
    if said.get("model_type") != "clip":
        raise PoolError(f"{path} is of the model {said.get('model_type')!r}: give a clip")
    text, vision = ({**BOTH, **known, **(said.get(f"{kind}_config") or {}),
                     **(said.get(f"{kind}_config_dict") or {})}
                    for kind, known in (("text", TEXT), ("vision", VISION)))  # fmt: skip
    architecture = {"quick_gelu": "clip", "gelu": "clip_gelu"}.get(vision["hidden_act"])
    for name, part in (("text", text), ("vision", vision)):
        _agree(path, name, part, "intermediate_size", 4 * part["hidden_size"])
        _agree(path, name, part, "layer_norm_eps", 1e-5)
        _agree(path, name, part, "hidden_act", vision["hidden_act"] if architecture else "gelu")
    _agree(path, "vision", vision, "num_channels", 3)
    numbers = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    picture, caption = ([part[name] for name in numbers] for part in (vision, text))
    seen = path.parent / "preprocessor_config.json"
    pixel = _json(seen) if seen.is_file() else {}
    return {
        "architecture": architecture,
        "size": _size(picture, caption, said.get("projection_dim", 512)),
        "image_px": vision["image_size"],
        "patch_px": vision["patch_size"],
        "context_length": text["max_position_embeddings"],
        "pixel_mean": pixel.get("image_mean", PIXEL_MEAN),
        "pixel_std": pixel.get("image_std", PIXEL_STD),
    }


def _open_clip(file: Path, config: Path) -> Foreign:
    if not config.is_file():
        raise PoolError(
            f"{file} does not say how many heads it has: give its configuration with --config, as"
            f" open_clip has it in model_configs, or lay {OPEN_CLIP_CONFIG} beside it"
        )
    return Foreign(
        "open_clip", _understood(_open_clip_options, config), read_weights(file), file.parent
    )


def _open_clip_options(path: Path) -> dict[str, Any]:
    whole = _json(path)
    said, pixel = whole.get("model_cfg", whole), whole.get("preprocess_cfg", {})
    kinds = {"vision_cfg": dict, "text_cfg": dict, "embed_dim": int}
    for name, kind in kinds.items():
        if not isinstance(said.get(name), kind):
            raise PoolError(f"{path} has no {name}: give a configuration of open_clip")
    for name, known in (("vision_cfg", OPEN_VISION), ("text_cfg", OPEN_TEXT)):
        for option, value in said[name].items():
            if option not in known and value not in (None, False, 0, 4.0):
                raise PoolError(f"{path} sets {option} = {value!r}: a plain CLIP has no {option}")
    vision, text = OPEN_VISION | said["vision_cfg"], OPEN_TEXT | said["text_cfg"]
    if not isinstance(vision["layers"], int):
        raise PoolError(f"{path} is of a ResNet: give a CLIP whose picture tower is a ViT")
    picture = [vision["width"], vision["layers"], vision["width"] // vision["head_width"]]
    caption = [text["width"], text["layers"], text["heads"]]
    return {
        "architecture": "clip" if said.get("quick_gelu") else "clip_gelu",
        "size": _size(picture, caption, said["embed_dim"]),
        "image_px": vision["image_size"],
        "patch_px": vision["patch_size"],
        "context_length": text["context_length"],
        "pixel_mean": pixel.get("mean", PIXEL_MEAN),
        "pixel_std": pixel.get("std", PIXEL_STD),
    }


def _size(picture: list[int], caption: list[int], embedding: int) -> dict[str, int]:
    """Return the recipe's table of width, depth and heads of both towers, and their space."""
    names = ("width", "depth", "heads")
    size = dict(zip(names, picture, strict=True))
    size |= {f"text_{name}": value for name, value in zip(names, caption, strict=True)}
    return {**size, "embedding": embedding, **DECODER}


def _agree(path: Path, part: str, said: Mapping[str, Any], option: str, wanted: Any) -> None:
    if said[option] != wanted:
        raise PoolError(
            f"{path} sets {option} = {said[option]!r} for {part}: CLIP has {wanted!r} there"
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_bytes())
    except ValueError as error:
        raise PoolError(f"{path} is no JSON ({error}): put the file back") from error
    if not isinstance(held, dict):
        raise PoolError(f"{path} holds no table: put the file back")
    return held
