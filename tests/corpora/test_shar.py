"""Shar shards: what comes out of good ones, and what is said about bad ones."""

import gzip
import importlib.util
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from shar_builder import (
    encode,
    make_cut,
    members_of,
    write_cuts,
    write_shard,
    write_tar,
)

from powsm.audio import read_audio
from powsm.corpora.shar import ShardError, find_shards, read_shard
from powsm.languages import LANGUAGES

GENERATOR = Path(__file__).parents[2] / "scripts" / "bench" / "generated_shar.py"


@pytest.fixture
def split(tmp_path):
    return tmp_path / "fleurs_shar" / "en_us-dev"


def read(tmp_path, drops=None):
    drops = Counter() if drops is None else drops
    return [
        utterance
        for shard in find_shards(tmp_path)
        for utterance in read_shard(shard, drops)
    ]


def test_read_shard_fields(tmp_path, split):
    cut = make_cut("a/1", n_samples=3200, text=" Hi\n there ", ipa="haɪ  ðɛɹ")
    write_shard(split, [cut])
    (utterance,) = read(tmp_path)
    assert utterance.utt_id == "fleurs_a@2F1_eng"  # 0x2F is the slash
    assert utterance.corpus == "fleurs"
    assert utterance.split == "en_us-dev"
    assert utterance.lang == "eng"
    assert utterance.speaker == "fleurs_ann"
    assert utterance.n_samples == 3200
    assert utterance.text == "Hi there"
    assert utterance.ipa == "haɪ ðɛɹ"
    # one header of 512 bytes stands before the first member's data
    size = len(encode(3200))
    assert utterance.audio == f"{split}/recording.000000.tar:512:{size}"


def test_read_shard_offsets_point_at_audio(tmp_path, split):
    cuts = [make_cut(f"c{i}", n_samples=1600 + i) for i in range(5)]
    write_shard(split, cuts)
    lengths = [len(read_audio(utterance.audio)) for utterance in read(tmp_path)]
    assert lengths == [1600, 1601, 1602, 1603, 1604]


@pytest.mark.parametrize("word", ["null", "NA", "None", "nan"])
def test_words_that_look_like_missing_values_stay_words(tmp_path, split, word):
    write_shard(split, [make_cut(text=word)])
    assert read(tmp_path)[0].text == word


def test_missing_text_is_empty_and_kept(tmp_path, split):
    write_shard(split, [make_cut(text=None), make_cut("a2", text=" \t")])
    assert [utterance.text for utterance in read(tmp_path)] == ["", ""]


@pytest.mark.parametrize("original", [None, "", "  "])
def test_ipa_falls_back_to_phones(tmp_path, split, original):
    write_shard(split, [make_cut(ipa=original, phones="h aɪ")])
    assert read(tmp_path)[0].ipa == "h aɪ"


def test_simplified_labels_are_kept_beside_the_original_ones(tmp_path, split):
    cuts = [make_cut("a1", ipa="haɪː ðɛɹ"), make_cut("a2")]
    cuts[1]["supervisions"][0]["text"] = None
    write_shard(split, cuts)
    read_back = [(u.ipa, u.ipa_clean) for u in read(tmp_path)]
    assert read_back == [("haɪː ðɛɹ", "haɪðɛɹ"), ("haɪ ðɛɹ", "")]


def test_drops_are_counted(tmp_path, split):
    no_ipa = make_cut("a1", ipa=None, phones=None)
    interlingua = make_cut("a2", language="ia")
    two = make_cut("a3")
    two["supervisions"] *= 2
    kept = make_cut("a4")
    write_shard(split, [no_ipa, interlingua, two, kept])
    drops = Counter()
    assert [utterance.utt_id for utterance in read(tmp_path, drops)] == [
        "fleurs_a4_eng"
    ]
    assert drops == {"no_ipa": 1, "dropped_language": 1, "not_one_supervision": 1}


@pytest.mark.parametrize(
    ("start_s", "duration_s", "is_part"),
    [(0, 1.0, False), (0.02, 0.96, False), (0, 0.9, True), (0.1, 0.9, True)],
)
def test_supervision_of_a_part_is_told(tmp_path, split, start_s, duration_s, is_part):
    write_shard(split, [make_cut(n_samples=16_000, start=start_s, duration=duration_s)])
    (utterance,) = read(tmp_path)
    assert utterance.is_partly_labelled is is_part
    assert utterance.n_samples == 16_000


