"""The recipe: what goes in, what comes out, and how to train. Frozen, checked when made; YAML = JSON = Python.

A recipe holds declarations only. What is learnt from data is the contract's, what is decided before step 0 the plan's.

    part        what every section is             data  fields  stages  training    the sections
    declaration the sections together: Recipe     checks  pipeline                  what must hold between them
    reading     a file as plain values            complaints                        what is wrong, in our words
    writing     a recipe as plain values          schema                            the published JSON Schema
"""

from endwise.recipe.data import Border, Borders, Data, Windows
from endwise.recipe.declaration import Recipe
from endwise.recipe.fields import declare
from endwise.recipe.part import NAME
from endwise.recipe.reading import parse
from endwise.recipe.schema import json_schema
from endwise.recipe.stages import PARTED, REGIMES, Elsewhere, Stage, in_order, owner, standing
from endwise.recipe.training import FromRun, Goal, Objective, Train, Trunk, seconds_of

__all__ = [
    "NAME",
    "PARTED",
    "REGIMES",
    "Border",
    "Borders",
    "Data",
    "Elsewhere",
    "FromRun",
    "Goal",
    "Objective",
    "Recipe",
    "Stage",
    "Train",
    "Trunk",
    "Windows",
    "declare",
    "in_order",
    "json_schema",
    "owner",
    "parse",
    "seconds_of",
    "standing",
]
