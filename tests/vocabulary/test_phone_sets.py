"""Sets of phones: counted in training data, read from files, turned into bars."""

import json

import pytest
from dump_builder import make_dump

from powsm.vocabulary.phone_sets import (
    COUNTS_FILE,
    PhoneSetError,
    barred_tokens,
    count_phones,
    phone_set,
    phones_of_lang,
    read_phone_set,
    write_counts,
)


def test_each_utterance_counts_once(tmp_path):
    folder = make_dump(tmp_path / "train", [0.6, 0.8, 1.0], no_text=(1,))
    rows = (folder / "text.ctc").read_text().splitlines()
    expected = {"eng": {}, "ita": {}}
    for row in rows:
        if "_pr " in row:
            lang = row.split("_")[2]
            for phone in row.split("/")[1::2]:
                expected[lang][phone] = expected[lang].get(phone, 0) + 1
    counts = count_phones(folder)
    assert counts == expected
    for of_lang in counts.values():
        assert list(of_lang.values()) == sorted(of_lang.values(), reverse=True)


def test_phones_are_counted_without_the_task_pr(tmp_path):
    folder = make_dump(tmp_path / "train", [0.6, 0.8, 1.0])
    expected = count_phones(folder)
    for name in ("text.ctc", "utt2lang"):
        rows = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(r for r in rows if "_pr " not in r))
    assert count_phones(folder) == expected and expected["eng"]


def test_keys_that_differ_are_named(tmp_path):
    folder = make_dump(tmp_path / "train", [0.6, 0.8])
    rows = (folder / "utt2lang").read_text().splitlines(keepends=True)
    (folder / "utt2lang").write_text("".join(["a_pr eng\n", *rows[1:]]))
    with pytest.raises(PhoneSetError, match=r"text.ctc:1: .* utt2lang has 'a_pr'"):
        count_phones(folder)


def test_phones_of_a_language_by_code_or_name(tmp_path):
    folder = make_dump(tmp_path / "train", [0.6, 0.8, 1.0])
    write_counts(folder, tmp_path)
    counts = json.loads((tmp_path / COUNTS_FILE).read_text(encoding="utf-8"))
    for name in ("ita", "Italian"):
        assert phones_of_lang(tmp_path, name) == tuple(counts["ita"])
    with pytest.raises(PhoneSetError, match="zulu: no such file.* it had eng ita"):
        phones_of_lang(tmp_path, "zulu")
    with pytest.raises(PhoneSetError, match=f"{COUNTS_FILE} is missing"):
        phones_of_lang(tmp_path / "no", "ita")


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("p a t", ("p", "a", "t")),
        ("/t\u0361\u0283//a/", ("t\u0361\u0283", "a")),
        ("p\na\np\n", ("p", "a")),  # each once
        ("g", ("\u0261",)),  # keyboards' g
        # affricates as PHOIBLE writes them; no tie joins a diphthong
        ("ts ai", ("t", "s", "a", "i", "t\u0361s")),
        (
            "t\u0320\u0283",
            ("t\u0320", "\u0283", "t\u0361\u0283\u0320", "t\u0361\u0283"),
        ),
        ("t s", ("t", "s")),
    ],
)
def test_a_file_of_phones(tmp_path, text, phones):
    path = tmp_path / "phones.txt"
    path.write_text(text, encoding="utf-8")
    assert read_phone_set(path) == phones


def test_a_table_of_phones_is_of_one_language_and_without_its_tones(tmp_path):
    path = tmp_path / "phoible.csv"
    rows = (
        "ISO6393,Phoneme,SegmentClass",
        "ita,t\u0320\u0283,consonant",
        "yue,a|\u0251,vowel",
    )
    path.write_text("\n".join([*rows, "yue,\u02e5,tone"]), encoding="utf-8")
    assert phone_set(f"{path}:Italian")[-1] == "t\u0361\u0283"
    assert phone_set(f"{path}:yue") == ("a",)
    for asked in (path, f"{path}:deu"):
        with pytest.raises(PhoneSetError, match="with one of ita yue"):
            phone_set(str(asked))


def test_a_table_without_languages_is_of_the_one_it_is_named_after(tmp_path):
    (tmp_path / "ita.csv").write_text("Segment\np\na\n")
    (tmp_path / "deu.csv").write_text("IPA\nb\n")
    assert phone_set(f"{tmp_path}:Italian") == ("p", "a")
    assert phone_set(str(tmp_path / "deu.csv")) == ("b",)


def test_what_is_no_phone_is_named(tmp_path):
    (tmp_path / "phones.txt").write_text("p Q a")
    with pytest.raises(PhoneSetError, match="phones.txt: Q is no IPA"):
        phone_set(str(tmp_path / "phones.txt"))


def test_an_empty_file_is_no_set(tmp_path):
    (tmp_path / "phones.txt").write_text(" \n")
    with pytest.raises(PhoneSetError, match="no phones"):
        read_phone_set(tmp_path / "phones.txt")


def test_a_set_without_phones_is_refused():
    with pytest.raises(PhoneSetError, match="none are named"):
        phone_set(" ")


def test_phones_between_slashes_are_no_path():
    assert phone_set("/p//a/") == ("p", "a")
    # a file that is not there: whoever looks for a language of this name says so
    assert phone_set("/data/phones") == "/data/phones"


def test_all_but_the_phones_is_barred():
    tokens = ["<blank>", "<unk>", "<pr>", "/p/", "/a/", "/a\u02d0/", "\u2581pa"]
    tokens += ["\u2581", "<eos>"]
    assert barred_tokens(tokens, ["p"]) == [1, 2, 4, 5, 6]
    assert barred_tokens(tokens, ["a\u02d0"]) == [1, 2, 3, 6]
    assert barred_tokens(tokens, ["p", "a", "k"]) == [1, 2, 6]
    with pytest.raises(PhoneSetError, match="none of the phones k is in"):
        barred_tokens(tokens, ["k"])


def test_phones_that_the_vocabulary_lacks_are_said_once(caplog):
    tokens = ["<blank>", "/p/", "/a/", "/t͡ɬ/", "<eos>"]
    for _ in range(2):
        barred_tokens(tokens, ["p", "ǃ", "kː", "aː"])
    assert caplog.messages == [
        "the vocabulary lacks phones of the set: others come in place of k ǃ"
    ]
    barred_tokens(tokens, ["p", "a"])
    assert len(caplog.messages) == 1
