"""A scene in words: its caption, and questions about it with their answers."""

from .scene_drawing import Scene

TEXTURES = {"plain": "", "striped": "with stripes", "dotted": "with dots", "checked": "with checks"}
RELATIONS = ("above", "below", "left of", "right of")
NUMBERS = ("no", "one", "two", "three")
KINDS = ("colour", "shape", "texture", "background", "count", "relation")
"""What questions are about, in their order; beside companions several ask for the last."""


def caption(scene: Scene) -> str:
    """Say in English what the caption tells of a scene, the main object first."""
    size = f"{scene.size} " if "size" in scene.said else ""
    words = f"{scene.opening} a {size}{scene.main.colour} {scene.main.shape}"
    words = words.replace(" a orange", " an orange")
    if "texture" in scene.said and scene.main.texture != "plain":
        words += f" {TEXTURES[scene.main.texture]}"
    if "background" in scene.said:
        words += f" on a {scene.background} background"
    if "companions" in scene.said:
        words += f", {_company(scene)}"
    return words


def _company(scene: Scene) -> str:
    if not scene.companions:
        return "with nothing else around it"
    number, thing = len(scene.companions), scene.companions[0]
    relation = {"left of": "to the left of", "right of": "to the right of"}
    plural = "" if number == 1 else "es" if thing.shape.endswith("s") else "s"
    return (
        f"{relation.get(scene.relation, scene.relation)} {NUMBERS[number]} small "
        f"{thing.colour} {thing.shape}{plural}"
    )


def questions(scene: Scene) -> list[tuple[str, str]]:
    """Return questions about a scene with their one-word answers, caption or not."""
    main = scene.main
    asked = [
        (f"what colour is the {scene.size} {main.shape}?", main.colour),
        (f"what shape is the {scene.size} {main.colour} object?", main.shape),
        (f"what is the texture of the {main.colour} {main.shape}?", main.texture),
        ("what colour is the background?", scene.background),
        ("how many small objects are there?", NUMBERS[len(scene.companions)]),
    ]
    if scene.companions:
        small = f"small {scene.companions[0].colour} {scene.companions[0].shape}"
        asked += [
            (f"is the {main.colour} {main.shape} {relation} the {small}?", answer)
            for relation in RELATIONS
            for answer in ["yes" if relation == scene.relation else "no"]
        ]
    return asked
