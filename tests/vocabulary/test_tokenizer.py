"""Symbols, training, and agreement with ESPnet's own S2T preprocessor."""

import unicodedata

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from powsm.languages import LANGUAGES
from powsm.phones.normaliser import INVENTORY
from powsm.tasks import PUBLISHED_TASKS, TASKS
from powsm.vocabulary.symbols import (
    observed_symbols,
    phone_symbols,
    special_symbols,
    time_symbols,
)
from powsm.vocabulary.tokenizer import Tokenizer, read_token_list
from powsm.vocabulary.train import (
    TokenizerSettings,
    VocabularySizeError,
    sample_texts,
    train_sentencepiece,
    train_tokenizer,
    write_tokenizer,
)

TEXTS = [
    "who is that",
    "the cat is on the mat",
    "enter your number now please",
    "le français où ça",
    "l'été est là",
    "straße null",
    "вы набрали номер",
    "வணக்கம்",
] * 5
SMALL = [*special_symbols(["eng", "fra"], None), *phone_symbols(["p", "ɔ", "ç", "t͡ʃ"])]


def nfc(text):
    return unicodedata.normalize("NFC", text)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A vocabulary with every symbol of the published one."""
    folder = tmp_path_factory.mktemp("full")
    special = special_symbols()
    symbols = [*special, *phone_symbols()]
    # 3 of SentencePiece's own, the characters of the texts, at most 53 in all
    n_pieces = len(symbols) + 53
    model = train_sentencepiece(TEXTS, n_pieces=n_pieces, symbols=symbols)
    assert write_tokenizer(folder, model, special) == n_pieces + 2
    return folder


@pytest.fixture(scope="module")
def tokenizer(full):
    return Tokenizer(full / "bpe.model", full / "tokens.txt")


@pytest.fixture(scope="module")
def preprocessor(full):
    from espnet2.train.preprocessor import S2TPreprocessor

    return S2TPreprocessor(
        train=True,
        token_type="bpe",
        token_list=full / "tokens.txt",
        bpemodel=full / "bpe.model",
        speech_length=20,
        speech_resolution=0.02,
        last_time_symbol="<20.00>",
        text_prev_apply_prob=1.0,
        time_apply_prob=1.0,
    )


def test_symbols_stand_in_the_published_order():
    symbols = special_symbols()
    n = len(LANGUAGES)
    assert symbols[:3] == ["<na>", "<nospeech>", "<afr>"]
    assert symbols[2 : 2 + n] == [f"<{code}>" for code in LANGUAGES]
    assert symbols[1 + n : 2 + n + 4] == [
        "<zul>",
        *(f"<{task}>" for task in PUBLISHED_TASKS),
    ]
    after = 2 + n + len(TASKS)
    assert symbols[after : after + 3] == ["<notimestamps>", "<0.00>", "<0.02>"]
    assert symbols[-1] == "<20.00>"
    assert len(symbols) == after + 1 + 1001


def test_time_step_must_divide_the_window():
    assert len(time_symbols(0.04)) == 501
    with pytest.raises(ValueError, match="does not divide"):
        time_symbols(0.03)


def test_token_list_frames_the_pieces(full):
    tokens = read_token_list(full / "tokens.txt")
    assert tokens[:3] == ["<blank>", "<unk>", "<na>"]
    assert tokens[-3:] == ["<sos>", "<eos>", "<sop>"]
    assert len(set(tokens)) == len(tokens)
    assert tokens.index("<20.00>") - tokens.index("<0.00>") == 1000
    assert "/p/" not in (full / "nlsyms.txt").read_text().split("\n")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_every_phone_is_one_token_in_both_unicode_forms(tokenizer, form):
    for phone in INVENTORY:
        text = f"/{unicodedata.normalize(form, phone)}/"
        ids = tokenizer.encode(text)
        assert tokenizer.tokens(ids) == ["▁", f"/{phone}/"], phone
        assert tokenizer.decode(ids) == f"/{phone}/"


def test_orthography_keeps_its_precomposed_letters(tokenizer):
    tokens = tokenizer.tokens(tokenizer.encode("français"))
    assert "".join(tokens) == "▁français"
    assert "<unk>" not in tokens


EXAMPLES = {
    "pr": ("<eng><pr><notimestamps> /pʰ//ɔː//t͡ʃ/", "<na>"),
    "asr": ("<fra><asr><notimestamps> l'été est là", "<na>"),
    "g2p": ("<eng><g2p><notimestamps> /p//ɔ/", "who is that"),
    "p2g": ("<eng><p2g><notimestamps> who is", "/p//ɔː/"),
}


@pytest.mark.parametrize("task", EXAMPLES)
def test_stock_preprocessor_makes_the_same_ids(tokenizer, preprocessor, task):
    text, prev = EXAMPLES[task]
    ctc = "/p//ɔ/"
    data = preprocessor(
        "u",
        {
            "speech": np.zeros(16_000, np.float32),
            "text": text,
            "text_prev": prev,
            "text_ctc": ctc,
        },
    )
    assert data["text"].tolist() == tokenizer.encode_target(text)
    assert data["text_prev"].tolist() == tokenizer.encode(prev)
    assert data["text_ctc"].tolist() == tokenizer.encode(ctc)
    # what the model is taught, token by token
    stock = preprocessor.token_id_converter.ids2tokens
    assert stock(data["text"])[:3] == [text[:5], f"<{task}>", "<notimestamps>"]
    assert stock(data["text_ctc"]) == ["▁", "/p/", "/ɔ/"]
    if task == "pr":
        assert stock(data["text"])[3:] == ["▁", "/pʰ/", "/ɔː/", "/t͡ʃ/"]
    if prev == "<na>":
        # the model finds <na> anywhere in the prompt and then leaves it out
        assert stock(data["text_prev"]) == ["▁", "<na>"]


@pytest.mark.parametrize("task", EXAMPLES)
def test_decoding_gives_the_text_back_as_stock_does(tokenizer, preprocessor, task):
    text, prev = EXAMPLES[task]
    ids = tokenizer.encode_target(text)
    tokens = preprocessor.token_id_converter.ids2tokens(ids)
    assert tokenizer.decode(ids) == text
    assert preprocessor.tokenizer.tokens2text(tokens) == text
    assert tokenizer.decode(tokenizer.encode(prev)) == prev


def test_language_without_token_is_one_unk_where_stock_makes_six_pieces(
    tokenizer, preprocessor
):
    text = "<unk><pr><notimestamps> /p/"
    ids = tokenizer.encode_target(text)
    assert tokenizer.tokens(ids) == ["<unk>", "<pr>", "<notimestamps>", "▁", "/p/"]
    assert tokenizer.decode(ids) == text
    stock = preprocessor.tokenizer.text2tokens(text)
    assert stock[:3] == ["▁", "<", "u"]


def test_a_language_that_the_vocabulary_lacks_is_unk_too(tokenizer):
    """A dev set of languages held out of training once lost its phone error rate."""
    ids = tokenizer.encode_target("<qqq><pr><notimestamps> /p/")
    assert ids == tokenizer.encode_target("<unk><pr><notimestamps> /p/")


@given(st.text(st.characters(exclude_characters="/\n▁", exclude_categories=["Cs"])))
def test_any_text_gets_the_ids_of_stock(text):
    tokenizer, preprocessor = _loaded["tokenizer"], _loaded["preprocessor"]
    tokens = preprocessor.tokenizer.text2tokens(text)
    assert tokenizer.encode(text) == preprocessor.token_id_converter.tokens2ids(tokens)


_loaded = {}


@pytest.fixture(autouse=True, scope="module")
def _load(tokenizer, preprocessor):
    # hypothesis calls a test many times; fixtures of the module are handed over once
    _loaded.update(tokenizer=tokenizer, preprocessor=preprocessor)


def test_unknown_characters_are_one_unk(tokenizer):
    assert tokenizer.tokens(tokenizer.encode("漢字")) == ["▁", "<unk>"]


def test_training_is_deterministic():
    models = {train_sentencepiece(TEXTS, n_pieces=70, symbols=SMALL) for _ in range(2)}
    assert len(models) == 1


@pytest.mark.parametrize(
    ("n_pieces", "message"),
    [(20, r"too few .* at least (\d+)"), (5000, r"too many .* at most (\d+)")],
)
def test_impossible_size_says_what_is_possible(n_pieces, message):
    with pytest.raises(VocabularySizeError, match=message) as caught:
        train_sentencepiece(TEXTS, n_pieces=n_pieces, symbols=SMALL)
    possible = int(str(caught.value).rsplit(" ", 1)[1])
    model = train_sentencepiece(TEXTS, n_pieces=possible, symbols=SMALL)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert processor.get_piece_size() == possible


def test_no_text_is_said_plainly():
    with pytest.raises(ValueError, match="no orthography"):
        train_sentencepiece(["", ""], n_pieces=100, symbols=SMALL)


def test_repeated_symbol_is_named():
    with pytest.raises(ValueError, match="twice: <na>"):
        train_sentencepiece(TEXTS, n_pieces=100, symbols=["<na>", "<na>"])


def test_model_and_list_of_different_folders_are_refused(full, tmp_path):
    model = train_sentencepiece(TEXTS, n_pieces=70, symbols=SMALL)
    write_tokenizer(tmp_path, model, SMALL)
    with pytest.raises(ValueError, match="not those of the token list"):
        Tokenizer(full / "bpe.model", tmp_path / "tokens.txt")


def make_dump_set(folder):
    folder.mkdir(parents=True)
    text, ctc, lang = [], [], []
    for i, orthography in enumerate(TEXTS):
        for task, target in (("asr", orthography), ("pr", "/ɔː//p/")):
            text.append(f"u{i:02d}_{task} <eng><{task}><notimestamps> {target}\n")
            ctc.append(f"u{i:02d}_{task} /ɔ//p/\n")
            lang.append(f"u{i:02d}_{task} {'eng' if i else 'evn'}\n")
    (folder / "text").write_text("".join(text))
    (folder / "text.ctc").write_text("".join(ctc))
    (folder / "utt2lang").write_text("".join(lang))
    return folder


def test_observed_symbols_include_those_of_the_ctc_text_alone(tmp_path):
    languages, phones = observed_symbols(make_dump_set(tmp_path / "train"))
    assert languages == ["eng"]  # evn has no token: its prompt is <unk>
    assert phones == ["p", "ɔ", "ɔː"]


def test_sampling_is_seeded_exact_and_in_order(tmp_path):
    text = make_dump_set(tmp_path / "train") / "text"
    assert list(sample_texts(text, 1_000, seed=1)) == TEXTS
    sample = list(sample_texts(text, 7, seed=1))
    assert len(sample) == 7
    assert sample == list(sample_texts(text, 7, seed=1))
    assert sample != list(sample_texts(text, 7, seed=2))
    remaining = iter(TEXTS)
    assert all(line in remaining for line in sample)  # a subsequence


def test_small_vocabulary_end_to_end_and_rerun(tmp_path):
    dump_set = make_dump_set(tmp_path / "train")
    settings = TokenizerSettings(
        n_pieces=65,
        only_observed_phones=True,
        only_observed_languages=True,
        time_step_s=None,
    )
    folder = tmp_path / "bpe_unigram65"
    made = train_tokenizer(dump_set, folder, settings)
    assert made.startswith("67 tokens (1 languages, 3 phones")
    tokens = read_token_list(folder / "tokens.txt")
    assert tokens[2 : 10 + len(TASKS)] == [
        *("<na>", "<nospeech>", "<eng>", *(f"<{task}>" for task in TASKS)),
        *("<notimestamps>", "<0.00>", "<20.00>", "/p/", "/ɔ/"),
    ]
    before = (folder / "bpe.model").read_bytes()
    assert train_tokenizer(dump_set, folder, settings) is None
    (folder / "tokens.txt").unlink()
    assert train_tokenizer(dump_set, folder, settings) is not None
    assert (folder / "bpe.model").read_bytes() == before
