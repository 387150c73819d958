"""Cards of models that score or label text: what they are, and the contract details that break silently.

In: a YAML file, of this package (`data/cards/`) or the user's own. Out: a frozen `ModelCard`. What a card
says about input, windows and output is applied to every text; what it says of files and code is checked
before anything is loaded.
"""

from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import Field, ValidationError, model_validator

from quadmix.errors import InputError
from quadmix.recipe.base import Name, Section

CARDS = Path(__file__).parent.parent / "data" / "cards"

Family = Literal["fasttext", "sequence", "hub-head", "frozen-head", "yes-no", "ngram", "embedding", "rater"]


class CardInput(Section):
    """How a text becomes the model's input, and what is cut.

    A text is first cut to `chars`, then put into `template`, then, if `one_line`, its line ends become
    blanks. A model with a token window reads the first `window` tokens (aggregate: first), or all windows of
    that length one after the other, whose outputs are averaged: equally (mean), by their tokens
    (length-mean), or the largest is taken (max).
    """

    template: str = Field(default="{text}", description="{text}, and columns of the user's such as {url}")
    one_line: bool = Field(default=False, description="line ends become blanks (fastText reads one line)")
    lower: bool = Field(default=False, description="lower case")
    segment: str | None = Field(
        default=None,
        description="fastText models over pieces of a tokenizer: the folder with its tokenizer.json; the "
        "text loses case and diacritics, is split, and line ends are spelt out as \\n (Ultra-FineWeb)",
    )
    normalise: Literal["none", "ccnet"] = Field(
        default="none",
        description="n-gram models: ccnet: lower case, no accents, digits become 0, plain punctuation",
    )
    chars: int = Field(default=50_000, ge=1, description="characters of a text that are read at most")
    window: int | None = Field(default=None, ge=8, description="tokens per window, special tokens included")
    aggregate: Literal["first", "mean", "length-mean", "max"] = "first"
    special_tokens: bool = Field(
        default=True, description="the tokenizer's own are added (QuRater was trained without)"
    )
    max_windows: int = Field(default=64, ge=1, description="windows of a document that are read at most")
    pooling: Literal["cls", "mean", "last"] = Field(
        default="cls", description="family embedding and frozen-head: how tokens become one vector"
    )


class CardOutput(Section):
    """What the model gives, and how that becomes one number or one label per document."""

    kind: Literal["number", "classes", "yes", "perplexity", "vector"] = Field(
        description=(
            "number: regression, one head per name in `labels`; classes: probabilities of `labels`; yes: the "
            "probability of a positive answer; perplexity: of the text, per token; vector: an embedding"
        )
    )
    labels: tuple[str, ...] = Field(default=(), description="in the order of the model's outputs")
    positive: str | None = Field(default=None, description="classes as quality: P of this label")
    negative: str | None = Field(
        default=None,
        description="classes as quality, fastText: the model was trained with this label as the other side; "
        "where it is on top, 1 - p is taken",
    )
    values: dict[str, float] | None = Field(
        default=None, description="classes as quality: the number of each label; the score is the mean over P"
    )
    clamp: tuple[float, float] | None = Field(default=None, description="range of a number, beyond it is cut")
    transform: Literal["none", "sigmoid", "log"] = "none"
    among: Literal["answers", "vocabulary"] = Field(
        default="answers",
        description="kind yes: P(yes) / (P(yes) + P(no)), or P(yes) among all words as the Ask-LLM paper",
    )


class Golden(Section):
    """Outputs of the 20 fixed texts (`data/cards/texts.yaml`), recorded once where the model was present."""

    outputs: tuple[tuple[float, ...], ...] = Field(
        description="one row per text, as the model delivers it; of a vector the first 32 numbers"
    )
    tolerance: float = Field(default=0.01, gt=0, description="largest difference that passes")
    recorded_with: str = Field(description="versions of the libraries, device and precision")