def test_no_speaker_is_a_speaker_of_its_own(tmp_path, split):
    write_shard(split, [make_cut(speaker=None)])
    (utterance,) = read(tmp_path)
    assert utterance.speaker == utterance.utt_id


def test_speaker_0_is_a_speaker(tmp_path, split):
    write_shard(split, [make_cut("a", speaker=0), make_cut("b", speaker=0)])
    assert [utterance.speaker for utterance in read(tmp_path)] == ["fleurs_0"] * 2


@pytest.mark.parametrize("name", ["a\tb", "a\nb", "a\udce9b"])
def test_path_that_a_line_cannot_hold_is_refused(tmp_path, name):
    for downloads, split in ((tmp_path / name, "train"), (tmp_path / "d", name)):
        write_shard(downloads / "cv_shar" / split, [make_cut()])
        with pytest.raises(ShardError, match="or no UTF-8 in its path; rename"):
            find_shards(downloads)


def test_kazakh2_tail_is_cut_off_the_id(tmp_path):
    write_shard(tmp_path / "kazakh2_shar" / "audio2", [make_cut("5f_a.wav-0")])
    (utterance,) = read(tmp_path)
    assert utterance.utt_id == "kazakh2_5f_a_eng"


def test_unknown_language_of_human_labels_is_kept(tmp_path):
    split = tmp_path / "doreco_shar" / "all"
    write_shard(split, [make_cut(language="?!")])
    assert read(tmp_path)[0].lang == "und"


def test_other_rate_counts_samples_after_resampling(tmp_path, split):
    cut = make_cut(n_samples=1600)
    cut["recording"] |= {"sampling_rate": 8_000, "num_samples": 801}
    cut["duration"] = 801 / 8_000
    write_cuts(split / "cuts.000000.jsonl.gz", [cut])
    audio = encode(801, rate=8_000)
    write_tar(split / "recording.000000.tar", members_of(cut, audio))
    (utterance,) = read(tmp_path)
    assert utterance.n_samples == 1602 == len(read_audio(utterance.audio))


def test_plain_jsonl_is_read(tmp_path, split):
    write_shard(split, [make_cut()])
    packed = split / "cuts.000000.jsonl.gz"
    (split / "cuts.000000.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert len(read(tmp_path)) == 1


def test_recording_resampled_for_its_codec_agrees(tmp_path, split):
    """lhotse writes Opus at 48 kHz and says so beside the audio only."""
    cut = make_cut(n_samples=1600)
    write_shard(split, [cut])
    cut["recording"] |= {"sampling_rate": 48_000, "num_samples": 4800}
    audio = encode(4800, rate=48_000)
    write_tar(split / "recording.000000.tar", members_of(cut, audio))
    (utterance,) = read(tmp_path)
    assert utterance.n_samples == 1600 == len(read_audio(utterance.audio))


def test_shard_without_number_is_read(tmp_path, split):
    write_shard(split, [make_cut()])
    (split / "cuts.000000.jsonl.gz").rename(split / "cuts.jsonl.gz")
    (split / "recording.000000.tar").rename(split / "recording.tar")
    assert len(read(tmp_path)) == 1


def test_find_shards_leaves_other_things_alone(tmp_path, split):
    write_shard(split, [make_cut()])
    (tmp_path / "nlsyms.txt").write_text("x")
    (tmp_path / "notes").mkdir()
    (tmp_path / "fleurs_shar" / "manifest.json").write_text("{}")
    (split / "README").write_text("x")
    assert [shard.name for shard in find_shards(tmp_path)] == [
        "fleurs_shar/en_us-dev/000000"
    ]


# --- bad input: one line that names the file and the line or member


def bend_not_json(split, cuts):
    with gzip.open(split / "cuts.000000.jsonl.gz", "ab") as file:
        file.write(b"{nonsense\n")


def bend_json_list(split, cuts):
    with gzip.open(split / "cuts.000000.jsonl.gz", "ab") as file:
        file.write(b"[1]\n")


def bend_not_utf8(split, cuts):
    with gzip.open(split / "cuts.000000.jsonl.gz", "ab") as file:
        file.write(b'{"id": "\xff"}\n')


def bend_half_surrogate(split, cuts):
    with gzip.open(split / "cuts.000000.jsonl.gz", "ab") as file:
        file.write(b'{"id": "\\ud800"}\n')


def bend_truncated_gzip(split, cuts):
    path = split / "cuts.000000.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])


def bend_damaged_gzip(split, cuts):
    path = split / "cuts.000000.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # in the checksum, which comes after all lines
    path.write_bytes(bytes(data))


def bend_no_recording_file(split, cuts):
    (split / "recording.000000.tar").unlink()


def bend_no_cuts_file(split, cuts):
    (split / "cuts.000000.jsonl.gz").unlink()


def bend_compressed_data(split, cuts):
    path = split / CUTS
    data = bytearray(path.read_bytes())
    at = data.index(b"\0", 10) + 1  # behind the header, which ends in the name
    data[at : at + 8] = b"\xff" * 8  # no block of deflate begins so
    path.write_bytes(bytes(data))


def bend_truncated_member(split, cuts):
    path = split / "recording.000000.tar"
    path.write_bytes(path.read_bytes()[:800])


def bend_truncated_between_members(split, cuts):
    path = split / "recording.000000.tar"
    with tarfile.open(path) as tar:
        end = tar.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[:end])


