"""From shards to batches: any folder of WebDataset tars, in an order that is a pure function.

In a notebook::

    from breadth.loaders.folder import open_folder
    from breadth.loaders.stream import Stream

    for batch in Stream(open_folder(Path("built")), batch_pairs=256, seed=0, image_px=32): ...
"""
