"""Text and the user's columns -> scores and a domain for every document, beside the text."""

from quadmix.annotate.annotator import Annotator, AnnotatorCard, DomainLabeller, Labelled, Scored
from quadmix.annotate.overlap import count_overlap, ngram_hashes
from quadmix.annotate.prepare import AnnotatorSet, prepare_annotators
from quadmix.annotate.run import (
    AnnotatedSplit,
    AnnotateTask,
    AnnotationManifest,
    OverlapIndex,
    annotate_split,
    annotate_tasks,
    finish_annotations,
    prepare_overlap,
)
from quadmix.annotate.table import EXCLUDED_REASONS, LoadedAnnotations, load_annotations

__all__ = [
    "EXCLUDED_REASONS",
    "AnnotateTask",
    "AnnotatedSplit",
    "AnnotationManifest",
    "Annotator",
    "AnnotatorCard",
    "AnnotatorSet",
    "DomainLabeller",
    "Labelled",
    "LoadedAnnotations",
    "OverlapIndex",
    "Scored",
    "annotate_split",
    "annotate_tasks",
    "count_overlap",
    "finish_annotations",
    "load_annotations",
    "ngram_hashes",
    "prepare_annotators",
    "prepare_overlap",
]