def bend_truncated_header(split, cuts):
    path = split / "recording.000000.tar"
    with tarfile.open(path) as tar:
        end = tar.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[: end + 100])


def bend_empty_tar_file(split, cuts):
    (split / "recording.000000.tar").write_bytes(b"")


def bend_damaged_header(split, cuts):
    path = split / "recording.000000.tar"
    data = bytearray(path.read_bytes())
    data[0] ^= 0x01
    path.write_bytes(bytes(data))


def bend_zstd_tar(split, cuts):
    path = split / "recording.000000.tar"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + path.read_bytes())


def bend_fewer_recordings(split, cuts):
    members = members_of(cuts[0])
    write_tar(split / "recording.000000.tar", members)


def bend_more_recordings(split, cuts):
    members = [m for cut in [*cuts, make_cut("zz")] for m in members_of(cut)]
    write_tar(split / "recording.000000.tar", members)


def bend_other_order(split, cuts):
    members = [m for cut in reversed(cuts) for m in members_of(cut)]
    write_tar(split / "recording.000000.tar", members)


def bend_audio_without_manifest(split, cuts):
    members = [members_of(cut)[0] for cut in cuts]
    write_tar(split / "recording.000000.tar", members)


def bend_manifest_not_json(split, cuts):
    members = [(members_of(cuts[0])[0]), ("a1.json", b"{")]
    write_tar(split / "recording.000000.tar", members)


def bend_empty_audio(split, cuts):
    write_tar(split / "recording.000000.tar", members_of(cuts[0], b""))


def bend_other_length(split, cuts):
    cuts[0]["recording"]["num_samples"] = 1700
    write_cuts(split / "cuts.000000.jsonl.gz", cuts)


def bend_other_duration(split, cuts):
    cuts[0]["duration"] = 0.2
    write_cuts(split / "cuts.000000.jsonl.gz", cuts)


def bend_part_of_recording(split, cuts):
    cuts[0]["start"] = 0.01
    write_cuts(split / "cuts.000000.jsonl.gz", cuts)


def bend_two_channels(split, cuts):
    cuts[0]["recording"]["channel_ids"] = [0, 1]
    write_shard(split, cuts)


def bend_unknown_language(split, cuts):
    cuts[0]["supervisions"][0]["language"] = "x9 y9"
    write_shard(split, cuts)


def bend_no_language(split, cuts):
    del cuts[0]["supervisions"][0]["language"]
    write_shard(split, cuts)


def bend_zero_rate(split, cuts):
    cuts[0]["recording"]["sampling_rate"] = 0
    write_shard(split, cuts)


def bend_half_samples(split, cuts):
    cuts[0]["recording"]["num_samples"] = 1600.5
    write_shard(split, cuts)


