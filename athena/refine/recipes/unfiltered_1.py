"""unfiltered-1: all visible text of every page, as it is. What a careless miner would upload."""

from athena.refine.recipe import Recipe
from athena.refine.steps.extraction import VisibleText
from athena.refine.steps.filters import Language

RECIPE = Recipe("unfiltered-1", "1", (VisibleText(), Language(languages=())))
