"""Scores and domains: the `annotate` section of a recipe."""

from typing import Literal

from pydantic import Field, model_validator

from quadmix.recipe.base import Name, Section, Share, refuse_stray


class LabelledSet(Section):
    """Documents with a label or score, for training a criterion or a domain classifier."""

    path: str = Field(description="JSONL or Parquet file, fsspec path; relative to the recipe")
    text: str = Field(default="text", description="column with the text")
    label: str = Field(
        default="label", description="column with the label (domain) or the number (quality, larger = better)"
    )


class ModelKeys(Section):
    """Which model, and where its files lie."""

    model: str | None = Field(
        default=None, description="kind model: a card (`quadmix raters list`), or the path of your own .yaml"
    )
    path: str | None = Field(
        default=None, description="kind model: local folder or file of the model; left out, the hub"
    )
    accept_remote_code: str | None = Field(
        default=None, description="kind model: run the repository's code at this commit (40 hex digits)"
    )


_CRITERION_KEYS = {
    "column": ("column",), "heuristic": (), "linear": ("good", "bad"), "regression": ("labelled",),
    "model": ("model", "path", "output", "domain", "accept_remote_code"),
}  # fmt: skip
_DOMAIN_KEYS = {
    "column": ("column",), "single": (), "classifier": ("labelled", "confidence"),
    "model": ("model", "path", "accept_remote_code", "confidence"),
    "clusters": ("model", "path", "accept_remote_code", "confidence", "clusters"),
}  # fmt: skip


class CriterionSection(ModelKeys):
    """One quality criterion."""

    name: Name
    kind: Literal["column", "heuristic", "linear", "regression", "model"] = Field(
        description=(
            "column: a number in your files; heuristic: Gopher/C4/FineWeb rules; "
            "linear: classifier of `good` against the pool, as DCLM; regression: trained on `labelled`; "
            "model: a published rater or your own, by its card"
        )
    )
    column: str | None = Field(default=None, description="kind column: name, dotted for nested fields")
    direction: Literal["higher", "lower"] = Field(
        default="higher", description="is a higher or a lower number better? kind model: the card says"
    )
    good: list[LabelledSet] = Field(
        default=[], description="kind linear: reference-like text (label column unused)"
    )
    bad: list[LabelledSet] = Field(
        default=[], description="kind linear: pool-like text; left out, a sample of the pool"
    )
    labelled: list[LabelledSet] = Field(default=[], description="kind regression: text with a numeric label")
    output: str | None = Field(
        default=None, description="kind model: which output, where the card has several (QuRater)"
    )
    domain: str | None = Field(
        default=None,
        description="kind model, a rater that reads domains: the column with them; left out, the column of "
        "annotate.domain",
    )

    @model_validator(mode="after")
    def _complete(self) -> "CriterionSection":
        needs = {"column": "column", "linear": "good", "regression": "labelled", "model": "model"}
        key = needs.get(self.kind)
        if key and not getattr(self, key):
            raise ValueError(f"criterion {self.name!r} of kind {self.kind!r} needs the key {key!r}")
        refuse_stray(self, _CRITERION_KEYS)
        if self.kind == "model" and "direction" in self.model_fields_set and self.direction != "higher":
            raise ValueError(f"criterion {self.name!r}: the direction of a model stands on its card")
        return self


class DomainSection(ModelKeys):
    """Where the domain label of a document comes from."""

    kind: Literal["column", "classifier", "single", "model", "clusters"] = Field(
        default="single",
        description="column: in your files; classifier: trained on `labelled`; single: no domains; model: a "
        "published classifier, by its card; clusters: no labels at all, texts are embedded (by `model`, or "
        "without one by what is built in), clustered and the clusters named",
    )
    column: str | None = Field(default=None, description="kind column: name of the column")
    labelled: list[LabelledSet] = Field(default=[], description="kind classifier: text with a domain label")
    confidence: Share = Field(
        default=0.0, description="classifier, model, clusters: below this probability the label is `other`"
    )
    clusters: int = Field(default=24, ge=2, le=4096, description="kind clusters: how many at first")
    min_documents: int = Field(default=200, ge=1, description="smaller domains are merged into `other`")
    min_token_share: Share = Field(
        default=0.0005, description="domains with fewer tokens are merged into `other`"
    )

    @model_validator(mode="after")
    def _complete(self) -> "DomainSection":
        needs = {"column": "column", "classifier": "labelled", "model": "model"}.get(self.kind)
        if needs and not getattr(self, needs):
            raise ValueError(f"annotate.domain of kind {self.kind!r} needs the key {needs!r}")
        refuse_stray(self, _DOMAIN_KEYS)
        return self


class TextSet(Section):
    """Texts that the pool is held against, beside targets and benchmarks."""

    name: Name
    path: str = Field(description="JSONL or Parquet; relative to the recipe")
    text: str = Field(default="text", description="column with the text")


class AnnotateSection(Section):
    """Scores and a domain for every document."""

    domain: DomainSection = DomainSection()
    criteria: list[CriterionSection] = Field(
        default=[CriterionSection(name="heuristic", kind="heuristic")], min_length=1
    )
    min_coverage: Share = Field(
        default=0.999, description="least share of documents that every criterion must score"
    )
    missing: Literal["renormalise", "median", "drop"] = Field(
        default="renormalise",
        description="a missing score: weigh the others, take the domain's median, or drop the document",
    )
    exclude_overlap: bool = Field(
        default=False,
        description="nothing that shares 13 words in a row with a target, a benchmark or a set of "
        "overlap_with may be selected (scripts without spaces: 13 signs or 39 letters)",
    )
    overlap_with: list[TextSet] = Field(
        default=[],
        description="more texts that the pool is held against (and kept from, with exclude_overlap), such as "
        "all items of a benchmark in all languages",
    )
    language: str | None = Field(
        default=None,
        description="column with the language (ISO 639 code); documents in a language that a model's card "
        "does not name get no score from it",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="where models of kind model run; auto: a GPU if there is one"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of models; auto: bfloat16 on a GPU, float32 on a CPU"
    )
    batch_tokens: int = Field(default=16_384, ge=64, description="padded tokens of one forward pass")

    @model_validator(mode="after")
    def _distinct(self) -> "AnnotateSection":
        names = [c.name for c in self.criteria]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"criterion name {twice[0]!r} is used twice; names must be distinct")
        names = [s.name for s in self.overlap_with]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"overlap_with: {twice[0]!r} is used twice; names must be distinct")
        return self
