"""The world of the stand-in: things, what is true of them, and how four toy languages say it.

A concept has a word in every language, of about the same length in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from quadmix.evaluate.mubench.languages import separator
from quadmix.rng import stream
from quadmix.types.arrays import Ints

LANGUAGES = ("qaa", "qab", "qac", "qad")
"""Codes for private use; the first is the base of mixed items, as English is in MuBench."""
ENTITIES, RELATIONS, VALUES = 40, 4, 14
WORDS = (
    "be", "what", "and", "question", "option", "answer", "premise", "hypothesis", "choose", "blank",
    "follows", "entailment", "neutral", "contradiction",
)  # fmt: skip
_SYLLABLES = {
    "qaa": "ba de fi go lu ma ne po ri su ta ve",
    "qab": "ča dē fį gö łu mą nê pø rí šu ţa vé",
    "qac": "ба де фи го лу ма не по ри су та ве",
    "qad": "か き く け こ さ し す せ そ た ち",
}
_ORDER = {"qaa": "erb", "qab": "reb", "qac": "ebr", "qad": "erb"}  # of entity, relation and "be"
_FULL_STOP = {"qad": "。"}
_QUESTION_MARK = {"qad": "？"}
_HOMONYMS = ("qac", f"value 0 {VALUES - 1}", f"value 0 {VALUES - 2}")  # one word for both in this language


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class World:
    """facts: (ENTITIES, RELATIONS), the value of each. words[language][concept]."""

    facts: Ints
    words: dict[str, dict[str, str]]

    def word(self, language: str, concept: str) -> str:
        """Return the word for "entity 3", "relation 0", "value 0 13" or one of `WORDS`."""
        return self.words[language][concept]

    def start(self, language: str, entity: int | None, relation: int) -> str:
        """Return a statement up to its last word, the value. entity: None leaves a blank for it."""
        parts = {
            "e": "_" if entity is None else self.word(language, f"entity {entity}"),
            "r": self.word(language, f"relation {relation}"),
            "b": self.word(language, "be"),
        }
        return _phrase(language, [parts[p] for p in _ORDER[language]])

    def statement(self, language: str, entity: int | None, relation: int, value: int) -> str:
        """Return a whole sentence: what it says is true where value is that of `facts`."""
        last = self.word(language, f"value {relation} {value}")
        start = self.start(language, entity, relation)
        return _phrase(language, [start, last]) + _FULL_STOP.get(language, ".")

    def question(self, language: str, entity: int, relation: int) -> str:
        """Return the question for the value."""
        asked = [self.word(language, c) for c in ("what", f"relation {relation}", f"entity {entity}")]
        return _phrase(language, asked) + _QUESTION_MARK.get(language, "?")


def make_world(seed: int) -> World:
    """Return the world of a seed."""
    facts = stream(seed, "standin", "facts").integers(VALUES, size=(ENTITIES, RELATIONS))
    concepts = [f"entity {e}" for e in range(ENTITIES)] + [f"relation {r}" for r in range(RELATIONS)]
    concepts += [f"value {r} {v}" for r in range(RELATIONS) for v in range(VALUES)] + list(WORDS)
    return World(facts=facts, words={language: _lexicon(language, concepts, seed) for language in LANGUAGES})


def _lexicon(language: str, concepts: Sequence[str], seed: int) -> dict[str, str]:
    """Return a different word for every concept, but for the homonyms."""
    syllables, words = _SYLLABLES[language].split(), dict[str, str]()
    for concept in concepts:
        length = int(stream(seed, "standin", "length", concept).integers(2, 6))
        rng = stream(seed, "standin", language, concept)
        while (word := "".join(rng.choice(syllables, length))) in words.values():
            length += 1  # all short words may be taken
        words[concept] = word
    if language == _HOMONYMS[0]:
        words[_HOMONYMS[1]] = words[_HOMONYMS[2]]
    return words


def _phrase(language: str, words: Sequence[str]) -> str:
    return separator(language).join(words)
