"""The settings of a rater's training (MuRating): what `quadmix rater` reads from its YAML file."""

from typing import Literal

from pydantic import Field, model_validator

from quadmix.recipe.annotating import CriterionSection
from quadmix.recipe.base import Name, Section, Share
from quadmix.recipe.running import RunSection

Direction = Literal["E", "M", "both"]
HeadName = Literal["plain", "concat", "znorm", "poso", "poso-znorm"]


class TextsSection(Section):
    """Documents that the pairs are made of, and their translations where there are any."""

    paths: list[str] = Field(min_length=1, description="JSONL or Parquet files; patterns; fsspec paths")
    text: str = Field(default="text", description="column with the text")
    id: str = Field(
        default="id",
        description="column with the id; of equal ids in a language the first is taken, the others counted; "
        "not read where `same` is given",
    )
    language: str | None = Field(default=None, description="column with the language")
    in_language: str | None = Field(
        default=None, description="language of all documents, where no column says it"
    )
    same: str | None = Field(
        default=None,
        description="column with the id that translations of one document share (a parallel corpus)",
    )
    domain: str | None = Field(
        default=None,
        description="column with the domain of a document, for the bias audit of the report and, where "
        "encoder.code names it, for the head",
    )
    human: str | None = Field(
        default=None,
        description="column with a number that people gave a document, larger = better, for the report alone",
    )
    limit: int | None = Field(
        default=None, gt=0, description="at most this many documents per language, drawn by a hash of the id"
    )

    decontaminate: list[str] = Field(
        default=[],
        description="benchmark files (JSONL or Parquet; patterns): documents that share 13 words in a row "
        "with any text in them are left out, in every language",
    )

    @model_validator(mode="after")
    def _one_language(self) -> "TextsSection":
        if (self.language is None) == (self.in_language is None):
            raise ValueError("texts needs exactly one of the keys `language` (a column) and `in_language`")
        return self


class JudgeSection(Section):
    """A language model that compares two texts, behind an OpenAI-compatible address; never required."""

    endpoint: str = Field(description="address of the API, up to and with /v1")
    model: str = Field(description="name that the API knows it by; an answer of another model is refused")
    key_from: str | None = Field(default=None, description="environment variable that holds the key")
    generations: int = Field(default=4, ge=1, description="answers per order of the two texts")
    temperature: float = Field(default=1.0, ge=0)
    weight: float = Field(default=1.0, gt=0, description="beside the raters, which weigh 1 each")
    vote: Literal["soft", "hard"] = Field(default="soft", description="hard: rounded to a or b")
    pairs: int | None = Field(
        default=None, gt=0, description="ask only about so many pairs, those on which the raters split most"
    )
    max_requests: int = Field(default=10_000, gt=0, description="stop before one more")
    max_tokens: int = Field(default=20_000_000, gt=0, description="of prompts and answers; stop before")
    price_in: float | None = Field(default=None, ge=0, description="per million tokens of prompts")
    price_out: float | None = Field(default=None, ge=0, description="per million tokens of answers")
    timeout: float = Field(default=60.0, gt=0, description="seconds for one answer")
    parallel: int = Field(default=8, ge=1, description="requests at once")


class PairsSection(Section):
    """Which texts are compared, and how votes become a label."""

    count: int = Field(default=8_000, gt=0, description="pairs of originals; the paper has 300,000")
    stratified: Share = Field(default=0.5, description="share of pairs from adjacent bins of mean quality")
    max_uses: int = Field(default=4, ge=1, description="pairs that one document may be in")
    holdout: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="share of the sources (documents with translations) held out",
    )
    shortest: int = Field(default=192, ge=1, description="units of the shortest excerpt (words; CJK: signs)")
    longest: int = Field(
        default=384,
        ge=1,
        description="units of the longest excerpt, half have this length; 384 are about 512 tokens, which "
        "encoders read",
    )
    whole: bool = Field(default=False, description="compare whole documents, however long each is")
    tie: dict[str, float] = Field(
        default={}, description="rater -> how far apart two of its ratings are at most that count as a tie"
    )
    weights: dict[str, float] = Field(
        default={}, description="rater -> weight of its vote, above 0; 1 for those that are not named"
    )
    least_voters: int = Field(default=2, ge=1, description="pairs with fewer voters are dropped")
    min_confidence: Share = Field(default=0.0, description="drop pairs with |p - 0.5| below half of this")
    temperature: float = Field(default=1.0, gt=0, description="labels become sigmoid(logit(p) / temperature)")

    @model_validator(mode="after")
    def _lengths(self) -> "PairsSection":
        if self.shortest > self.longest:
            raise ValueError(f"pairs.shortest is {self.shortest}, above pairs.longest, {self.longest}")
        return self


class TranslatorSection(Section):
    """Where translations come from."""

    kind: Literal["parallel", "model", "api", "none"] = Field(
        default="parallel",
        description="parallel: from `texts` itself (column `same`); model: a local translation model of "
        "transformers; api: an OpenAI-compatible address; none: no transfer, one language",
    )
    path: str | None = Field(default=None, description="kind model: its folder, or its id on the hub")
    endpoint: str | None = Field(default=None, description="kind api: address up to and with /v1")
    model: str | None = Field(default=None, description="kind api: name of the model")
    key_from: str | None = Field(default=None, description="kind api: environment variable with the key")
    max_requests: int = Field(default=10_000, gt=0, description="kind api: stop before one more")
    price_in: float | None = Field(default=None, ge=0, description="kind api: per million tokens of prompts")
    price_out: float | None = Field(default=None, ge=0, description="kind api: per million tokens of answers")
    parallel: int = Field(default=8, ge=1, description="kind api: requests at once")
    codes: dict[str, str] = Field(
        default={}, description="kind model: your language -> the model's code (de: deu_Latn for NLLB)"
    )
    how: Literal["bos", "prefix", "none"] = Field(
        default="bos",
        description="kind model: how it is told the language: by its first token (NLLB, M2M100, mBART), in "
        "`template` (MADLAD), not at all (Marian)",
    )
    template: str = Field(default="{text}", description="kind model, prefix: with {target} and {text}")
    beams: int = Field(default=1, ge=1, description="kind model: 1 is greedy")


