"""The user's YAML <-> checked settings; the only room that imports yaml and pydantic."""

from quadmix.recipe.base import Section
from quadmix.recipe.load import (
    PATH_KEYS,
    check_recipe,
    dump_recipe,
    json_schema,
    load_recipe,
    preset_names,
    preset_settings,
    preset_text,
)
from quadmix.recipe.proxies import ModelSection, ProxySection, TrainingSection
from quadmix.recipe.searching import ConfirmSection, SearchSection
from quadmix.recipe.sections import (
    AnnotateSection,
    BudgetSection,
    Columns,
    CorpusSection,
    CriterionSection,
    DomainSection,
    EvaluateSection,
    LabelledSet,
    MaterialiseSection,
    MixingSection,
    PriorSection,
    Recipe,
    RunSection,
    TargetSection,
    TokenizerSection,
)

__all__ = [
    "PATH_KEYS",
    "AnnotateSection",
    "BudgetSection",
    "Columns",
    "ConfirmSection",
    "CorpusSection",
    "CriterionSection",
    "DomainSection",
    "EvaluateSection",
    "LabelledSet",
    "MaterialiseSection",
    "MixingSection",
    "ModelSection",
    "PriorSection",
    "ProxySection",
    "Recipe",
    "RunSection",
    "SearchSection",
    "Section",
    "TargetSection",
    "TokenizerSection",
    "TrainingSection",
    "check_recipe",
    "dump_recipe",
    "json_schema",
    "load_recipe",
    "preset_names",
    "preset_settings",
    "preset_text",
]
