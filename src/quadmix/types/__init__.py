"""Values that travel between rooms: frozen, checked at construction, JSON through `quadmix.codec`.

Shape letters: D documents, N criteria, M domains, K trials, P parameters.
Scores, merged scores and ranks are **smaller = better** everywhere inside the tool.
"""

from quadmix.codec import from_json, to_json
from quadmix.types.arrays import Copies, Floats, Ints
from quadmix.types.comparing import Comparison, Rung, TaskDifference, TaskScore, Transfer
from quadmix.types.corpus import (
    Annotations,
    ColumnMap,
    Corpus,
    CriterionInfo,
    FileFormat,
    FileInfo,
    Split,
    SplitCount,
)
from quadmix.types.mixture import Ranks, Selection, Theta
from quadmix.types.results import (
    Batch,
    Candidate,
    Confirmation,
    Contrast,
    DatasetManifest,
    DomainTokens,
    Effect,
    LearningCurve,
    LearningPoint,
    Ledger,
    Loss,
    Measured,
    Objective,
    Optimism,
    Paired,
    Parity,
    Proposal,
    Score,
    ShardInfo,
    SurrogateReport,
    Trial,
)

__all__ = [
    "Annotations",
    "Batch",
    "Candidate",
    "ColumnMap",
    "Comparison",
    "Confirmation",
    "Contrast",
    "Copies",
    "Corpus",
    "CriterionInfo",
    "DatasetManifest",
    "DomainTokens",
    "Effect",
    "FileFormat",
    "FileInfo",
    "Floats",
    "Ints",
    "LearningCurve",
    "LearningPoint",
    "Ledger",
    "Loss",
    "Measured",
    "Objective",
    "Optimism",
    "Paired",
    "Parity",
    "Proposal",
    "Ranks",
    "Rung",
    "Score",
    "Selection",
    "ShardInfo",
    "Split",
    "SplitCount",
    "SurrogateReport",
    "TaskDifference",
    "TaskScore",
    "Theta",
    "Transfer",
    "Trial",
    "from_json",
    "to_json",
]
