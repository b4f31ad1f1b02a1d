"""From a pool of candidate links, or existing shards, to curated shards with a ledger.

In a notebook (a script keeps it under ``if __name__ == "__main__"``, as workers import it)::

    from breadth.curate.build import build
    from breadth.curate.recipe import Recipe

    manifest = build(Recipe.read("basic"), "links.parquet", "built")
"""