class TransferSection(Section):
    """How preferences reach other languages."""

    direction: Direction = Field(
        default="E",
        description="E: pairs of originals in `source` are labelled and translated; M: native pairs, "
        "labelled by their translation into `source`; both",
    )
    source: str = Field(default="en", description="language that the raters read")
    languages: list[str] = Field(default=[], description="targets; left out, all there are")
    without: list[str] = Field(default=[], description="languages kept out of training, to test transfer")
    translator: TranslatorSection = TranslatorSection()
    mono: float = Field(default=150, ge=0, description="parts of monolingual pairs")
    cross: float = Field(default=150, ge=0, description="parts of cross-lingual pairs")
    parallel: float = Field(default=75, ge=0, description="parts of parallel pairs")
    reuse: bool = Field(
        default=False, description="use a pair as monolingual and cross-lingual both (few pairs)"
    )
    weight: float = Field(default=1.0, ge=0, description="λ, the weight of the mean parallel loss")
    label_source: Literal["votes", "stage1_model"] = Field(
        default="votes",
        description="labels of training pairs with a translation: the votes on their originals, or the "
        "probabilities of a rater in `source` that is trained on these votes first (with the same encoder)",
    )
    fidelity: bool = Field(default=True, description="drop translations that fail the gate")


class EncoderSection(Section):
    """What reads the texts."""

    kind: Literal["hashed", "frozen", "finetune"] = Field(
        default="hashed",
        description="hashed: character n-grams, no download; frozen: an embedding model with cached vectors "
        "and a head; finetune: the whole encoder is trained",
    )
    model: str | None = Field(default=None, description="frozen, finetune: card of the encoder, or its .yaml")
    path: str | None = Field(default=None, description="its local folder; left out, the hub")
    pooling: Literal["cls", "mean"] = Field(default="cls", description="finetune: tokens into one vector")
    epochs: int | None = Field(default=None, gt=0, description="left out: 10 (frozen), 2 (finetune)")
    batch: int | None = Field(default=None, gt=0, description="pairs; left out: 4096 or 256 (finetune)")
    lr: float | None = Field(default=None, gt=0, description="left out: 3e-4 (frozen), 2e-5 (finetune)")
    code: list[Literal["language", "domain"]] = Field(
        default=["language"],
        description="frozen: what the head is told of a text where it is told anything (concat, poso); the "
        "domain needs texts.domain",
    )
    max_unknown: Share = Field(
        default=0.3,
        description="frozen, finetune: refuse a training language of whose letters, digits and marks the "
        "tokenizer does not know a larger share; 1 refuses none",
    )

    @model_validator(mode="after")
    def _named(self) -> "EncoderSection":
        if self.kind != "hashed" and self.model is None:
            raise ValueError(f"encoder of kind {self.kind!r} needs the key 'model', the card of an embedder")
        if "language" not in self.code or len(set(self.code)) < len(self.code):
            raise ValueError(f"encoder.code is {self.code}, expected [language] or [language, domain]")
        if "domain" in self.code and self.kind != "frozen":
            raise ValueError(
                f"encoder.code names the domain, but an encoder of kind {self.kind!r} has no head that reads "
                "a code; set encoder.kind: frozen, or take the domain out"
            )
        return self

    def without_effect(self) -> set[str]:
        """Return the keys that change no rater: what is refused, and a code as it was before there was a
        choice."""
        return {"max_unknown"} | (set() if "domain" in self.code else {"code"})


class RaterRecipe(Section):
    """Everything that a rater is trained from."""

    name: Name
    seed: int = Field(default=0, ge=0)
    folder: str = Field(default="raters", description="the rater's folder is made here, under its name")
    texts: TextsSection
    raters: list[CriterionSection] = Field(min_length=1, description="who votes; as criteria of a run")
    judge: JudgeSection | None = None
    pairs: PairsSection = PairsSection()
    transfer: TransferSection = TransferSection()
    encoder: EncoderSection = EncoderSection()
    head: HeadName = Field(
        default="plain", description="what the score knows of the language; `quadmix rater compare-heads`"
    )
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _fits(self) -> "RaterRecipe":
        names = [r.name for r in self.raters]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"rater name {twice[0]!r} is used twice; names must be distinct")
        if unknown := sorted((self.pairs.tie.keys() | self.pairs.weights.keys()) - set(names)):
            raise ValueError(
                f"pairs.tie or pairs.weights names {unknown[0]!r}, no rater; expected {', '.join(names)}"
            )
        if "domain" in self.encoder.code and self.texts.domain is None:
            raise ValueError("encoder.code names the domain, but texts.domain names no column that holds it")
        voters = len(names) + (self.judge is not None)
        if voters < self.pairs.least_voters:
            raise ValueError(
                f"pairs.least_voters is {self.pairs.least_voters}, but there are {voters} voters; "
                "add raters or lower it"
            )
        if self.transfer.translator.kind == "parallel" and self.texts.same is None:
            raise ValueError("transfer.translator of kind 'parallel' needs texts.same (ids of translations)")
        if self.transfer.translator.kind == "none" and self.transfer.label_source != "votes":
            raise ValueError(
                "transfer.label_source is 'stage1_model', but transfer.translator of kind 'none' transfers "
                "nothing that it could label; leave it out"
            )
        return self
