"""The models of a recipe: found, checked and placed before any document is read.

In: the `annotate` section. Out: one `PlacedRecord` per criterion or domain of a kind that needs a model, and
the annotators made of them. All files are hashed here, once, and their digests are in the run's identity.
"""

from collections.abc import Callable, Mapping, Sequence

from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.fetch import place
from quadmix.annotate.models.golden import check_golden
from quadmix.annotate.models.load import PlacedRecord, forget_models, from_record, load_model, to_record
from quadmix.annotate.models.rater import (
    Asked,
    ModelAnnotator,
    ModelLabeller,
    Numbers,
    computing,
    embedder,
)
from quadmix.errors import InputError
from quadmix.io.door import is_offline
from quadmix.recipe import AnnotateSection, CriterionSection, DomainSection, ModelCard, load_card
from quadmix.recipe.cards import card_folder

DOMAIN = "domain"
Records = Mapping[str, PlacedRecord]
Embed = Callable[[Sequence[str]], Numbers]


def model_users(section: AnnotateSection) -> list[CriterionSection | DomainSection]:
    """Return the criteria and the domain section that need a model."""
    return [u for u in (*section.criteria, section.domain) if u.kind in ("model", "clusters") and u.model]


def model_families(section: AnnotateSection) -> set[str]:
    """Return the families of the section's models, from their cards alone; a rater over vectors runs an
    embedder, too."""
    found = [load_card(str(user.model)) for user in model_users(section)]
    return {card.family for card in found} | {"embedding" for card in found if card.base is not None}


def place_models(section: AnnotateSection) -> dict[str, PlacedRecord]:
    """Return the placed model of every criterion, by its name, and of the domains, as `domain:`.

    Raises InputError for a card, a file or a digest that is not what it should be; nothing is loaded.
    """
    users = {c.name: c for c in section.criteria if c.kind == "model"}
    found = {name: place_model(user) for name, user in users.items()}
    if section.domain.kind in ("model", "clusters") and section.domain.model:
        found[f"{DOMAIN}:"] = place_model(section.domain)
    return found


def place_model(user: CriterionSection | DomainSection, *, offline: bool = False) -> PlacedRecord:
    """Return the placed model of one criterion, or of the domains. offline: nothing is fetched."""
    card = load_card(str(user.model))
    found = place(
        card,
        path=user.path,
        accept_remote_code=user.accept_remote_code,
        offline=offline or is_offline(),
        beside=card_folder(str(user.model)),
    )
    return to_record(found, pinned=is_pinned(card))


def is_pinned(card: ModelCard) -> bool:
    """Does the card itself name the digest of every file? `place` fills in what it finds."""
    return bool(card.files) and None not in card.files.values()


def asked_of(section: AnnotateSection, record: PlacedRecord, domain: str | None = None) -> Asked:
    """Return a placed model with the settings of the section.

    domain: the column that the criterion names for it; left out, the one of `annotate.domain`, where a column
    has the domains and the model reads them.
    """
    settings = Settings(device=section.device, precision=section.precision, batch_tokens=section.batch_tokens)
    placed = from_record(record)
    if domain is None and placed.card.reads_domains and section.domain.kind == "column":
        domain = section.domain.column
    return Asked(
        placed=placed, settings=settings, language=section.language, domain=domain, pinned=record.pinned
    )


def all_asked(section: AnnotateSection, records: Records) -> dict[str, Asked]:
    """Return every placed model of the section with its settings, by the name of its record."""
    domains = {criterion.name: criterion.domain for criterion in section.criteria}
    return {name: asked_of(section, record, domains.get(name)) for name, record in records.items()}


def model_annotator(
    criterion: CriterionSection, section: AnnotateSection, records: Records
) -> ModelAnnotator:
    """Return the annotator of a criterion of kind model."""
    asked = asked_of(section, records[criterion.name], criterion.domain)
    return ModelAnnotator.make(criterion.name, asked, criterion.output)


def model_labeller(section: AnnotateSection, records: Records) -> ModelLabeller:
    """Return the labeller of domains of kind model."""
    return ModelLabeller.make(asked_of(section, records[f"{DOMAIN}:"]), section.domain.confidence)


def domain_model(section: AnnotateSection, records: Records) -> tuple[Asked | None, Embed | None]:
    """Return the model of clusters and what embeds texts with it; None where the recipe names none."""
    record = records.get(f"{DOMAIN}:")
    asked = asked_of(section, record) if record else None
    return asked, embedder(asked) if asked else None


def computed_by(section: AnnotateSection, records: Records) -> dict[str, tuple[str, ...]]:
    """Return device and number format in which each neural model runs here."""
    return {name: computing(asked) for name, asked in all_asked(section, records).items()}


def try_models(section: AnnotateSection, records: Records) -> None:
    """Load every model once, one after the other, and hold it against the outputs on its card.

    A wrong architecture, a missing GPU or other outputs are an InputError before any document is read.
    """
    for name, asked in all_asked(section, records).items():
        load_model(asked.placed, asked.settings)
        if asked.placed.card.golden is not None:
            checked = check_golden(asked)
            if checked.passed is False:
                raise InputError(f"the model of {name.rstrip(':')!r}, {checked.model}, {checked.told}")
        forget_models()


def model_columns(section: AnnotateSection, records: Records) -> list[tuple[str, str]]:
    """Return who reads which of the user's columns, as (who, column)."""
    return [
        (f"the model of {name.rstrip(':')!r}", column)
        for name, asked in all_asked(section, records).items()
        for column in asked.columns
    ]


def model_digests(section: AnnotateSection) -> dict[str, str]:
    """Return the digest of every model that the section names, of its card's settings and all its files."""
    return {f"{name.rstrip(':')}.model": record.digest for name, record in place_models(section).items()}
