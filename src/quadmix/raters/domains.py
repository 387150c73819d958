"""The domain of each text that a rater is trained on, where a column of the user's says it.

In: domains.json of a rater's folder (source -> domain, without the documents whose column is empty). Out: one
name per text, "" = unknown; a translation has the domain of its document.
"""

from pathlib import Path

from quadmix.errors import InputError
from quadmix.io.atomic import read_json, value_digest
from quadmix.raters.table import Texts
from quadmix.recipe import RaterRecipe

DOMAINS = "domains.json"


def text_domains(folder: Path, texts: Texts) -> list[str]:
    """Return (D,) the domain of each text, "" where nobody says it."""
    known = _known(folder)
    return [known.get(source, "") for source in texts.source]


def code_domains(recipe: RaterRecipe, folder: Path, texts: Texts) -> list[str] | None:
    """Return (D,) the domains that the code of the head has, None where it has none."""
    return text_domains(folder, texts) if "domain" in recipe.encoder.code else None


def with_domains(digest: str, recipe: RaterRecipe, folder: Path) -> str:
    """Return the digest of the pairs, and of the domains where the rater reads them: the pairs are the same
    whichever column says these."""
    if "domain" not in recipe.encoder.code:
        return digest
    return value_digest([digest, _known(folder)])


def _known(folder: Path) -> dict[str, str]:
    return read_json(folder / DOMAINS) if (folder / DOMAINS).is_file() else {}


def check_code(recipe: RaterRecipe) -> None:
    """Raise InputError where the code names the domain and the head has no code that could read it."""
    if "domain" in recipe.encoder.code and recipe.head in ("plain", "znorm"):
        raise InputError(
            f"encoder.code names the domain, but head {recipe.head!r} has no code; set head: concat, poso or "
            "poso-znorm (`quadmix rater compare-heads` says which is worth it), or take the domain out of "
            "encoder.code"
        )
