"""What cuts keep of whom, against counting by hand; the proxy for narrative text on plain examples."""

import numpy as np
import pytest

from quadmix.codec import from_json, to_json
from quadmix.errors import BudgetError, ScoreError
from quadmix.raters.audit import BiasAudit, Described, audit_lines, bias_audit, describe

STORIES = {
    "en": "“Where are you going?” asked the hare. “Home!” said the tortoise, and walked on all night.",
    "fr": "— Où vas-tu ? demanda le lièvre.\n— Chez moi ! répondit la tortue, et elle marcha toute la nuit.",
    "zh": "“你去哪里？”兔子问。“回家！”乌龟说，它整夜都在走。",
    "ar": "«إلى أين تذهب؟» سأل الأرنب. «إلى البيت!» قالت السلحفاة ومشت طوال الليل.",
}
FACTS = {
    "en": "The tortoise (order Testudines): 360 species, 14 families; length 8-300 cm, age up to 190 years.",
    "fr": "La tortue (ordre Testudines) : 360 espèces, 14 familles ; longueur 8-300 cm, âge maximal 190 ans.",
    "zh": "龟（龟鳖目）：360种，14科；体长8-300厘米，寿命可达190年。",
    "ar": "السلحفاة (رتبة السلاحف): 360 نوعا، 14 فصيلة؛ الطول 8-300 سم، العمر حتى 190 سنة.",
}


def pool(seed: int = 0, count: int = 3000):
    rng = np.random.default_rng(seed)
    language = rng.choice(["de", "en"], count).tolist()
    tokens = (rng.lognormal(4, 1, count) + 1).astype(np.int32)
    scores = rng.normal(size=count) + np.where(np.array(language) == "en", 1.0, 0.0)
    domain = rng.choice(["law", "tale", "web"], count)
    scores[domain == "tale"] -= 3
    described = Described(
        narrative=rng.normal(size=count) + 3 * (domain == "tale"), script=("LATIN",) * count
    )
    return scores, tokens, language, [f"d{i}" for i in range(count)], described, domain.tolist()


@pytest.mark.parametrize("language", STORIES)
def test_stories_are_more_narrative_than_facts_in_the_same_language(language: str) -> None:
    story, facts = describe([STORIES[language], FACTS[language]]).narrative
    assert story > 0 > facts


def test_narrative_marks_are_counted_per_letter_and_scripts_by_their_letters() -> None:
    found = describe(["«ab» ?! (1)", "- a\n— b", "12", "Тест abc", "かなカナ漢字", "한국어", ""])
    assert found.narrative[0] == (4 - 3) / 2
    assert found.narrative[1] == 1 / 2  # a hyphen that opens a line is a list
    assert found.narrative[2] == -2
    assert found.script == ("LATIN", "LATIN", "none", "CYRILLIC", "CJK", "HANGUL", "none")
    texts = [*STORIES.values(), *FACTS.values()]
    apart = [describe([text]) for text in texts]
    assert [d.narrative[0] for d in apart] == describe(texts).narrative.tolist()


def slow_cut(scores, tokens, rows, share: float) -> set[int]:
    budget, spent, held = share * sum(int(tokens[i]) for i in rows), 0, set()
    for i in sorted(rows, key=lambda i: -scores[i]):
        if spent >= budget:
            break
        held.add(i)
        spent += int(tokens[i])
    return held


def test_shares_are_tokens_kept_by_tokens_of_the_pool() -> None:
    scores, tokens, language, ids, described, domain = pool()
    audit = bias_audit(scores, tokens, language, ids, described, domain=domain)
    every = range(len(ids))
    apart = set.union(
        *(slow_cut(scores, tokens, [i for i in every if language[i] == n], 0.1) for n in ("de", "en"))
    )
    for shares, held in ((audit.by_language, apart), (audit.pooled, slow_cut(scores, tokens, every, 0.1))):
        checked = 0
        for one in shares:
            column = {"language": language, "domain": domain, "script": described.script}.get(one.kind)
            if column is None:
                continue
            of = [i for i in every if one.language in ("", language[i])]
            mine = [i for i in of if column[i] == one.group]
            kept = sum(int(tokens[i]) for i in mine if i in held) / sum(int(tokens[i]) for i in mine)
            whole = sum(int(tokens[i]) for i in of if i in held) / sum(int(tokens[i]) for i in of)
            assert one.kept == pytest.approx(kept)
            assert one.ratio == pytest.approx(kept / whole)
            assert (one.documents, one.kept_documents) == (len(mine), sum(i in held for i in mine))
            checked += 1
        assert checked == 2 + 3 + 1 + 2 * (3 + 1)