def bend_no_samples(split, cuts):
    cuts[0] = make_cut("a1", n_samples=0)
    write_cuts(split / "cuts.000000.jsonl.gz", cuts)
    members = [m for cut in cuts for m in members_of(cut, encode())]
    write_tar(split / "recording.000000.tar", members)


def bend_id_twice(split, cuts):
    write_shard(split, [cuts[0], cuts[0]])


def bend_path_upwards(split, cuts):
    write_tar(split / "recording.000000.tar", [("../x.flac", b"x")])


def bend_absolute_path(split, cuts):
    write_tar(split / "recording.000000.tar", [("/etc/x.flac", b"x")])


def bend_link(split, cuts):
    with tarfile.open(split / "recording.000000.tar", "w") as tar:
        info = tarfile.TarInfo("a1.flac")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)


CUTS, TAR = "cuts.000000.jsonl.gz", "recording.000000.tar"


@pytest.mark.parametrize(
    ("bend", "file", "fault"),
    [
        (bend_not_json, CUTS + ":3", "not a line of JSON"),
        (bend_json_list, CUTS + ":3", "found a JSON list"),
        (bend_not_utf8, CUTS + ":3", "not a line of JSON"),
        (bend_half_surrogate, CUTS + ":3", "not a line of JSON"),
        (bend_truncated_gzip, CUTS, "cut off or damaged"),
        (bend_damaged_gzip, CUTS, "cut off or damaged"),
        (bend_compressed_data, CUTS, "cut off or damaged"),
        (bend_no_recording_file, CUTS, "without its recording.000000.tar"),
        (bend_no_cuts_file, TAR, "without its cuts.000000.jsonl.gz"),
        (bend_truncated_member, TAR, "cut off inside member 'a1.flac'"),
        (bend_truncated_between_members, TAR, "cut off at byte"),
        (bend_truncated_header, TAR, "cut off at byte"),
        (bend_empty_tar_file, TAR, "cut off at byte 0"),
        (bend_damaged_header, TAR, "damaged or not a tar file"),
        (bend_zstd_tar, TAR, "compressed with zstd"),
        (bend_fewer_recordings, CUTS + ":2", "cut 'a2' has no audio"),
        (bend_more_recordings, TAR, "'zz.flac' comes after the last cut"),
        (bend_other_order, CUTS + ":1", "cut 'a1' stands beside member 'a2.flac'"),
        (bend_audio_without_manifest, TAR, "followed by 'a2.flac'"),
        (bend_manifest_not_json, TAR, "member 'a1.json': not a line of JSON"),
        (bend_empty_audio, TAR, "member 'a1.flac' is empty"),
        (bend_other_length, CUTS + ":1", "disagrees with its recording"),
        (bend_other_duration, CUTS + ":1", "disagrees with its recording"),
        (bend_part_of_recording, CUTS + ":1", "disagrees with its recording"),
        (bend_two_channels, CUTS + ":1", "has 2 channels"),
        (bend_unknown_language, CUTS + ":1", "unknown language 'x9 y9'"),
        (bend_no_language, CUTS + ":1", "KeyError: 'language'"),
        (bend_zero_rate, CUTS + ":1", "ZeroDivisionError"),
        (bend_half_samples, CUTS + ":1", "TypeError"),
        (bend_no_samples, CUTS + ":1", "n_samples 0"),
        (bend_id_twice, CUTS + ":2", "given twice, first on line 1"),
        (bend_path_upwards, TAR, "'../x.flac' leads out of the folder"),
        (bend_absolute_path, TAR, "'/etc/x.flac' leads out of the folder"),
        (bend_link, TAR, "'a1.flac' is a symbolic link"),
    ],
)
def test_bad_shard_is_named(tmp_path, bend, file, fault):
    split = tmp_path / "cv_shar" / "dev"
    cuts = [make_cut("a1"), make_cut("a2")]
    write_shard(split, cuts)
    bend(split, cuts)
    with pytest.raises(ShardError) as err:
        read(tmp_path)
    assert file in str(err.value)
    assert fault in str(err.value)
    assert "\n" not in str(err.value)


