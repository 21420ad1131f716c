"""unfiltered-1: all visible text of every page, as it is. What a careless miner would upload."""

from athena.refine.extraction import VisibleText
from athena.refine.filters import Language
from athena.refine.recipe import Recipe

RECIPE = Recipe("unfiltered-1", "1", (VisibleText(), Language(languages=())))
