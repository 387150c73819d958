"""Every key of a recipe with its default, its bounds and one line of explanation.

The `run` section (workers, folder, ...) says where and how work runs, `report` what the page shows: they are
not part of a run's identity; everything else is.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from quadmix.recipe.annotating import AnnotateSection
from quadmix.recipe.base import Name, Section, Share
from quadmix.recipe.evaluating import EvaluateSection
from quadmix.recipe.proxies import ProxySection
from quadmix.recipe.running import RunSection
from quadmix.recipe.searching import ConfirmSection, SearchSection


class Columns(Section):
    """Column names in the user's files; left out, they are detected and printed."""

    text: str | None = Field(default=None, description="document text; detected: text, raw_content, content")
    id: str | None = Field(
        default=None, description="document id, kept as a string; detected: id, doc_id, uid"
    )
    tokens: str | None = Field(default=None, description="token counts of your own tokenizer, if present")
    source: str | None = Field(
        default=None,
        description="where a document comes from, counted for the report; of URLs the host; detected: url, "
        "source_domain, host, source",
    )
    language: str | None = Field(
        default=None,
        description="language of a document, counted for the report and read by the baselines per language; "
        "detected: language, lang",
    )


class CorpusSection(Section):
    """What the pool is and how many bad rows are tolerable."""

    paths: Annotated[list[str], Field(min_length=1)] = Field(
        description=(
            "files, globs, folders (JSON lines, Parquet, Arrow, WARC: docs/data.md) or fsspec URLs; "
            "relative to the recipe"
        )
    )
    columns: Columns = Columns()
    split_bytes: int = Field(
        default=64_000_000, gt=0, description="large files are read in pieces of about this size"
    )
    max_row_bytes: int = Field(default=64_000_000, gt=0, description="longer rows go to quarantine")
    quarantine_rows: int = Field(default=100, ge=0, description="the run fails above this many bad rows ...")
    quarantine_share: Share = Field(
        default=0.0001, description="... and above this share of all rows (both must be exceeded)"
    )


class TokenizerSection(Section):
    """Byte-level BPE trained on the pool, or a tokenizer.json of yours."""

    vocab_size: int = Field(
        default=4096, ge=512, description="size of the BPE trained on the pool, at most 65,536"
    )
    train_bytes: int = Field(
        default=20_000_000, gt=0, description="text used to train the BPE, drawn evenly from the pool"
    )
    path: str | None = Field(default=None, description="use this tokenizer.json instead of training one")

    @model_validator(mode="after")
    def _two_bytes(self) -> "TokenizerSection":
        if self.vocab_size > 65_536 and self.path is None:
            raise ValueError(
                f"tokenizer.vocab_size is {self.vocab_size:,}; at most 65,536 (two bytes a token) are "
                "trained: lower it (4,096 ranks mixtures at a fraction of the cost), or give tokenizer.path"
            )
        return self


class MixingSection(Section):
    """Equations 1 to 3."""

    normaliser: Literal["rank-global", "rank-domain", "zscore", "robust-z", "identity"] = "rank-global"
    rank_mode: Literal["interval", "paper", "hash-tiebreak"] = "interval"
    exact_documents: int = Field(
        default=4_000_000,
        ge=0,
        description="so many documents, smallest domains first, are ranked by sorting (24 bytes of memory "
        "each); larger domains in bins of at most 1e-4 of their tokens",
    )
    theta_from: str | None = Field(
        default=None,
        description="run folder whose θ* is applied to this corpus, without a search of its own; "
        "relative to the recipe",
    )
    repetition_cap: float | None = Field(
        default=None, gt=0, description="most times a document may be seen in training (copies x epochs)"
    )
    multipliers: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="domain: factor on its tokens"
    )
    min_share: dict[str, Share] = Field(default={}, description="domain: least share of the selected tokens")
    max_share: dict[str, Share] = Field(
        default={}, description="domain: largest share of the selected tokens"
    )


class PriorSection(Section):
    """Algorithm 1: the distribution of random parameters."""

    steepness: Literal["log", "linear"] = Field(
        default="log", description="λ = 10^(3u) or 1000u; the paper is ambiguous"
    )
    cutoff_max: Share = Field(default=0.1, gt=0)
    exponent_max: float = Field(default=1.0, gt=0, le=6.0)
    floor_max: float = Field(default=0.001, ge=0, le=1.0)
    sparse: Share = Field(default=0.0, description="share of draws in which some criteria get weight 0")


class BudgetSection(Section):
    """How many tokens to select; copies count."""

    tokens: int | None = Field(
        default=None, gt=0, description="tokens to select, copies counted; or give `share`"
    )
    share: float | None = Field(default=None, gt=0, le=1.0, description="the same as a share of the pool")
    train_tokens: int | None = Field(
        default=None, gt=0, description="length of the final training; default: one epoch"
    )
    method: Literal["cutoff", "thin"] = Field(
        default="cutoff", description="meet the budget by scaling ω, or by thinning"
    )

    @model_validator(mode="after")
    def _one(self) -> "BudgetSection":
        if (self.tokens is None) == (self.share is None):
            raise ValueError("budget needs exactly one of `tokens` and `share`")
        return self


