"""`powsm import`: the same utterances in every form are the same corpus.

Stages 1 to 5 make the same files of it as of a corpus of stage 0, to the byte.
"""

import csv
import json
import logging
import shutil
from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import yaml
from powsm_command import run_verb

from powsm.corpora.shar import find_shards
from powsm.corpora.small.write_shar import Clip, write_corpus
from powsm.corpora.sources.bring import _by_texts
from powsm.corpora.sources.folders import items_with_tiers
from powsm.corpora.sources.item import SourceError
from powsm.corpora.sources.manifests import items_of_kaldi, items_of_lhotse
from powsm.corpora.sources.tables import (
    items_of_common_voice,
    items_of_csv,
    items_of_dataset,
)
from powsm.decode.align_files import Segment, eaf, textgrid
from powsm.files.audio_places import _open_file
from powsm.prepare.audit import report
from powsm.prepare.audit.counts import audit_set, stage_1_record
from powsm.prepare.copy_audio import copy_set
from powsm.prepare.dump import Settings, prepare_set
from powsm.prepare.index import build_index
from powsm.prepare.merge import merge_parts
from powsm.prepare.shards import make_parts

# key, seconds, words, IPA; every text is another, so that train, dev and test have some
SAID = (
    ("u0", 1.000375, "il gatto", "il ɡatto"),  # 16,006 samples: no whole millisecond
    ("u1", 1.25, "la casa, bianca", "la kaza bjanka"),
    ("u2", 0.75, "un albero", "un albero"),
    ("u3", 1.5, 'due "cani"', "due kani"),
)

PLACED = {"train": ("u1", "u2"), "dev": ("u0",), "test": ("u3",)}  # as by texts