def test_find_shards_says_what_is_wrong(tmp_path):
    with pytest.raises(ShardError, match="no such folder; run stage 0"):
        find_shards(tmp_path / "nowhere")
    with pytest.raises(ShardError, match="run stage 0"):
        find_shards(tmp_path)
    write_shard(tmp_path / "madeup_shar" / "train", [make_cut()])
    with pytest.raises(ShardError, match="no folder tamil_shar; found madeup_shar"):
        find_shards(tmp_path, ["tamil"])


def test_corpus_that_is_not_in_the_table_is_used_by_its_name(tmp_path, caplog):
    for split in ("train", "dev", "test"):
        write_shard(tmp_path / "my_own_shar" / split, [make_cut(language="fr")])
    assert [(s.corpus, s.split) for s in find_shards(tmp_path)] == [
        ("my_own", split) for split in ("dev", "test", "train")
    ]
    assert len(caplog.records) == 1 and "used as 'my_own'" in caplog.text
    assert [u.lang for u in read(tmp_path)[:1]] == ["fra"]


def test_corpora_can_be_left_out(tmp_path):
    for corpus in ("cv", "tamil"):
        write_shard(tmp_path / f"{corpus}_shar" / "train", [make_cut()])
    shards = find_shards(tmp_path, skip_corpora=["cv"])
    assert [shard.corpus for shard in shards] == ["tamil"]
    with pytest.raises(ShardError, match="no folder cvv_shar; found cv_shar"):
        find_shards(tmp_path, skip_corpora=["cvv"])


@pytest.mark.parametrize("name", ["doreco_mine", "mein Korpus", "ütz", "-x"])
def test_name_that_misleads_is_refused(tmp_path, name):
    write_shard(tmp_path / f"{name}_shar" / "train", [make_cut()])
    with pytest.raises(ShardError, match="cannot name a corpus"):
        find_shards(tmp_path)


# --- lhotse's own writer and reader


@pytest.fixture(scope="module")
def lhotse_split(tmp_path_factory):
    """Four cuts, the second without audio, the last with an id too long for ustar."""
    lhotse = pytest.importorskip("lhotse")
    from lhotse.shar import SharWriter

    folder = tmp_path_factory.mktemp("lhotse")
    split = folder / "cv_shar" / "dev"
    split.mkdir(parents=True)
    with SharWriter(split, {"recording": "flac"}, shard_size=3) as writer:
        for i, cut_id in enumerate(["a", "b", "ñ c", "d" * 120]):
            n_samples = 1600 + i
            recording = lhotse.Recording(
                id=cut_id,
                sources=[lhotse.AudioSource("memory", [0], encode(n_samples))],
                sampling_rate=16_000,
                num_samples=n_samples,
                duration=n_samples / 16_000,
            )
            supervision = lhotse.SupervisionSegment(
                id=cut_id,
                recording_id=cut_id,
                start=0,
                duration=recording.duration,
                language="de",
                speaker="s",
                custom={"orthographic": "null", "original": "n ʊ l", "phones": "nʊl"},
            )
            cut = lhotse.MonoCut(
                id=cut_id,
                start=0,
                duration=recording.duration,
                channel=0,
                supervisions=[supervision],
                recording=None if cut_id == "b" else recording,
            )
            writer.write(cut)
    return split


def check_lhotse_utterances(utterances, drops):
    assert [u.utt_id for u in utterances] == [
        "cv_a_deu",
        "cv_@C3@B1@20c_deu",
        f"cv_{'d' * 120}_deu",
    ]
    assert [u.n_samples for u in utterances] == [1600, 1602, 1603]
    assert drops == {"no_audio": 1}
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(1603) / 16_000)
    # 16-bit samples, rounded once by each writer
    assert np.abs(read_audio(utterances[-1].audio) - tone).max() < 2e-4


def test_reads_what_lhotse_wrote(lhotse_split):
    drops = Counter()
    check_lhotse_utterances(read(lhotse_split.parent.parent, drops), drops)


