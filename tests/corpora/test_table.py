"""The table of corpora, and how a small corpus is fetched, split and written."""

import errno
import gzip
import hashlib
import json
import os
import stat
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from powsm.corpora.small import packages as debian
from powsm.corpora.small.packages import Package, PackageError, fetch_packages
from powsm.corpora.small.split import split_prompts
from powsm.corpora.small.text_faults import text_fault, text_key
from powsm.corpora.small.write_shar import (
    Clip,
    Selection,
    is_current,
    write_corpus,
)
from powsm.corpora.table import CORPORA, set_name
from powsm.files.whole import sha256_file

# --- the table -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "split_dir", "expected"),
    [
        ("librispeech", "test-other", "test_librispeech"),
        ("librispeech", "dev-clean", "dev"),
        ("librispeech", "train-clean-100", "train"),
        ("fleurs", "af_za-test", "test_fleurs"),
        ("kazakh2", "audio2", "train"),  # a folder without a known word is train
        ("mls_dutch", "test", "test_mls_dutch"),
        ("doreco", "train", "test_doreco"),  # all of DoReCo is a test set
        ("unheard_of", "test", "test_unheard_of"),
        ("unheard_of", "Test", "test_unheard_of"),  # once trained on
        ("unheard_of", "DEV", "dev"),
    ],
)
def test_set_name_is_the_published_rule(name, split_dir, expected):
    assert set_name(name, split_dir) == expected


def test_table_holds_the_published_test_sets_and_the_mini_corpora():
    mls = {"dutch", "french", "german", "italian", "polish", "portuguese", "spanish"}
    published = {"aishell", "cv", "doreco", "fleurs", "kazakh", "librispeech", "tamil"}
    wanted = published | {f"mls_{language}" for language in mls}
    assert wanted | {"asterisk", "tuxpaint", "kazakh2"} <= CORPORA.keys()
    assert all(name == row.name for name, row in CORPORA.items())
    assert [row.name for row in CORPORA.values() if row.labels == "human"] == ["doreco"]


# --- split ---------------------------------------------------------------------------

PROMPTS = st.lists(
    st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("uvwxyz")), min_size=1
)


@given(PROMPTS, st.integers(0, 9))
def test_split_keeps_every_text_and_every_id_in_one_place(prompts, seed):
    split_of = split_prompts(prompts, seed)
    assert split_of == split_prompts(prompts[::-1], seed)
    assert split_of.keys() == {prompt_id for prompt_id, _ in prompts}
    places: dict[str, set[str]] = {}
    for prompt_id, text in prompts:
        places.setdefault(text, set()).add(split_of[prompt_id])
    assert all(len(splits) == 1 for splits in places.values())


def test_split_shares_and_seed():
    prompts = [(f"id{i}", "text " + "x" * i) for i in range(2000)]
    split_of = split_prompts(prompts, seed=0)
    for split in ("dev", "test"):  # 5 % of 2,000 is 100; its deviation is 9.7
        assert 60 <= list(split_of.values()).count(split) <= 140
    assert split_of != split_prompts(prompts, seed=1)


def test_split_stays_when_other_prompts_come():
    few = [(f"id{i}", "y" * i) for i in range(1, 200)]
    more = few + [(f"new{i}", "z" * i) for i in range(1, 200)]
    before, after = split_prompts(few, 0), split_prompts(more, 0)
    assert before == {prompt_id: after[prompt_id] for prompt_id in before}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Bitte!", "bitte", True),
        ("numéro", "NUMERO", True),
        ("l'ora", "lora", True),
        ("пароль", "Пароль.", True),
        ("yes", "no", False),
    ],
)
def test_text_key_known_pairs(one, other, same):
    assert (text_key(one) == text_key(other)) is same


@pytest.mark.parametrize(
    ("text", "script", "fault"),
    [
        ("Naïve façade…", "LATIN", None),
        ("Ёлка «ель»", "CYRILLIC", None),
        ("Βιολί.", "GREEK", None),
        ("", "LATIN", "no_text"),
        ("½ pomme", "LATIN", "digits"),
        ("una (grande) casa", "LATIN", "remark"),
        ("Ручка R&B", "CYRILLIC", "symbol"),
        ("Гренни Smith", "CYRILLIC", "script"),
        ("pοmme", "LATIN", "script"),  # a Greek omicron
    ],
)
def test_text_fault_known_values(text, script, fault):
    assert text_fault(text, script) == fault


# --- writing -------------------------------------------------------------------------


