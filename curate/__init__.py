"""From a pool of candidate links, or existing shards, to curated shards with a ledger.

In a notebook (under ``if __name__ == "__main__"`` in a script: the workers import the main module)::

    from breadth.curate.build import build
    from breadth.curate.recipe import Recipe

    manifest = build(Recipe.read("basic"), "links.parquet", "built")
"""