def test_lhotse_reads_what_the_builder_wrote(tmp_path, split):
    pytest.importorskip("lhotse")
    from lhotse.shar.readers.lazy import LazySharIterator

    cuts = [make_cut(f"c{i}", n_samples=1600 + i) for i in range(3)]
    write_shard(split, cuts)
    theirs = list(LazySharIterator(in_dir=str(split)))
    ours = read(tmp_path)
    assert [cut.id for cut in theirs] == ["c0", "c1", "c2"]
    for cut, utterance in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(cut.load_audio()[0], read_audio(utterance.audio))


def test_tar_headers_of_all_dialects(tmp_path):
    """Names beyond 100 bytes and folders, as ustar, GNU and pax spell them."""
    from powsm.corpora.tarindex import TarIndex

    names = ["short.flac", f"{'d' * 90}/{'e' * 60}.flac", "ünï.flac"]
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{dialect}.tar"
        about = {"comment": "of all members"} if dialect == tarfile.PAX_FORMAT else None
        with tarfile.open(path, "w", format=dialect, pax_headers=about) as tar:
            folder = tarfile.TarInfo("d" * 90)
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
            for size, name in enumerate(names):
                info = tarfile.TarInfo(name)
                info.size = size * 511
                tar.addfile(info, io.BytesIO(bytes(info.size)))
        with tarfile.open(path) as tar, TarIndex(path) as index:
            expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
            assert list(index) == expected
            assert [m[0] for m in expected] == names


def test_header_that_begins_with_zeros_is_not_the_end(tmp_path):
    """All that comes after it would be lost in silence."""
    from powsm.corpora.tarindex import TarError, TarIndex

    path = tmp_path / "a.tar"
    write_tar(path, [("a.flac", b"x"), ("b.flac", b"y")])
    data = bytearray(path.read_bytes())
    data[1024:1026] = bytes(2)
    path.write_bytes(bytes(data))
    with TarIndex(path) as index, pytest.raises(TarError, match="at byte 1,024"):
        list(index)


def test_sparse_size_beyond_8_gib_is_read(tmp_path):
    """GNU writes such sizes in binary, pax as text of their own."""
    from powsm.corpora.tarindex import TarIndex

    size = 9 << 30
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{dialect}.tar"
        info = tarfile.TarInfo("big.flac")
        info.size = size
        header = info.tobuf(format=dialect)
        with open(path, "wb") as file:
            file.write(header)
            file.truncate(len(header) + size + 1024)
        with TarIndex(path) as index:
            assert list(index) == [("big.flac", len(header), size)]


def test_manifest_json_is_valid(tmp_path):
    """The builder's cuts are what lhotse writes: it can make objects of them."""
    pytest.importorskip("lhotse")
    from lhotse.serialization import deserialize_item

    cut = deserialize_item(json.loads(json.dumps(make_cut())))
    assert cut.supervisions[0].custom["orthographic"] == "Hi there"


def test_lhotse_and_we_read_generated_corpora(tmp_path):
    """What the benchmark prepares has lhotse's layout, with silence for audio."""
    pytest.importorskip("lhotse")
    from lhotse.shar.readers.lazy import LazySharIterator

    spec = importlib.util.spec_from_file_location("generated_shar", GENERATOR)
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    n_audio_bytes = generator.write_corpora(tmp_path, 330)  # three shards
    drops = Counter()
    ours = read(tmp_path, drops)
    assert len(ours) + drops.total() == 330
    # cut 11 has no audio, cuts 7 and 207 have no IPA
    assert (drops["no_audio"], drops["no_ipa"]) == (1, 2)
    # all languages but Interlingua
    assert {utterance.lang for utterance in ours} == set(LANGUAGES) - {"ina"}
    assert n_audio_bytes > 10 << 20
    shards = find_shards(tmp_path)
    on_disk = sum(shard.recording.stat().st_blocks * 512 for shard in shards)
    assert on_disk < n_audio_bytes / 10
    split = shards[0].cuts.parent
    theirs = list(LazySharIterator(in_dir=str(split)))
    assert len(theirs) == 110
    with tarfile.open(shards[0].recording) as tar:
        sizes = {m.name: (m.offset_data, m.size) for m in tar}
    for utterance in ours[:50]:
        _, offset, size = utterance.audio.rsplit(":", 2)
        assert (int(offset), int(size)) in sizes.values()