class ModelCard(Section):
    """A model that scores (quality), labels (domain) or embeds text."""

    name: Name
    family: Family
    role: Literal["quality", "domain", "embedding"]
    model: str = Field(description="id on the hub, or a folder or file relative to the card")
    revision: str | None = Field(default=None, description="commit hash on the hub; null: not pinned yet")
    files: dict[str, str | None] = Field(
        default={}, description="file -> sha256; null: not pinned, the digest found is recorded in the run"
    )
    licence: str
    source: str = Field(description="paper or page that says how the model is meant to be used")
    description: str
    direction: Literal["higher", "lower", "none"] = "higher"
    languages: tuple[str, ...] = Field(default=("*",), description="ISO 639-1 codes; *: any")
    reads_language: bool = Field(
        default=False,
        description="family rater: a score depends on the text's language, so annotate.language is needed",
    )
    reads_domains: tuple[str, ...] = Field(
        default=(),
        description="family rater: a score depends on the text's domain, and these are the ones it was "
        "trained with; every other one counts as unknown",
    )
    remote_code: bool = Field(default=False, description="does loading run code from the model's repository?")
    input: CardInput = CardInput()
    output: CardOutput
    prompt: str | None = Field(default=None, description="family yes-no: with {text}")
    answers: dict[str, tuple[str, ...]] = Field(
        default={}, description="family yes-no: yes and no -> their spellings; P(yes) is among these"
    )
    base: str | None = Field(
        default=None, description="hub-head, frozen-head, rater: card, hub id or folder of what is below"
    )
    head: str | None = Field(default=None, description="hub-head, frozen-head: the file with its weights")
    trained_on: tuple[str, ...] = Field(
        default=(), description="data sets of its training, held against the run's targets (circularity)"
    )
    trained_languages: tuple[str, ...] = Field(
        default=(),
        description="languages of its training texts, where it scores others, too; empty: `languages`",
    )
    golden: Golden | None = None
    notes: str = ""

    @model_validator(mode="after")
    def _fits(self) -> "ModelCard":
        out = self.output
        if out.kind == "classes" and len(out.labels) < 2:
            raise ValueError("output.kind classes needs output.labels, at least two")
        for key in ("positive", "negative"):
            label = getattr(out, key)
            if label is not None and label not in out.labels:
                raise ValueError(f"output.{key} is {label!r}, expected one of {', '.join(out.labels)}")
        if out.values is not None and set(out.values) != set(out.labels):
            raise ValueError("output.values needs exactly one number per label")
        if self.role == "quality" and out.kind == "classes" and not (out.positive or out.values):
            raise ValueError("a quality card with classes needs output.positive or output.values")
        if self.family == "yes-no" and (
            not self.prompt or "{text}" not in self.prompt or set(self.answers) != {"yes", "no"}
        ):
            raise ValueError("family yes-no needs a prompt with {text} and answers for yes and no")
        if self.reads_language and self.family != "rater":
            raise ValueError("reads_language is for the family rater alone")
        if self.reads_domains and not self.reads_language:
            raise ValueError("reads_domains is for raters that read the language, too: set reads_language")
        if "{text}" not in self.input.template:
            raise ValueError("input.template needs {text}")
        return self


def load_card(name: str) -> ModelCard:
    """Return a card of the package by its name, or the user's own by the path of its YAML file.

    InputError names the file and the field that does not fit.
    """
    path = CARDS / f"{name}.yaml"
    own = name.endswith((".yaml", ".yml"))
    if own:
        path = Path(name)
    if not path.is_file():
        known = ", ".join(card_names())
        raise InputError(
            f"card {path} does not exist" if own
            else f"there is no card {name!r}; there are: {known}; your own: the path of a .yaml file"
        )  # fmt: skip
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"card {path} is not valid YAML: {error}") from error
    try:
        return ModelCard.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "card"
        raise InputError(f"card {path}: {place}: {first['msg']}; see `quadmix raters show`") from error


def card_folder(name: str) -> Path | None:
    """Return the folder that `model` of the user's own card is relative to, None for one of the package."""
    return Path(name).parent if name.endswith((".yaml", ".yml")) else None


def card_names() -> list[str]:
    """Return the names of the package's cards."""
    return sorted(p.stem for p in CARDS.glob("*.yaml") if p.stem != "texts")


def save_card(path: Path, card: ModelCard) -> None:
    """Write a card as YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(card_text(card), encoding="utf-8")


def card_text(card: ModelCard) -> str:
    """Return a card as YAML, without what is at its default."""
    data = card.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def fixed_texts() -> list[str]:
    """Return the 20 texts on which golden scores are recorded."""
    data: Any = yaml.safe_load((CARDS / "texts.yaml").read_text(encoding="utf-8"))
    return cast(list[str], data["texts"])
