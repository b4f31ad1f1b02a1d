"""What open_clip computes, written down: run by the Python of its own environment.

    python tests/open_clip_oracle.py REQUEST RESULT CONFIG

REQUEST and RESULT are safetensors files. The request holds ``tokens`` and ``captions`` (numbers of
open_clip's kind), ``images`` (normalised), features and logits for the losses; the result holds
losses and gradients, and for each of two activations a model's weights and what it makes of them.
CONFIG is the model's vision_cfg and text_cfg in JSON.
"""

import json
import sys

import torch
from safetensors.torch import load_file, save_file

# torchvision's build for CUDA lacks these beside a torch for CPUs, and nobody here calls them.
OPERATORS = torch.library.Library("torchvision", "DEF")
for operator in ("nms", "qnms"):
    OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from open_clip.loss import ClipLoss, CoCaLoss  # noqa: E402
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg  # noqa: E402

Tensors = dict[str, torch.Tensor]


def losses(request: Tensors) -> Tensors:
    """Return ClipLoss and CoCaLoss, and their gradients on features and logits."""
    names = ("image", "text", "logits", "logit_scale")
    image, text, logits, scale = (request[name].requires_grad_() for name in names)
    clip = ClipLoss()(image, text, scale.exp())
    coca = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0)
    parts = coca(image, text, logits[:, :-1], request["tokens"][:, 1:], scale.exp())
    found = {"clip": clip, "coca": sum(parts)}
    for loss in ("clip", "coca"):
        leaves = [image, text, scale, logits] if loss == "coca" else [image, text, scale]
        gradients = torch.autograd.grad(found[loss], leaves, retain_graph=True)
        order = ("image", "text", "logit_scale", "logits")
        found |= {f"{loss}.{n}": g for n, g in zip(order, gradients, strict=False)}
    return found


def model(request: Tensors, config: dict[str, dict[str, int]], quick: bool) -> Tensors:
    """Return a model's weights, its loss with the gradient on each, and its embeddings."""
    torch.manual_seed(0)
    vision, text = CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"])
    clip = CLIP(16, vision, text, quick_gelu=quick).double()
    with torch.no_grad():
        for parameter in clip.parameters():  # float32 holds them, so that a checkpoint can
            parameter.add_(0.05 * torch.randn(parameter.shape)).copy_(parameter.float())
    image, text, scale = clip(request["images"], request["numbers"])
    loss = ClipLoss()(image, text, scale)
    loss.backward()
    found = {"loss": loss, "images": image}
    found["captions"] = clip.encode_text(request["captions"], normalize=True)
    for name, parameter in clip.named_parameters():
        found |= {f"weight.{name}": parameter, f"gradient.{name}": parameter.grad}
    return found


def main() -> None:
    """Answer the request."""
    request, config = load_file(sys.argv[1]), json.loads(sys.argv[3])
    found = losses(request)
    for kind, quick in (("quick_gelu", True), ("gelu", False)):
        found |= {
            f"{kind}.{name}": tensor for name, tensor in model(request, config, quick).items()
        }
    save_file({name: tensor.detach().contiguous() for name, tensor in found.items()}, sys.argv[2])


if __name__ == "__main__":
    main()
