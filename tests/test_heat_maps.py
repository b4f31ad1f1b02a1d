"""Heat maps against the same sums done another way."""

import numpy as np
import pytest
import torch

from breadth.loaders.errors import Refused
from breadth.loaders.world import World, caption, picture, scene
from breadth.train.evaluate.heat_maps import METHODS, heat_maps

from .made_runs import untrained

SCENES = [scene(World(1), i) for i in range(6)]
IMAGES = np.stack([picture(s, 32).transpose(2, 0, 1) for s in SCENES])
CAPTIONS = [caption(s) for s in SCENES]


def test_shares_sum_to_the_cosine_where_the_picture_is_the_mean_of_its_patches():
    """With pool gap and a linear head the map adds up to the picture's cosine, exactly."""
    run = untrained(pool="gap")
    shares = heat_maps(run, IMAGES, CAPTIONS, "share").astype(np.float64).sum(axis=(1, 2))
    cosine = (run.embed_pictures(IMAGES) * run.embed_captions(CAPTIONS)).sum(axis=1)
    assert np.abs(cosine).min() > 1e-3
    assert np.allclose(shares, cosine, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pool", ["cls", "gap", "max", "map"])
def test_a_patch_is_as_near_as_if_it_were_the_picture(pool):
    """Each value is the cosine of one patch token, alone through the head, row by row."""
    run = untrained(pool=pool, patch_px=8)
    found = heat_maps(run, IMAGES, CAPTIONS, "cosine")
    assert found.shape == (6, 4, 4)
    with torch.no_grad():
        patches = run.model.patches(torch.from_numpy(IMAGES))
        tokens = run.model.image(patches)[:, -16:]
        for row in (0, 3):
            words = run.embed_captions([CAPTIONS[row]])[0]
            for place in range(16):
                token = tokens[row, place]
                if pool == "map":  # its weights take every token to the head's space
                    token = run.model.attention_pool(token[None, None])[0, 0]
                one = run.model.image_head(token).numpy()
                wanted = one @ words / np.linalg.norm(one)
                assert found[row, place // 4, place % 4] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("pool", ["cls", "gap", "max", "map"])
def test_grad_cam_is_what_a_hook_on_the_whole_model_gives(pool):
    """Activations and gradients caught at the last block of an ordinary pass make the same map."""
    run = untrained(pool=pool, patch_px=8)
    caught = []
    run.model.image.stack.blocks[-1].register_forward_pre_hook(lambda _, x: caught.append(x[0]))
    found = heat_maps(run, IMAGES, CAPTIONS, "grad_cam")
    caught.clear()
    embedded = run.model.embed_patches(run.model.patches(torch.from_numpy(IMAGES)))
    caught[0].retain_grad()
    (embedded * torch.from_numpy(run.embed_captions(CAPTIONS))).sum().backward()
    acts, slopes = caught[0].detach().numpy()[:, -16:], caught[0].grad.numpy()[:, -16:]
    for row in range(6):
        weights = sum(slopes[row]) / 16
        wanted = [max(0.0, float(weights @ act)) for act in acts[row]]
        assert np.allclose(found[row].ravel(), wanted, atol=1e-5)
    assert (found > 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_maps_do_not_depend_on_company(method):
    """A picture's map is the same alone and among others, and training mode is left as it was."""
    run = untrained()
    together = heat_maps(run, IMAGES, CAPTIONS, method)
    alone = heat_maps(run, IMAGES[4:5], CAPTIONS[4:5], method)
    assert np.allclose(together[4:5], alone, atol=1e-6)
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_towers_without_a_class_token_have_maps_too():
    """SigLIP's tower begins with the first patch: nothing is cut off, and shares sum up."""
    run = untrained(architecture="siglip", patch_px=8, pool="gap")
    assert run.model.image.prefix == 0
    assert heat_maps(run, IMAGES, CAPTIONS, "grad_cam").shape == (6, 4, 4)
    shares = heat_maps(run, IMAGES, CAPTIONS, "share").astype(np.float64).sum(axis=(1, 2))
    cosine = (run.embed_pictures(IMAGES) * run.embed_captions(CAPTIONS)).sum(axis=1)
    assert np.allclose(shares, cosine, rtol=0, atol=1e-6)


def test_what_has_no_map_is_refused():
    """A run without a joint space and a map that does not exist are named."""
    with pytest.raises(Refused, match="InfoNCE"):
        heat_maps(untrained(terms={"Pixels": 1.0}), IMAGES, CAPTIONS, "cosine")
    with pytest.raises(Refused, match="grad_cam"):
        heat_maps(untrained(), IMAGES, CAPTIONS, "rollout")
