"""The user's YAML <-> checked settings; the only room that imports yaml and pydantic."""

from quadmix.recipe.annotating import (
    AnnotateSection,
    CriterionSection,
    DomainSection,
    LabelledSet,
    TextSet,
)
from quadmix.recipe.base import Section
from quadmix.recipe.cards import ModelCard, card_names, fixed_texts, load_card, save_card
from quadmix.recipe.evaluating import Baseline, BenchmarkSection, EvaluateSection, RungSection
from quadmix.recipe.load import (
    PATH_KEYS,
    check_recipe,
    dump_recipe,
    json_schema,
    load_rater,
    load_recipe,
    preset_names,
    preset_settings,
    preset_text,
    remote_paths,
)
from quadmix.recipe.proxies import LADDER, ModelSection, ProxySection, TrainingSection
from quadmix.recipe.rating import RaterRecipe
from quadmix.recipe.searching import ConfirmSection, SearchSection
from quadmix.recipe.sections import (
    BudgetSection,
    Columns,
    CorpusSection,
    MaterialiseSection,
    MixingSection,
    PriorSection,
    Recipe,
    ReportSection,
    RunSection,
    TargetSection,
    TokenizerSection,
)

__all__ = [
    "LADDER",
    "PATH_KEYS",
    "AnnotateSection",
    "Baseline",
    "BenchmarkSection",
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
    "ModelCard",
    "ModelSection",
    "PriorSection",
    "ProxySection",
    "RaterRecipe",
    "Recipe",
    "ReportSection",
    "RunSection",
    "RungSection",
    "SearchSection",
    "Section",
    "TargetSection",
    "TextSet",
    "TokenizerSection",
    "TrainingSection",
    "card_names",
    "check_recipe",
    "dump_recipe",
    "fixed_texts",
    "json_schema",
    "load_card",
    "load_rater",
    "load_recipe",
    "preset_names",
    "preset_settings",
    "preset_text",
    "remote_paths",
    "save_card",
]
