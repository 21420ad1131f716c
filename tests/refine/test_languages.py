"""The recipes of single languages keep prose of their own and no other's."""

import pytest

from athena.refine.recipe import Document, Rejected, load_recipe
from athena.refine.records import read_records

PROSE = {
    "de": """Der Hafen liegt am Rand der alten Stadt, und wer ihn früh am Morgen besucht, sieht die Boote auslaufen.
Im vergangenen Jahrhundert wurde er zweimal erweitert, weil die Werften mehr Platz für ihre Schiffe brauchten.
Heute arbeiten dort nur noch wenige Menschen, doch das Museum erzählt mit großer Sorgfalt von den Zeiten davor.
Besonders beliebt ist die Ausstellung über den Bau der Brücke, die den Norden mit dem Süden verbindet.
Als wir zuletzt dort waren, zeigte uns ein ehemaliger Lotse die Karten, nach denen er jahrzehntelang gefahren ist.""",
    "fr": """Le port se trouve au bord de la vieille ville, et le visiteur matinal y voit partir les bateaux de pêche.
Au cours du siècle dernier il fut agrandi deux fois, parce que les chantiers avaient besoin de place pour leurs navires.
Peu de gens y travaillent encore, mais le musée raconte avec beaucoup de soin l'histoire des familles du quartier.
L'exposition sur la construction du pont est la plus appréciée, car elle montre les outils d'une époque disparue.
Lors de notre dernière visite, un ancien pilote nous a présenté les cartes dans lesquelles il lisait la côte.""",
    "es": """El puerto está en el borde de la ciudad antigua, y quien lo visita temprano ve salir los barcos de pesca.
Durante el siglo pasado se amplió dos veces, porque los astilleros necesitaban más espacio para sus grandes naves.
Hoy trabajan allí pocas personas, pero el museo cuenta con mucho cuidado la historia de las familias del barrio.
La exposición sobre la construcción del puente es la más apreciada, ya que muestra herramientas de otra época.
En nuestra última visita, un antiguo piloto nos enseñó los mapas con los que había navegado por la costa.""",
}
NAMES = {"de": "de-1", "fr": "fr-1", "es": "es-1"}


def processed(recipe, paragraphs, html_page, warc):
    from io import BytesIO

    (record,) = read_records(BytesIO(warc([("http://a.example/", html_page(paragraphs))])), "a.warc.gz")
    return load_recipe(recipe).process(record)


@pytest.mark.parametrize("language", sorted(NAMES))
def test_prose_of_the_language_is_kept(language, html_page, warc):
    result = processed(NAMES[language], PROSE[language].split("\n"), html_page, warc)
    assert isinstance(result, Document), result
    assert result.row["language"] == language
    assert PROSE[language].split("\n")[1] in result.row["text"]
    assert result.minhash is not None


@pytest.mark.parametrize("language", sorted(NAMES))
def test_prose_of_other_languages_is_dropped(language, prose, html_page, warc):
    others = [prose(1), *(text.split("\n") for name, text in PROSE.items() if name != language)]
    for paragraphs in others:
        result = processed(NAMES[language], paragraphs, html_page, warc)
        assert isinstance(result, Rejected)
        assert result.reason in ("language", "language-guess")


def test_steps_and_stop_words_are_of_the_recipes_language():
    for language, name in NAMES.items():
        steps = load_recipe(name).steps
        assert {step.language for step in steps if hasattr(step, "language")} == {language}
        assert {step.languages for step in steps if hasattr(step, "languages")} == {(language,)}
        for step in steps:
            if hasattr(step, "stop_words"):
                words = set(PROSE[language].lower().replace("l'", "l' ").replace("d'", "d' ").split())
                assert len(words & set(step.stop_words)) >= 8


def test_real_german_pages_yield_rows(test_data):
    kept = []
    with (test_data / "extraction" / "trafilatura" / "pages.warc.gz").open("rb") as file:
        for record, _ in zip(read_records(file, "pages.warc.gz"), range(25), strict=False):
            result = load_recipe("de-1").process(record)
            if isinstance(result, Document):
                kept.append(result.row)
    assert len(kept) >= 10
    assert {row["language"] for row in kept} == {"de"}
    assert all(row["language_score"] > 0.821 for row in kept)
