"""fastText models against the library's own `predict`, on the same lines."""

from pathlib import Path

import fasttext
import numpy as np
import pytest
from fasttext_world import card_for, placed, sentences, train

from quadmix.annotate.models.base import Settings
from quadmix.annotate.models.fasttext import FastTextModel, check_file, load_fasttext
from quadmix.annotate.models.rater import prepare_text, to_numbers
from quadmix.errors import InputError

HQ, CC, ZZ = "__label__hq", "__label__cc", "__label__zz"


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("binary"), [HQ, CC])


@pytest.fixture(scope="module")
def model(binary: Path) -> FastTextModel:
    return load_fasttext(placed(binary, [HQ, CC]), Settings())


TEXTS = [
    *sentences(HQ, 5, seed=7), *sentences(CC, 5, seed=7), "", "word never seen before",
    "two\nlines\r\nand \r three", "the river\x00the cell", "free __label__hq bonus",
    "</s> theorem proof", "theorem </s> casino casino",
    "Größe 水 naïve \u2028 next", "\n\n\n",
]  # fmt: skip


def reference(file: Path, text: str, labels: list[str]) -> list[float]:
    """The library itself, asked for one line."""
    found, chances = fasttext.load_model(str(file)).predict(text.replace("\r", " ").replace("\n", " "), k=-1)
    return [dict(zip(found, chances, strict=True))[label] for label in labels]


def test_the_probabilities_are_the_librarys_own(binary: Path, model: FastTextModel) -> None:
    given = model.outputs(TEXTS)
    expected = [reference(binary, text, [HQ, CC]) for text in TEXTS]
    np.testing.assert_allclose(given.values, expected, rtol=0, atol=1e-6)
    assert given.missing == {}
    assert (
        given.values[:5, 0].min() > 0.6 > 0.4 > given.values[5:10, 0].max()
    )  # the model has learnt something


@pytest.mark.parametrize("loss", ["softmax", "hs", "ova"])
def test_many_labels_stand_in_the_order_of_the_card(tmp_path: Path, loss: str) -> None:
    file = train(tmp_path, [HQ, CC, ZZ], loss=loss)
    texts = [sentences(label, 1, seed=3)[0] for label in (HQ, CC, ZZ)]
    for order in ([HQ, CC, ZZ], [ZZ, HQ, CC]):
        values = load_fasttext(placed(file, order), Settings()).outputs(texts).values
        np.testing.assert_allclose(values, [reference(file, t, order) for t in texts], rtol=0, atol=1e-6)
        assert [order[i] for i in values.argmax(axis=1)] == [HQ, CC, ZZ]


def test_a_quantised_model_gives_what_the_library_gives(tmp_path: Path) -> None:
    file = train(tmp_path, [HQ, CC], quantise=True)
    values = load_fasttext(placed(file, [HQ, CC]), Settings()).outputs(TEXTS[:10]).values
    np.testing.assert_allclose(values, [reference(file, t, [HQ, CC]) for t in TEXTS[:10]], rtol=0, atol=1e-6)


def test_dclm_takes_one_minus_p_where_the_other_label_is_on_top(binary: Path, model: FastTextModel) -> None:
    """As in DCLM's own function, which sees the top label alone."""
    texts = [t for t in TEXTS if t.strip()]
    values = model.outputs([prepare_text(model.card, t, {}) for t in texts]).values
    library = fasttext.load_model(str(binary))
    expected: list[float] = []
    for text in texts:
        (label,), (chance,) = library.predict(" ".join(text.strip().splitlines()))
        expected.append(1 - chance if label == CC else chance)
    np.testing.assert_allclose(to_numbers(model.card, values), np.clip(expected, 0, 1), rtol=0, atol=2e-6)
    tops = [library.predict(" ".join(t.strip().splitlines()))[1][0] for t in texts]
    assert np.abs(np.array(tops) - expected).max() > 0.2  # read without the flip, some scores turn round


def test_a_row_does_not_depend_on_the_others(model: FastTextModel) -> None:
    texts = sentences(HQ, 300, seed=9) + sentences(CC, 300, seed=9)
    alone = np.concatenate([model.outputs([t]).values for t in texts])
    np.testing.assert_array_equal(model.outputs(texts).values, alone)
    assert model.outputs([]).values.shape == (0, 2)


def test_a_lone_surrogate_and_a_megabyte_on_one_line_are_read(binary: Path, model: FastTextModel) -> None:
    long = " ".join(sentences(CC, 9_000, seed=2))
    assert len(long) > 1_000_000
    given = model.outputs(["the \ud800 theorem", long])
    np.testing.assert_allclose(given.values[0], reference(binary, "the ? theorem", [HQ, CC]), atol=1e-6)
    np.testing.assert_allclose(given.values[1], reference(binary, long, [HQ, CC]), atol=1e-6)