# what a corpus was made from, and when files were written
OF_ITS_OWN = {"corpus.yaml", "manifest.json", ".parts", "stamp.json"}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A WAV of each utterance."""
    folder = tmp_path_factory.mktemp("recordings")
    for number, (key, seconds, *_) in enumerate(SAID):
        speech = np.random.default_rng(number).normal(0, 0.1, int(16_000 * seconds))
        soundfile.write(folder / f"{key}.wav", speech, 16_000)
    return folder


def copy(recordings, folder):
    return Path(shutil.copytree(recordings, folder))


def as_folder(recordings, source):
    copy(recordings, source)
    for key, _, text, ipa in SAID:
        (source / f"{key}.txt").write_text(f"\ufeff{text}\n", encoding="utf-8")
        (source / f"{key}.ipa").write_text(ipa, encoding="utf-8")
    return source


def as_other_containers(recordings, source):
    """FLAC and stereo: the same samples."""
    as_folder(recordings, source)
    speech, rate = soundfile.read(source / "u0.wav", dtype="int16")
    soundfile.write(source / "u0.flac", speech, rate)
    (source / "u0.wav").unlink()
    both = np.stack([soundfile.read(source / "u1.wav", dtype="int16")[0]] * 2, 1)
    soundfile.write(source / "u1.wav", both, rate)
    return source


def as_csv(recordings, source, ending=".csv"):
    copy(recordings, source / "clips")
    table = source / f"mine{ending}"
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if ending == ".tsv":  # in which a quotation mark is a letter
            writer = csv.writer(
                file, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None
            )
        writer.writerow(("path", "sentence", "ipa", "lang", "id"))
        for key, _, text, ipa in SAID:
            writer.writerow((f"clips/{key}.wav", text, ipa, "Italian", key))
    return table


def as_tsv(recordings, source):
    return as_csv(recordings, source, ".tsv")


def as_kaldi(recordings, source):
    copy(recordings, source / "wav")
    tables = {
        "wav.scp": [(key, f"wav/{key}.wav") for key, *_ in SAID],
        "text": [(key, text) for key, _, text, _ in SAID],
        "text.ipa": [(key, ipa) for key, _, _, ipa in SAID],
        "utt2lang": [(key, "it") for key, *_ in SAID],
    }
    for name, rows in tables.items():
        (source / name).write_text("".join(f"{k} {v}\n" for k, v in rows))
    return source


def as_kaldi_segments(recordings, source):
    """One long recording."""
    as_kaldi(recordings, source)
    parts, at = [], 0.0
    rows = []
    for key, seconds, *_ in SAID:
        parts.append(soundfile.read(source / f"wav/{key}.wav", dtype="int16")[0])
        rows.append(f"{key} all {at} {at + seconds}\n")
        at += seconds
    soundfile.write(source / "all.wav", np.concatenate(parts), 16_000)
    (source / "wav.scp").write_text("all all.wav\n")
    (source / "segments").write_text("".join(rows))
    return source


def as_lhotse(recordings, source, kind="supervisions"):
    from lhotse import (
        CutSet,
        Recording,
        RecordingSet,
        SupervisionSegment,
        SupervisionSet,
    )

    copy(recordings, source)
    audio = RecordingSet.from_recordings(
        Recording.from_file(source / f"{key}.wav") for key, *_ in SAID
    )
    said = SupervisionSet.from_segments(
        SupervisionSegment(
            key, key, 0, seconds, text=text, language="ita", custom={"ipa": ipa}
        )
        for key, seconds, text, ipa in SAID
    )
    if kind == "cuts":
        cuts = CutSet.from_manifests(recordings=audio, supervisions=said)
        cuts.to_file(source / "cuts.jsonl.gz")
    else:
        audio.to_file(source / "mine_recordings_all.jsonl.gz")
        said.to_file(source / "mine_supervisions_all.jsonl.gz")
    return source


def as_lhotse_cuts(recordings, source):
    return as_lhotse(recordings, source, "cuts")


def as_dataset(recordings, source):
    source.mkdir()
    rows = [
        {
            "audio": {
                "bytes": (recordings / f"{k}.wav").read_bytes(),
                "path": f"{k}.w",
            },
            "text": text,
            "ipa": ipa,
            "language": "ita",
        }
        for k, _, text, ipa in SAID
    ]
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(source / "data-00000.arrow", table.schema) as file:
        file.write_table(table)
    state = {"_data_files": [{"filename": "data-00000.arrow"}]}
    (source / "state.json").write_text(json.dumps(state))
    (source / "dataset_info.json").write_text("{}")
    return source


def as_textgrids(recordings, source, render=None):
    copy(recordings, source)
    for key, seconds, text, ipa in SAID:
        words = ipa.split()
        half = seconds / 2
        labels = [(words[0], 0, half), (" ".join(words[1:]), half, seconds)]
        tiers = {
            "ipa": [Segment(label, *times, 1.0) for label, *times in labels],
            "words": [Segment(text, 0, seconds, 1.0)],
        }
        if render is None:
            grid = textgrid(tiers, seconds, key)
            (source / f"{key}.TextGrid").write_text(grid, encoding="utf-16")
        else:
            (source / f"{key}.eaf").write_text(render(tiers), encoding="utf-8")
    return source


def as_eafs(recordings, source):
    return as_textgrids(recordings, source, eaf)


TIERS = ("--tier", "words", "--ipa_tier", "ipa")
FORMS = {
    as_folder: (),
    as_other_containers: (),
    as_csv: (),
    as_tsv: (),
    as_kaldi: (),
    as_kaldi_segments: (),
    as_lhotse: (),
    as_lhotse_cuts: (),
    as_dataset: (),
    as_textgrids: TIERS,
    as_eafs: TIERS,
}


def data_of(root, monkeypatch, source, *options):
    """Every file that stage 1 makes of an imported source."""
    monkeypatch.chdir(root)
    run_verb("import", source, "mine", "--lang", "ita", *options)
    return after_stage_1()


def after_stage_1():
    shards = find_shards(Path("downloads"))
    merge_parts(make_parts(shards, Path("data")), Path("data"))
    return {
        str(path.relative_to("data")): path.read_text()
        for path in Path("data").glob("[!.]*/[!.]*")
        if path.is_file() and path.suffix != ".json" and not path.name.startswith(".")
    }


def after_stages_1_to_5(monkeypatch):
    """Every file that the stages make of `downloads`; pictures are not drawn."""
    sets = [Path("data") / name for name in ("dev", "test_mine", "train")]
    _open_file.cache_clear()  # of another working directory, by the same names
    monkeypatch.setattr(report, "draw", lambda sets, paper: defaultdict(bytes))
    after_stage_1()
    stats = {folder.name: audit_set(folder) for folder in sets}
    records = {folder.name: stage_1_record(folder) for folder in sets}
    report.write_report(Path("data/report"), stats, records)
    for folder in sets:
        copy_set(folder, "flac.ark")
        prepare_set(folder, Path("dump") / folder.name, Settings())
        build_index(Path("dump") / folder.name)
    few = ("--phones", "observed", "--languages", "observed", "--time_step_s", "none")
    run_verb(
        "tokens", "--dump_set", "dump/train", "--out", "tokens", *few, "--nbpe", 36
    )
    return {
        str(path): path.read_bytes()
        for folder in ("downloads", "data", "dump", "tokens")
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and not set(path.parts) & OF_ITS_OWN
    }


@pytest.fixture(scope="module")
def expected(recordings, tmp_path_factory):
    """What the stages make of a corpus that stage 0 wrote."""

    def clip(key, seconds, text, ipa):
        path = recordings / f"{key}.wav"
        read = partial(soundfile.read, path, dtype="int16")
        return Clip(key, "ita", key, text, ipa, seconds, lambda: read()[0])

    splits = {
        split: [clip(*row) for row in SAID if row[0] in keys]
        for split, keys in PLACED.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("expected"))
        write_corpus(Path("downloads/mine_shar"), splits, {})
        return after_stages_1_to_5(patch)


def test_corpus_of_stage_0_becomes_data(expected):
    sets = {Path(name).parent.name for name in expected if name.startswith("dump/")}
    assert sets == {"train", "dev", "test_mine", ".index"}
    assert {"tokens/bpe_unigram36/bpe.model", "data/report/report.md"} <= set(expected)

    def rows(name):
        return dict(
            line.split(" ", 1)
            for path, text in expected.items()
            if path.startswith("data/") and path.endswith(name)
            for line in text.decode().splitlines()
        )

    assert rows("/text.ipa") == {f"mine_{key}_ita": ipa for key, _, _, ipa in SAID}
    assert rows("/utt2num_samples") == {
        f"mine_{key}_ita": f"{int(16_000 * seconds)}" for key, seconds, *_ in SAID
    }


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_is_the_same_after_stage_5(
    form, recordings, expected, tmp_path, monkeypatch
):
    source = form(recordings, tmp_path / "source")
    monkeypatch.chdir(tmp_path)
    run_verb("import", source, "mine", "--lang", "ita", *FORMS[form])
    found = after_stages_1_to_5(monkeypatch)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def test_speakers_are_those_of_the_source(recordings, tmp_path, monkeypatch):
    """By the folder of a recording, a column, and utt2speaker before utt2spk."""
    folder = as_folder(recordings, tmp_path / "folder")
    (folder / "ann").mkdir()
    for path in folder.glob("u[01].*"):
        path.rename(folder / "ann" / path.name)
    table = as_csv(recordings, tmp_path / "csv")
    lines = table.read_text().splitlines()
    rows = [f"{lines[0]},speaker", *(f"{line},ann" for line in lines[1:3]), *lines[3:]]
    table.write_text("\n".join(rows))
    kaldi = as_kaldi(recordings, tmp_path / "kaldi")
    (kaldi / "utt2spk").write_text("".join(f"{key} {key}\n" for key, *_ in SAID))
    said = {source: "ann" for source in ("u0", "u1")}
    (kaldi / "utt2speaker").write_text("".join(f"{k} {v}\n" for k, v in said.items()))
    for number, source in enumerate((folder, table, kaldi)):
        root = tmp_path / str(number)
        root.mkdir()
        data = data_of(root, monkeypatch, source, "--split", "test")
        speakers = [
            line.split()[1] for line in data["test_mine/utt2speaker"].splitlines()
        ]
        assert speakers[:2] == ["mine_ann", "mine_ann"], source
        assert len(set(speakers)) == 3


def test_stretches_of_a_recording_are_of_one_speaker_and_labels_outside_are_said(
    recordings, tmp_path, caplog
):
    source = as_textgrids(recordings, tmp_path / "source")
    tiers = {
        "ipa": [Segment("p", 0, 0.2, 1.0), Segment("a", 0.2, 0.3, 1.0)],
        "words": [Segment("pa", 0, 0.1, 1.0), Segment("pe", 0.1, 0.25, 1.0)],
    }
    grid = textgrid(tiers, SAID[0][1], "u0")
    (source / "u0.TextGrid").write_text(grid, encoding="utf-8")
    items = list(items_with_tiers(source, "words", "ipa"))
    assert [(i.key, i.speaker, i.ipa) for i in items[:3]] == [
        ("u0-0001", "u0", ""),
        ("u0-0002", "u0", "p"),
        ("u1", "u1", SAID[1][3]),
    ]
    (said,) = caplog.messages
    assert said.startswith(f"1 of {2 * len(SAID)} labels of tier ipa are in no segment")
    assert said.endswith(f"in 1 files, such as {source}/u0.TextGrid")


def test_voices_that_train_has_are_said(recordings, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    folder = as_folder(recordings, tmp_path / "folder")
    run_verb("import", folder, "mine", "--lang", "ita")
    unsaid = "test: the speakers of 1 of its 1 utterances are not said"
    assert [m.startswith(unsaid) for m in caplog.messages].count(True) == 1
    caplog.clear()
    (folder / "ann").mkdir()
    for path in folder.glob("u*.*"):
        path.rename(folder / "ann" / path.name)
    run_verb("import", folder, "mine", "--lang", "ita")
    shared = "test: 1 of its 1 speakers are in train, too"
    assert [m.startswith(shared) for m in caplog.messages].count(True) == 1
    caplog.clear()
    run_verb("import", folder, "mine", "--lang", "ita", "--split", "test")
    assert "speakers" not in caplog.text


def test_what_was_imported_is_said(recordings, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    source = as_folder(recordings, tmp_path / "source")
    for path in source.glob("*.ipa"):
        path.unlink()
    caplog.set_level(logging.INFO)
    run_verb("import", source, "mine", "--lang", "it", "--g2p", "espeak")
    about = yaml.safe_load(Path("downloads/mine_shar/corpus.yaml").read_text())
    assert about["labels"] == "g2p" and about["languages"] == ["ita"]
    assert about["utterances"] == {"train": 2, "dev": 1, "test": 1}
    steps = [m for m in caplog.messages if m.startswith("next: ")]
    assert [step.split()[3] for step in steps] == ["1", "4", "12"]
    caplog.clear()
    find_shards(Path("downloads"))
    assert not caplog.messages  # it is known, though in no table


@pytest.mark.parametrize("options", [(), ("--human",)], ids=["program", "people"])
def test_labels_by_people_are_kept_as_they_are(
    options, recordings, tmp_path, monkeypatch, caplog
):
    """Of a program English gets flaps and aspiration; a person wrote what was heard."""
    source = as_folder(recordings, tmp_path / "source")
    (source / "u0.ipa").write_text("ˈtiː", encoding="utf-8")
    spaceless = [ipa.replace(" ", "") for *_, ipa in SAID[1:]]
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    run_verb("import", source, "mine", "--lang", "eng", "--split", "test", *options)
    shards = find_shards(Path("downloads"))
    merge_parts(make_parts(shards, Path("data")), Path("data"))
    data, dump = Path("data/test_mine"), Path("dump/test_mine")
    prepare_set(data, dump, Settings())
    with open(dump / "ref.ipa", encoding="utf-8") as file:
        said = dict(line.split(" ", 1) for line in file)
    text = (dump / "text").read_text().splitlines()
    pr = next(line for line in text if line.startswith("mine_u0_eng_pr "))
    people = bool(options)
    assert said["mine_u0_eng"] == ("ˈtiː\n" if people else "/tʰ//iː/\n")
    assert pr.endswith("/t//iː/" if people else "/tʰ//iː/")
    assert ("taken for a program's" in caplog.text) is not people
    # the data report judges alike: what no program wrote counts as no fault of one
    n_characters = audit_set(data).unknown.n_characters
    assert n_characters == (0 if people else sum(map(len, ("ˈtiː", *spaceless))))
    about = yaml.safe_load(Path("downloads/mine_shar/corpus.yaml").read_text())
    assert about["labels"] == ("human" if people else "g2p")


@pytest.mark.parametrize(
    "texts",
    [
        ("Yes.", "yes", "yes", "no", "no", "maybe", "Maybe!"),  # spellings of a text
        tuple("1234567890" * 2),  # without letters, which are no spellings of one
    ],
)
def test_a_text_is_in_one_split_however_it_is_spelt(texts):
    clips = [
        Clip(f"u{i}", "ita", "s", text, "pa", 1.0, list) for i, text in enumerate(texts)
    ]
    placed = _by_texts(clips, 0, Path("mine"))
    assert set(placed.values()) == {"train", "dev", "test"}
    for clip in clips:
        for other in clips:
            if clip.text.strip(".!").lower() == other.text.strip(".!").lower():
                assert placed[clip.clip_id] == placed[other.clip_id]


def test_splits_of_the_source_are_kept(recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = as_folder(recordings, tmp_path / "source")
    for name, split in (("u0", "train"), ("u1", "train"), ("u2", "valid")):
        (source / split / "ann").mkdir(parents=True, exist_ok=True)
        for path in source.glob(f"{name}.*"):
            path.rename(source / split / "ann" / path.name)
    with pytest.raises(SystemExit, match="1 of 4 utterances say no split"):
        run_verb("import", source, "mine", "--lang", "ita")
    for path in source.glob("u3.*"):
        path.unlink()
    run_verb("import", source, "mine", "--lang", "ita")
    about = yaml.safe_load(Path("downloads/mine_shar/corpus.yaml").read_text())
    assert about["utterances"] == {"train": 2, "dev": 1}


def test_held_out_folders_of_kaldi_are_not_trained_on(recordings, tmp_path):
    source = tmp_path / "source"
    parts = ("train_nodev", "train_dev", "test")
    for part, (key, *_) in zip(parts, SAID, strict=False):
        (source / part).mkdir(parents=True)
        (source / part / "wav.scp").write_text(f"{key} {recordings / key}.wav\n")
        (source / part / "text").write_text(f"{key} a\n")
    splits = {item.key: item.split for item in items_of_kaldi(source)}
    assert splits == {"u0": "train", "u1": "dev", "u2": "test"}


def test_texts_without_a_recording_are_told(recordings, tmp_path):
    source = as_kaldi_segments(recordings, tmp_path / "source")
    (source / "segments").write_text("u0 all 0 1\n")
    items = list(items_of_kaldi(source))
    told = [f"{source}/text: {key}: is not in segments" for key in ("u1", "u2", "u3")]
    assert [item for item in items if f"{source}/text:" in str(item)] == told
    assert len(items) == 7  # and as many of text.ipa


def test_segment_without_times_is_not_the_whole_recording(recordings, tmp_path):
    source = as_kaldi(recordings, tmp_path / "source")
    (source / "segments").write_text("u0\nu1 u1 0 1\n")
    assert f"{source}/wav.scp: u0: segments has ''" in list(items_of_kaldi(source))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("path,text\nu0.wav,uno, due\n", "t.csv:2: ' due' is in no column; quote"),
        ("path,text,text\nu0.wav,uno,due\n", "two columns text; rename or remove"),
    ],
)
def test_table_whose_texts_would_be_cut_is_refused(tmp_path, content, fault):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(SourceError, match=fault):
        list(items_of_csv(tmp_path / "t.csv"))


def test_quote_that_is_left_open_takes_no_rows(recordings, tmp_path):
    table = copy(recordings, tmp_path / "source") / "t.csv"
    table.write_text('path,text\n\nu9.wav,zero\nu0.wav,"uno\nu1.wav,due\n')
    assert list(items_of_csv(table)) == [
        f"{table}:3: {table.parent}/u9.wav: no such file",
        f"{table}:5: a line break in a field; close the quotation mark, or take the "
        "line break out",
    ]


def test_lists_of_phones_are_joined(recordings, tmp_path):
    """As a Hugging Face dataset and cuts of lhotse may have them."""
    phones = ["p", "a", "tʰ"]
    source = as_dataset(recordings, tmp_path / "dataset")
    rows = [{"audio": {"bytes": b"RIFF", "path": "u0.wav"}, "phones": phones}]
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(source / "data-00000.arrow", table.schema) as file:
        file.write_table(table)
    assert [item.ipa for item in items_of_dataset(source)] == ["p a tʰ"]
    cuts_of_stereo(
        tmp_path,
        lambda cut: cut.map_supervisions(
            lambda said: replace(said, custom={"phones": phones})
        ),
    )
    assert [item.ipa for item in items_of_lhotse(tmp_path)] == ["p a tʰ"] * 2


def test_columns_in_capitals_are_read(recordings, tmp_path):
    table = copy(recordings, tmp_path / "source") / "t.csv"
    table.write_text("path, Text,Split,LANG\nu0.wav,uno,Test,it\nu1.wav,due,dev,it\n")
    said = [(item.text, item.split, item.lang) for item in items_of_csv(table)]
    assert said == [("uno", "test", "it"), ("due", "dev", "it")]


def test_tables_with_semicolons_are_read(recordings, tmp_path):
    table = copy(recordings, tmp_path / "source") / "t.csv"
    table.write_text('\ufeffpath;text\nu0.wav;uno, due\nu1.wav;"tre; due"\n', "utf-8")
    assert [item.text for item in items_of_csv(table)] == ["uno, due", "tre; due"]


def test_folder_of_common_voice_has_its_splits(recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "cv-corpus/it"
    copy(recordings, source / "clips")
    for name, keys in (("train", "u1 u2"), ("test", "u0"), ("validated", "u0 u1 u2")):
        rows = "".join(f"s\t{key}.wav\tciao\tit\n" for key in keys.split())
        head = "client_id\tpath\tsentence\tlocale\n"
        (source / f"{name}.tsv").write_text(head + rows)
    run_verb("import", source, "mine", "--g2p", "espeak")
    about = yaml.safe_load(Path("downloads/mine_shar/corpus.yaml").read_text())
    assert about["utterances"] == {"train": 2, "test": 1}
    assert about["source"] == "folder of Common Voice"
    for split in ("train", "test"):
        (source / f"{split}.tsv").unlink()
    assert [item.split for item in items_of_common_voice(source)] == [None] * 3
    (item, *_) = items_of_csv(source / "validated.tsv")  # a table alone says no split
    assert (item.key, item.split, item.speaker) == ("clips-u0", None, "s")


def cuts_of_stereo(folder, change=lambda cut: cut):
    """Two speakers of a conversation, each on a channel."""
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    both = np.random.default_rng(0).normal(0, 0.1, (16_000, 2)).astype(np.float32)
    soundfile.write(folder / "s.wav", both, 16_000, subtype="FLOAT")
    recording = Recording.from_file(folder / "s.wav")
    cuts = [
        MonoCut(
            *(f"c{channel}", 0.0, 1.0, channel),
            supervisions=[
                SupervisionSegment(f"c{channel}", "s", 0, 1.0, channel, text="a")
            ],
            recording=recording,
        )
        for channel in (0, 1)
    ]
    CutSet.from_cuts(map(change, cuts)).to_file(folder / "cuts.jsonl")
    return both


def test_cuts_of_lhotse_are_of_their_channel(tmp_path):
    both = cuts_of_stereo(tmp_path)
    for item, channel in zip(items_of_lhotse(tmp_path), both.T, strict=True):
        assert np.abs(item.samples() / 32_768 - channel).max() < 1e-4


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda cut: cut.perturb_speed(1.25), "Speed changes its recording"),
        (lambda cut: cut.drop_supervisions(), "no supervision"),
        (lambda cut: replace(cut, channel=2), "its recording has no channel 2"),
    ],
)
def test_cuts_of_lhotse_that_would_be_read_wrongly_are_told(tmp_path, change, fault):
    cuts_of_stereo(tmp_path, change)
    assert all(fault in item for item in items_of_lhotse(tmp_path))
    cuts_of_stereo(tmp_path, lambda cut: cut.resample(8_000))
    assert not any(isinstance(item, str) for item in items_of_lhotse(tmp_path))


def test_all_faults_are_listed_at_once(recordings, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    source = as_folder(recordings, tmp_path / "source")
    (source / "u0.wav").write_bytes(b"no sound")
    (source / "u0.ipa").unlink()
    (source / "u1.txt").unlink()
    (source / "u1.ipa").unlink()
    (source / "u2.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SystemExit, match="5 faults, see above; nothing is written"):
        run_verb("import", source, "mine")
    text = "\n".join(caplog.messages)
    for fault in (
        "u0.wav and 1 more: its language is not said",
        "do not decode as audio",
        "u1.wav: no u1.txt beside it",
        "u2.txt: not UTF-8 text",
    ):
        assert fault in text
    assert not Path("downloads").exists()


BAD = {
    "absent": (lambda s: ["absent", "mine"], "absent: is missing"),
    "no source": (lambda s: [s / "u0.wav", "mine"], "expected .csv, .tsv or a folder"),
    "empty folder": (lambda s: [_made(s / "none"), "mine"], "no utterances"),
    "name with _": (lambda s: [s, "my_own"], "cannot name a corpus: use letters"),
    "known name": (lambda s: [s, "cv"], "not that of a known corpus"),
    "no language": (lambda s: [s, "mine", "--lang", "klingonese"], "no such language"),
    "no voice": (
        lambda s: [s, "mine", "--lang", "zul", "--g2p", "espeak"],
        "espeak-ng does not read zul",
    ),
    "no path": (lambda s: [_made(s / "a.csv", "text\na\n"), "mine"], "no column path"),
    "no tier": (lambda s: [s, "mine", "--tier", "a"], "4 faults, see above"),
    "tier of a table": (
        lambda s: [_made(s / "a.csv", "path,text\n"), "mine", "--tier", "a"],
        "--tier: not used, ",
    ),
    "no Arrow": (
        lambda s: [
            _made(
                s / "hf",
                dataset_info="{}",
                state='{"_data_files": [{"filename": "a.arrow"}]}',
                a="",
            ),
            "mine",
        ],
        "a.arrow: no Arrow stream",
    ),
    "espeak is no person": (
        lambda s: [s, "mine", "--lang", "ita", "--g2p", "espeak", "--human"],
        "no person's",
    ),
    "few texts": (lambda s: [_one_text(s), "mine", "--lang", "ita"], "1 different"),
}


def _made(path, text=None, **files):
    if text is not None:
        path.write_text(text)
        return path
    path.mkdir()
    for name, content in files.items():
        path.joinpath(f"{name}{'.json' if content else '.arrow'}").write_text(content)
    return path


def _one_text(source):
    for path in source.glob("*.txt"):
        path.write_text("a")
    return source


@pytest.mark.parametrize("what", BAD)
def test_source_that_cannot_be_imported(what, recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[what]
    source = as_folder(recordings, tmp_path / "source")
    with pytest.raises(SystemExit) as end:
        run_verb("import", *arguments(source))
    assert str(end.value.code).startswith("powsm import: error: ")
    assert message in end.value.code and "\n" not in end.value.code
    assert not Path("downloads").exists()


def test_corpus_that_was_not_imported_is_not_replaced(
    recordings, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    source = as_folder(recordings, tmp_path / "source")
    Path("downloads/mine_shar/train").mkdir(parents=True)
    with pytest.raises(SystemExit, match="was not imported; take another name"):
        run_verb("import", source, "mine", "--lang", "ita")