class TargetSection(Section):
    """A text or question set whose loss the mixture should lower."""

    name: Name
    path: str = Field(description="JSONL or Parquet; relative to the recipe")
    text: str | None = Field(default=None, description="column with plain text (loss on all of it)")
    prompt: str | None = Field(default=None, description="column with the prompt or question")
    answer: str | None = Field(
        default=None, description="column with the answer: a string, or a list whose first is taken"
    )
    choices: str | None = Field(default=None, description="column with the answer options ...")
    gold: str | None = Field(default=None, description="... and the column with the index of the right one")
    split: str | None = Field(default=None, description="use rows whose `split` column has this value")
    loss: Literal["answer", "all"] = Field(
        default="answer", description="score the answer, or prompt and answer"
    )
    weight: float = Field(default=1.0, gt=0)
    at_most: float | Literal["control"] | None = Field(
        default=None,
        description="loss (bits per byte) that θ* may not exceed, or `control`: no worse than the prior mean "
        "(a number is judged as it stands, also where confirm.model is larger)",
    )
    limit: int = Field(default=2000, gt=0, description="at most this many rows, drawn by a hash of the row")

    @model_validator(mode="after")
    def _one_form(self) -> "TargetSection":
        forms = [self.text is not None, self.answer is not None, self.choices is not None]
        if sum(forms) != 1:
            raise ValueError(f"target {self.name!r} needs exactly one of `text`, `answer` and `choices`")
        if self.text is None and self.prompt is None:
            raise ValueError(f"target {self.name!r} needs `prompt` beside the answer")
        if isinstance(self.at_most, float) and not 0 < self.at_most < float("inf"):
            raise ValueError(f"target {self.name!r}: at_most is {self.at_most}, expected a loss above 0")
        if (self.choices is None) != (self.gold is None):
            raise ValueError(f"target {self.name!r}: `choices` and `gold` go together")
        return self


class MaterialiseSection(Section):
    """The dataset on disk."""

    format: Literal["parquet", "jsonl.zst", "index"] = Field(
        default="parquet",
        description="index: only ids and copies of the selected documents, in corpus order; no text is read",
    )
    order: Literal["shuffled", "corpus"] = Field(
        default="shuffled",
        description="shuffled: once for all, by the seed, copies of a document far apart; corpus: one pass, "
        "one file per piece of the input, copies as neighbours (whoever reads the dataset must shuffle)",
    )
    shard_bytes: int = Field(
        default=256_000_000, gt=0, description="about this much text per shard of a shuffled dataset"
    )
    out: str | None = Field(
        default=None,
        description="publish the finished dataset to this folder of a store too (s3://bucket/prefix); "
        "docs/object-stores.md",
    )
    keep_local: bool = Field(
        default=True, description="out: keep each shard in the run folder after its checked upload"
    )

    @model_validator(mode="after")
    def _somewhere(self) -> "MaterialiseSection":
        if not self.keep_local and self.out is None:
            raise ValueError("materialise.keep_local is false, but there is no materialise.out to publish to")
        return self


class ReportSection(Section):
    """The page at the end; not part of the run's identity."""

    redact_samples: bool = Field(
        default=False, description="leave the texts of sampled documents out of report.html"
    )
    samples: int = Field(
        default=30,
        ge=1,
        le=2000,
        description="documents shown of each of the six strata (top, kept, borderline, ...), drawn when the "
        "dataset is written",
    )
    price_per_hour: float | None = Field(
        default=None, gt=0, description="of all machines of the run together; the page then says what it cost"
    )
    currency: str = Field(default="USD", min_length=1, max_length=8, description="of price_per_hour")


class Recipe(Section):
    """Everything a run needs; see the section classes for every key."""

    name: Name
    seed: int = Field(default=0, ge=0)
    corpus: CorpusSection
    preset: Literal["smoke", "laptop", "workstation", "paper"] | None = Field(
        default=None, description="defaults of tokenizer, proxy and evaluate; `quadmix presets` shows them"
    )
    tokenizer: TokenizerSection = TokenizerSection()
    annotate: AnnotateSection = AnnotateSection()
    mixing: MixingSection = MixingSection()
    prior: PriorSection = PriorSection()
    budget: BudgetSection
    targets: list[TargetSection] = Field(
        default=[], description="what the mixture should be good at; at least one, unless mixing.theta_from"
    )
    proxy: ProxySection = ProxySection()
    search: SearchSection = SearchSection()
    confirm: ConfirmSection = ConfirmSection()
    materialise: MaterialiseSection = MaterialiseSection()
    evaluate: EvaluateSection = EvaluateSection()
    report: ReportSection = ReportSection()
    run: RunSection = RunSection()

    @model_validator(mode="after")
    def _distinct(self) -> "Recipe":
        if not self.targets and self.mixing.theta_from is None:
            raise ValueError("'targets' is missing: name at least one text or question set to be good at")
        fresh = self.proxy.pool == "fresh" and self.budget.tokens is not None
        if fresh and self.proxy.training.tokens > (self.budget.tokens or 0):
            raise ValueError(
                f"proxy.pool is fresh (one epoch), but budget.tokens is {self.budget.tokens:,} and "
                f"proxy.training.tokens {self.proxy.training.tokens:,}: lower it, raise the budget, or set "
                "proxy.pool to repetition-matched"
            )
        if self.proxy.repeats == 0 and any(t.at_most == "control" for t in self.targets):
            raise ValueError(
                "a target may be no worse than the control (at_most: control), but proxy.repeats is 0; set "
                "it to 3 or more, or give the loss as a number"
            )
        judge = self.confirm.model
        if self.proxy.model.gates != "none" and (judge is None or judge.gates != "none"):
            raise ValueError(
                "proxy.model.gates is set, and the models of the confirmation would have gates, too; they "
                "decide which mixture is written, so name a plain one, as confirm.model: {size: 0.3M}"
            )
        if judge is not None and judge.gates != "none":
            raise ValueError("confirm.model has gates; only proxies may have gates (proxy.model.gates)")
        names = [t.name for t in self.targets]
        if average := set(names) & {"macro", "micro"}:
            raise ValueError(f"target name {average.pop()!r} is kept for averages; choose another one")
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"target name {twice[0]!r} is used twice; names must be distinct")
        return self