def make_clip(clip_id: str, n_samples: int = 1600, **changes) -> Clip:
    samples = np.arange(n_samples, dtype=np.int16) + len(clip_id)
    fields = {
        "clip_id": clip_id,
        "language": "it",
        "speaker": "carlo",
        "text": "Pizza fatta.",
        "ipa": "pˈittsa fˈatːa",
        "duration_s": n_samples / 16000,
        "read_samples": lambda: samples,
    }
    return Clip(**fields | changes)


def write_two(folder):
    splits = {"train": [make_clip("b"), make_clip("a", 3200)], "test": [make_clip("c")]}
    write_corpus(folder, splits, {"seed": 0})


def test_write_corpus_is_read_back_by_lhotse(tmp_path):
    from lhotse import CutSet

    folder = tmp_path / "x_shar"
    write_two(folder)
    cuts = list(CutSet.from_shar(in_dir=folder / "train"))
    assert [cut.id for cut in cuts] == ["a", "b"]
    (supervision,) = cuts[0].supervisions
    assert (supervision.language, supervision.speaker) == ("it", "carlo")
    assert supervision.text == "pittsafata"  # no stress, no length
    assert supervision.custom == {
        "orthographic": "Pizza fatta.",
        "original": "pˈittsa fˈatːa",
        "phones": "pˈittsafˈatːa",
        "clean": "pittsafata",
    }
    assert (cuts[0].sampling_rate, cuts[0].num_samples) == (16000, 3200)
    samples = cuts[0].load_audio()[0] * 32768
    assert np.array_equal(samples, np.arange(3200) + 1)  # FLAC loses nothing


def test_write_corpus_twice_gives_the_same_bytes(tmp_path):
    hashes = []
    for name in ("one", "two"):
        write_two(tmp_path / name)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        hashes.append([(p.relative_to(tmp_path / name), sha256_file(p)) for p in files])
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 5  # two splits of two files, and the manifest


def test_is_current_needs_settings_files_and_sizes(tmp_path):
    folder = tmp_path / "x_shar"
    assert not is_current(folder, {"seed": 0})
    write_two(folder)
    assert is_current(folder, {"seed": 0})
    assert not is_current(folder, {"seed": 1})
    tar = folder / "train/recording.000000.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    assert not is_current(folder, {"seed": 0})


def test_write_corpus_replaces_an_older_one(tmp_path):
    folder = tmp_path / "x_shar"
    write_two(folder)
    write_corpus(folder, {"dev": [make_clip("d")]}, {"seed": 1})
    assert sorted(p.name for p in folder.iterdir()) == ["dev", "manifest.json"]
    assert is_current(folder, {"seed": 1})


def fail() -> np.ndarray:
    raise OSError(errno.ENOSPC, "no space left")


@pytest.mark.parametrize(
    ("clips", "error", "message"),
    [
        ([], ValueError, "no clip is left for train"),
        ([make_clip("a"), make_clip("a")], ValueError, r"more than once: \['a'\]"),
        ([make_clip("a", read_samples=fail)], OSError, "no space left: '.*/x_shar'"),
        ([make_clip("a", n_samples=0)], ValueError, "a: samples are int16"),
    ],
)
def test_write_corpus_that_fails_leaves_nothing(tmp_path, clips, error, message):
    with pytest.raises(error, match=message):
        write_corpus(tmp_path / "x_shar", {"train": clips}, {})
    assert list(tmp_path.iterdir()) == []


def test_selection_table_counts_utterances_and_minutes():
    selection = Selection()
    selection.splits["train"] += [
        make_clip("a", 16000 * 60),
        make_clip("b", 16000 * 30),
    ]
    selection.splits["test"] += [make_clip("c", 16000 * 6, language="ru")]
    selection.left_out["ita"] = {"digits": 3}
    lines = selection.table().splitlines()
    assert lines[1].split() == [
        "it",
        "2,",
        "1.5",
        "0,",
        "0.0",
        "0,",
        "0.0",
        "2,",
        "1.5",
    ]
    assert lines[3].split()[-2:] == ["3,", "1.6"]
    assert lines[4] == "left out of ita: digits=3"


# --- Debian packages -----------------------------------------------------------------