def test_one_cut_keeps_unequal_shares_of_languages_whose_scores_are_off() -> None:
    scores, tokens, language, ids, described, _ = pool()
    audit = bias_audit(scores, tokens, language, ids, described)
    kept = {one.group: one.kept for one in audit.pooled if one.kind == "language"}
    assert (audit.least, audit.most) == (kept["de"], kept["en"])
    assert audit.least < 0.05 < 0.15 < audit.most
    assert all(abs(one.kept - 0.1) < 0.01 for one in audit.by_language if one.kind == "language")
    level = scores - np.where(np.array(language) == "en", 1.0, 0.0)
    fair = bias_audit(level, tokens, language, ids, described)
    assert 0.08 < fair.least <= fair.most < 0.12
    assert all(one.kind != "domain" for one in audit.pooled)


def test_lost_groups_are_named_with_their_language() -> None:
    scores, tokens, language, ids, described, domain = pool()
    audit = bias_audit(scores, tokens, language, ids, described, domain=domain)
    lost = {(one.kind, one.group, one.language) for one in audit.by_language if one.lost}
    wanted = {
        (k, g, n) for k, g in (("domain", "tale"), ("narrative", "narrative third")) for n in ("", "de", "en")
    }
    assert lost == wanted
    lines = audit_lines(audit)
    assert any("cut per language: domain tale of de keeps 0.0" in line for line in lines)
    assert lines[0].startswith("one cut over all languages at the best 10% of tokens keeps ")
    part = Described(narrative=described.narrative[:60], script=("LATIN",) * 60)
    few = bias_audit(scores[:60], tokens[:60], language[:60], ids[:60], part, domain=domain[:60])
    assert not any(one.lost for one in few.by_language)  # two documents were due: nothing can be said
    assert from_json(BiasAudit, to_json(audit)) == audit


def test_length_deciles_are_of_equally_many_documents_of_each_language() -> None:
    _, tokens, language, ids, described, _ = pool()
    tokens = tokens * np.where(np.array(language) == "en", 50, 1).astype(np.int32)
    audit = bias_audit(tokens.astype(np.float64), tokens, language, ids, described)
    for name in ("de", "en"):
        deciles = [one for one in audit.by_language if one.kind == "length" and one.language == name]
        assert [one.group for one in deciles] == [f"decile {i:02d}" for i in range(1, 11)]
        assert max(one.documents for one in deciles) - min(one.documents for one in deciles) <= 1
        lengths = sorted(int(t) for t, n in zip(tokens, language, strict=True) if n == name)
        tenth = deciles[9]
        assert tenth.pool_tokens == sum(lengths[-tenth.documents :])
        assert tenth.kept > 0  # the longest are the best here
        assert all(one.kept == 0 for one in deciles[:9])


def test_documents_without_a_score_are_counted_and_never_kept() -> None:
    scores, tokens, language, ids, described, domain = pool()
    scores[np.array(domain) == "law"] = np.nan
    audit = bias_audit(scores, tokens, language, ids, described, domain=domain)
    assert audit.unscored == domain.count("law")
    assert all(one.kept == 0 for one in audit.pooled if one.group == "law")
    assert f"{audit.unscored} documents have no score and are kept by no cut" in audit_lines(audit)
    with pytest.raises(BudgetError, match="budget of language 'de'"):
        bias_audit(scores, tokens, language, ids, described, share=0.9)
    with pytest.raises(ScoreError, match="the share of an audit is 1, expected between 0 and 1"):
        bias_audit(scores, tokens, language, ids, described, share=1)
    with pytest.raises(ScoreError, match="domain has 1 rows, expected 3000"):
        bias_audit(scores, tokens, language, ids, described, domain=["law"])