def test_a_nan_in_the_model_costs_the_documents_that_meet_it(tmp_path: Path) -> None:
    file = train(tmp_path, [HQ, CC])
    library = fasttext.load_model(str(file))
    table, out = library.get_input_matrix(), library.get_output_matrix()
    table[library.get_word_id("casino")] = np.nan
    library.set_matrices(table, out)
    library.save_model(str(file))
    given = load_fasttext(placed(file, [HQ, CC]), Settings()).outputs(["proof river", "free casino", "cheap"])
    assert np.isnan(given.values).all(axis=1).tolist() == [False, True, False]
    assert given.missing == {"not_finite": 1}


def test_a_line_without_a_known_word_has_no_score(tmp_path: Path) -> None:
    """The library answers nothing for it when its end-of-line word was too rare to be kept."""
    text = tmp_path / "train.txt"
    text.write_text("".join(f"{label} {'proof ' * 40}\n" for label in (HQ, CC)), encoding="utf-8")
    library = fasttext.train_supervised(
        input=str(text), minCount=20, dim=40, wordNgrams=1, minn=0, maxn=0, thread=10, verbose=0
    )
    library.save_model(str(tmp_path / "model.bin"))
    assert library.predict("unseen")[0] == ()
    given = load_fasttext(placed(tmp_path / "model.bin", [HQ, CC]), Settings()).outputs(["proof", "unseen"])
    assert np.isnan(given.values).all(axis=1).tolist() == [False, True]
    assert given.missing == {"no_known_words": 1}


def test_labels_that_the_card_does_not_have_are_named(binary: Path) -> None:
    with pytest.raises(
        InputError, match=r"has the labels __label__cc, __label__hq, expected __label__cc, __label__zz"
    ):
        load_fasttext(placed(binary, [ZZ, CC]), Settings())


def test_a_cut_file_is_refused_at_any_place(binary: Path, tmp_path: Path) -> None:
    """The library itself loads a file that lacks its end without a word."""
    data = binary.read_bytes()
    cut = tmp_path / "model.bin"
    for size in (0, 10, 99, 100, 200, len(data) // 2, len(data) - 4_000, len(data) - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(InputError, match=r"not a fastText model|cut or damaged"):
            load_fasttext(placed(cut, [HQ, CC]), Settings())
    cut.write_bytes(b"PK\x03\x04" + data[4:])
    with pytest.raises(InputError, match="not a fastText model"):
        check_file(cut)


def test_word_vectors_are_no_classifier(tmp_path: Path) -> None:
    text = tmp_path / "train.txt"
    text.write_text("\n".join(sentences(HQ, 50)), encoding="utf-8")
    fasttext.train_unsupervised(
        str(text), dim=40, minCount=1, bucket=2_000, thread=10, verbose=0, epoch=1
    ).save_model(str(tmp_path / "model.bin"))
    with pytest.raises(InputError, match="word vectors"):
        load_fasttext(placed(tmp_path / "model.bin", [HQ, CC]), Settings())


def test_text_split_by_a_tokenizer_is_read_as_ultra_fineweb_reads_it(tmp_path: Path) -> None:
    """Against their function, written out with the tokenizer of transformers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(sentences(HQ, 80) + sentences(CC, 80), trainer)
    (tmp_path / "tok").mkdir()
    made.save(str(tmp_path / "tok" / "tokenizer.json"))
    theirs = PreTrainedTokenizerFast(tokenizer_object=made)
    file = train(tmp_path, [HQ, CC])
    model = load_fasttext(placed(file, [HQ, CC], input={"segment": "tok"}), Settings())
    for text in ("The RIVER\n\n\n\nof énergie\tand\r\nproof", "click  here  水 free", "  theorem "):
        assert model._line(text) == (_ultra_fineweb(text, theirs) + "\n").encode()
        expected = reference(file, _ultra_fineweb(text, theirs), [HQ, CC])
        np.testing.assert_allclose(model.outputs([text]).values[0], expected, atol=1e-6)


def _ultra_fineweb(content: str, tokenizer: object) -> str:
    import re
    import unicodedata

    content = re.sub(r"\n{3,}", "\n\n", content).lower()
    content = "".join(c for c in unicodedata.normalize("NFKD", content) if unicodedata.category(c) != "Mn")
    ids = tokenizer.encode(content, add_special_tokens=False)
    content = " ".join(tokenizer.decode([i]) for i in ids)
    for plain, spelt in (("\n", r"\\n"), ("\r", r"\\r"), ("\t", r"\\t")):
        content = re.sub(plain, spelt, content)
    return re.sub(r" +", " ", content).strip()


def test_the_cards_of_the_package_name_a_file_each() -> None:
    """Without a file there is nothing to fetch; with one line per text the library never refuses."""
    from quadmix.recipe.cards import card_names, load_card

    cards = [card for card in map(load_card, card_names()) if card.family == "fasttext"]
    assert len(cards) == 5
    for card in cards:
        assert next(iter(card.files)).endswith(".bin")
        assert card.input.one_line or card.input.segment
    assert card_for([HQ, CC]).output.negative == CC
