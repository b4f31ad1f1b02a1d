"""A compact trainer for the MAE-CLIP family: views x terms.

In a notebook::

    from breadth.train.checkpoint import load_run
    from breadth.train.loop import train
    from breadth.train.recipe import load_recipe

    train(load_recipe("demo_clip"), Path("built"), Path("run"))
    load_run(Path("run")).embed_captions(["a red circle"])
"""
