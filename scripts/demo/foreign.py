"""Caption scenes in eight languages other than English, for the planted foreign captions."""

from breadth.loaders.scene_drawing import Scene

# Each language: a sentence, then its words for what fills it. Word order is kept simple by naming
# colour and shape as nouns ("a figure in the form of a star, colour red"), so nothing is inflected.
_SENTENCES = {
    "de": "Auf diesem Bild sieht man eine Figur in der Form {shape} und in der Farbe {colour}",
    "fr": "Cette image montre une figure en forme {shape} et de couleur {colour}",
    "es": "En esta imagen se puede ver una figura con forma {shape} y de color {colour}",
    "it": "In questa immagine si vede una figura a forma {shape} di colore {colour}",
    "pt": "Nesta imagem você pode ver uma figura em forma {shape} e de cor {colour}",
    "nl": "Op deze afbeelding zie je een figuur in de vorm van {shape} in de kleur {colour}",
    "pl": "Na tym obrazku widać figurę w kształcie {shape} w kolorze {colour}",
    "ru": "На этой картинке изображена фигура в форме {shape}, её цвет {colour}",  # noqa: RUF001 (Cyrillic is meant)
}
_SHAPES = {
    "circle": "eines Kreises|de cercle|de círculo|di cerchio|de círculo|een cirkel|koła|круга",
    "square": "eines Quadrats|de carré|de cuadrado|di quadrato|de quadrado|een vierkant|kwadratu"
    "|квадрата",
    "triangle": "eines Dreiecks|de triangle|de triángulo|di triangolo|de triângulo|een driehoek"
    "|trójkąta|треугольника",
    "star": "eines Sterns|d'étoile|de estrella|di stella|de estrela|een ster|gwiazdy|звезды",
    "cross": "eines Kreuzes|de croix|de cruz|di croce|de cruz|een kruis|krzyża|креста",
    "ring": "eines Rings|d'anneau|de anillo|di anello|de anel|een ring|pierścienia|кольца",
    "heart": "eines Herzens|de cœur|de corazón|di cuore|de coração|een hart|serca|сердца",
    "crescent": "einer Mondsichel|de croissant|de media luna|di mezzaluna|de meia-lua"
    "|een maansikkel|półksiężyca|полумесяца",
    "diamond": "einer Raute|de losange|de rombo|di rombo|de losango|een ruit|rombu|ромба",
    "arrow": "eines Pfeils|de flèche|de flecha|di freccia|de seta|een pijl|strzałki|стрелки",
    "hexagon": "eines Sechsecks|d'hexagone|de hexágono|di esagono|de hexágono|een zeshoek"
    "|sześciokąta|шестиугольника",
    "bolt": "eines Blitzes|d'éclair|de rayo|di fulmine|de raio|een bliksem|błyskawicy|молнии",
}
_COLOURS = {
    "red": "rot|rouge|rojo|rosso|vermelha|rood|czerwonym|красный",
    "green": "grün|verte|verde|verde|verde|groen|zielonym|зелёный",
    "blue": "blau|bleue|azul|blu|azul|blauw|niebieskim|синий",
    "yellow": "gelb|jaune|amarillo|giallo|amarela|geel|żółtym|жёлтый",
    "purple": "lila|violette|morado|viola|roxa|paars|fioletowym|фиолетовый",
    "orange": "orange|orange|naranja|arancione|laranja|oranje|pomarańczowym|оранжевый",
    "pink": "rosa|rose|rosa|rosa|rosa|roze|różowym|розовый",
    "cyan": "türkis|turquoise|turquesa|turchese|turquesa|turkoois|turkusowym|бирюзовый",
    "brown": "braun|brune|marrón|marrone|marrom|bruin|brązowym|коричневый",
    "navy": "dunkelblau|bleu marine|azul marino|blu scuro|azul-marinho|donkerblauw|granatowym"
    "|тёмно-синий",
    "olive": "oliv|olive|oliva|oliva|oliva|olijfgroen|oliwkowym|оливковый",
    "lime": "hellgrün|vert clair|verde lima|verde chiaro|verde-limão|limoengroen|limonkowym"
    "|светло-зелёный",
}

LANGUAGES: tuple[str, ...] = tuple(_SENTENCES)


def foreign_caption(scene: Scene, language: str) -> str:
    """Name colour and shape of the main object in one of LANGUAGES."""
    column = LANGUAGES.index(language)
    return _SENTENCES[language].format(
        shape=_SHAPES[scene.main.shape].split("|")[column],
        colour=_COLOURS[scene.main.colour].split("|")[column],
    )