PAYLOAD = b"!<arch>\nnot really a package\n"
PACKAGE = Package("words", "1.0-1", len(PAYLOAD), hashlib.sha256(PAYLOAD).hexdigest())


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """Put a stand-in for apt-get on PATH; returns a function that sets its script.

    It answers `--print-uris` as apt-get does, which says nothing of a file that lies in
    the working folder; each other call is a line in `calls`, and the script given
    decides about it.
    """
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "payload").write_bytes(PAYLOAD)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def use(script: str, offer: Package = PACKAGE) -> None:
        uri = f"'http://x/{offer.file_name}' {offer.file_name} {offer.size}"
        path = folder / "apt-get"
        path.write_text(
            textwrap.dedent(f"""\
                #!/bin/sh
                here={folder}
                case "$*" in
                *--print-uris*)
                  [ -e {offer.file_name} ] || echo "{uri} SHA256:{offer.sha256}"
                  exit 0;;
                esac
                echo call >> $here/calls
                n=$(wc -l < $here/calls)
                """)
            + script
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    use.calls = folder / "calls"
    return use


DELIVER = f"cp $here/payload {PACKAGE.file_name}\n"


def test_fetch_verifies_and_then_needs_no_network(tmp_path, apt):
    apt(DELIVER)
    (path,) = fetch_packages([PACKAGE], tmp_path / "deb")
    assert path.read_bytes() == PAYLOAD
    apt("exit 100")  # nothing would come any more
    assert fetch_packages([PACKAGE], tmp_path / "deb") == [path]
    assert len(apt.calls.read_text().splitlines()) == 1


def test_fetch_from_a_working_folder_that_holds_the_package(tmp_path, apt, monkeypatch):
    apt(DELIVER)
    (tmp_path / PACKAGE.file_name).write_bytes(PAYLOAD)
    monkeypatch.chdir(tmp_path)
    assert len(fetch_packages([PACKAGE], tmp_path / "deb")) == 1


def test_fetch_replaces_a_damaged_file(tmp_path, apt):
    apt(DELIVER)
    (path,) = fetch_packages([PACKAGE], tmp_path / "deb")
    path.write_bytes(PAYLOAD[:-1] + b"?")
    fetch_packages([PACKAGE], tmp_path / "deb")
    assert path.read_bytes() == PAYLOAD


def test_fetch_tries_again_with_longer_pauses(tmp_path, apt):
    apt(f"[ $n -lt 3 ] && exit 100\n{DELIVER}")
    pauses = []
    fetch_packages([PACKAGE], tmp_path / "deb", wait=pauses.append)
    assert pauses == [2.0, 4.0]


@pytest.mark.parametrize(
    ("says", "message"),
    [
        ("E: Unable to locate package words", "apt-get update.*--corpus_dir"),
        ("E: Failed to fetch http://x 404  Not Found", "another version.*apt-get upd"),
        ("E: Failed to fetch http://x Could not resolve 'x'", "may be offline"),
    ],
)
def test_fetch_gives_up_after_four_tries_with_advice(tmp_path, apt, says, message):
    apt(f'echo "{says}" >&2; exit 100')
    pauses = []
    with pytest.raises(PackageError, match=message) as caught:
        fetch_packages([PACKAGE], tmp_path / "deb", wait=pauses.append)
    assert says.removeprefix("E: ") in str(caught.value)
    assert pauses == [2.0, 4.0, 8.0]
    assert list((tmp_path / "deb").iterdir()) == []


def test_fetch_refuses_what_is_not_in_the_package_list(tmp_path, apt):
    apt(f"echo half > {PACKAGE.file_name}")
    with pytest.raises(PackageError, match=r"5 bytes arrived.*29 bytes"):
        fetch_packages([PACKAGE], tmp_path / "deb")
    assert list((tmp_path / "deb").iterdir()) == []


def test_fetch_accepts_another_version_and_says_so(tmp_path, apt, caplog):
    newer = Package("words", "2.0-1", PACKAGE.size, PACKAGE.sha256)
    apt(f"cp $here/payload {newer.file_name}", offer=newer)
    (path,) = fetch_packages([PACKAGE], tmp_path / "deb")
    assert path.name == "words_2.0-1_all.deb"
    assert "2.0-1" in caplog.text


@pytest.mark.parametrize("call", ["fetch", "unpack"])
def test_machine_without_debian_tools_is_told_of_corpus_dir(
    tmp_path, monkeypatch, call
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError, match="on this machine.*--corpus_dir"):
        if call == "fetch":
            fetch_packages([PACKAGE], tmp_path / "deb")
        else:
            debian.unpack([tmp_path / "a.deb"], tmp_path)


def test_gzip_headers_carry_no_time(tmp_path):
    write_two(tmp_path / "x")
    cuts = tmp_path / "x/train/cuts.000000.jsonl.gz"
    assert cuts.read_bytes()[4:8] == bytes(4)
    assert len([json.loads(line) for line in gzip.open(cuts)]) == 2
