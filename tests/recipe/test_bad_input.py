"""Bad input ends a stage with one clear line, a status, and nothing half-written.

Every script is called as its stage calls it: in this process where that saves loading
torch, and at least once each as a program of its own, from run.sh where it can be.
"""

import contextlib
import gzip
import io
import json
import logging
import os
import resource
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from powsm_command import run_verb
from shar_builder import (
    make_cut,
    members_of,
    write_cuts,
    write_shard,
    write_tar,
)
from tiny_model import SETTINGS, make_experiment

from powsm import audio
from powsm.audio import SAMPLE_RATE
from powsm.prepare.index import build_index

pytestmark = pytest.mark.recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs2/mini_ipapack/s2t1"
CORPUS = "asterisk_shar"  # a corpus that is in no table is refused
SECOND = SAMPLE_RATE
MAIN = "powsm.cli.main"

# language of the cuts, orthography, IPA
SPOKEN = (
    ("en", "The dog saw two boats", "ðə dɔɡ sɔ tu boʊts"),
    ("it", "Il cane vede due barche", "il kane vede due barke"),
    ("en", "A green tree near a boat", "ə ɡɹin tɹi nɪɹ ə boʊt"),
    ("it", "Un albero sotto il cane", "un albero sotto il kane"),
)


@dataclass(frozen=True)
class Ended:
    """How a script ended; `said` is what it printed as its last word."""

    status: int
    said: str
    stderr: str


def call(program: str, *options: object) -> Ended:
    """Run a program in this process; an exception it does not catch comes out."""
    before = sys.argv
    sys.argv = [program, *map(str, options)]
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            if program.endswith(".py"):
                runpy.run_path(str(ROOT / "local" / program), run_name="__main__")
            else:
                run_verb(program, *options)
    except SystemExit as end:
        if isinstance(end.code, str):
            return Ended(1, end.code, stderr.getvalue())
        lines = stderr.getvalue().splitlines() or [""]
        return Ended(end.code or 0, lines[-1], stderr.getvalue())
    finally:
        sys.argv = before
    return Ended(0, "", stderr.getvalue())


def launch(*command: object, cwd: Path = RECIPE, **kwargs) -> Ended:
    """Run a program as a user does."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **kwargs,
    )
    lines = [line for line in done.stderr.splitlines() if ": error: " in line]
    return Ended(done.returncode, "\n".join(lines), done.stderr)


def run_sh(root: Path, stage: int, *options: object) -> Ended:
    return launch(
        *("./run.sh", "--stage", stage, "--stop_stage", stage, "--nj", 1),
        *("--downloads", root / "downloads", "--data", root / "data"),
        *("--dump", root / "dump/raw", "--expdir", root / "exp"),
        *options,
    )


def script(name: str, *options: object, **kwargs) -> Ended:
    """Run a program of `local/`, or a verb, as a user does."""
    program = [ROOT / "local" / name] if name.endswith(".py") else ["-m", MAIN, name]
    return launch(sys.executable, *program, *options, **kwargs)


def assert_one_line(ended: Ended, *words: object) -> None:
    """It failed, and all it said of it stands on one line, with these words."""
    print(ended.said)
    assert ended.status != 0
    assert ended.said and "\n" not in ended.said, ended
    assert "Traceback" not in ended.said + ended.stderr, ended.stderr
    for word in words:
        assert str(word) in ended.said, (word, ended.said)


def seen(folder: Path) -> dict[str, bytes]:
    """What stands in a folder for the next stage: all but hidden files and folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    }


# --- a corpus, and the stages that it goes through


def cut(number: int, **changes) -> dict:
    language, text, ipa = SPOKEN[number % len(SPOKEN)]
    fields = {"language": language, "text": text, "ipa": ipa} | changes
    return make_cut(f"c{number:02d}", n_samples=SECOND, **fields)


def make_downloads(root: Path, **splits: list[dict]) -> None:
    """`downloads/asterisk_shar/{train,dev,test}`; keywords replace a split's cuts."""
    cuts = {
        "train": [cut(n) for n in range(8)],
        "dev": [cut(n) for n in range(8, 10)],
        "test": [cut(n) for n in range(10, 12)],
    }
    for split, some in (cuts | splits).items():
        write_shard(root / "downloads" / CORPUS / split, some)


def prepare_data(root: Path, *options: object) -> Ended:
    folders = ("--downloads", root / "downloads", "--data", root / "data")
    return call("prepare_data.py", *folders, *options)


def prepare_dump(root: Path, *options: object) -> Ended:
    folders = ("--data", root / "data", "--dump", root / "dump/raw")
    return call("prepare_dump.py", *folders, *options)


def prepare_tokens(root: Path, *options: object) -> Ended:
    return call(
        "tokens",
        *("--dump_set", root / "dump/raw/train", "--out", root / "data/token_list"),
        *("--nbpe", 60, "--phones", "observed", "--languages", "observed"),
        *("--time_step_s", "none", *options),
    )


def collect_stats(root: Path) -> tuple:
    return (
        "stats",
        *("--dump", root / "dump/raw/train", "--config", root / "train.yaml"),
        *("--out", root / "exp/stats"),
    )


def train(root: Path, *settings: str) -> tuple:
    return (
        "train",
        *("--config", root / "train.yaml", "--dump", root / "dump/raw"),
        *("--token_dir", root / "data/token_list/bpe_unigram60"),
        *("--exp", root / "exp/tiny", "--set", *settings),
    )


def decode(root: Path, exp: Path) -> tuple:
    return (
        "decode",
        *("--exp", exp, "--dump", root / "dump/raw", "--sets", "test_asterisk"),
        *("--profiles", ROOT / "conf/decode_ctc_greedy.yaml", "--device", "cpu"),
    )


# --- stage 1: shards


def miss_tar(split: Path) -> None:
    (split / "recording.000000.tar").unlink()


def miss_cuts(split: Path) -> None:
    (split / "cuts.000000.jsonl.gz").unlink()


def cut_off_tar(split: Path) -> None:
    path = split / "recording.000000.tar"
    path.write_bytes(path.read_bytes()[:-12_000])


def break_line(split: Path) -> None:
    path = split / "cuts.000000.jsonl.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    lines[2] = b"<html>404</html>\n"
    path.write_bytes(gzip.compress(b"".join(lines)))


def speak_klingonese(split: Path) -> None:
    write_shard(split, [cut(0), cut(1, language="q9 q9")])


def repeat_id(split: Path) -> None:
    write_shard(split, [cut(0), cut(1), cut(0)])


def repeat_id_in_other_shard(split: Path) -> None:
    write_shard(split, [cut(0)], "000001")


def name_two_channels(split: Path) -> None:
    stereo = cut(0)
    stereo["recording"]["channel_ids"] = [0, 1]
    write_shard(split, [stereo])


def leave_nothing(split: Path) -> None:
    write_shard(split, [cut(0, ipa=" ", phones="")])


CUTS, TAR = "train/cuts.000000.jsonl.gz", "train/recording.000000.tar"


@pytest.mark.parametrize(
    ("bend", "words"),
    [
        (miss_tar, (CUTS, "without its recording.000000.tar", "fetch")),
        (miss_cuts, (TAR, "without its cuts.000000.jsonl.gz", "fetch")),
        (cut_off_tar, (TAR, "cut off", "fetch")),
        (break_line, (f"{CUTS}:3", "not a line of JSON", "fetch")),
        (speak_klingonese, (f"{CUTS}:2", "'q9 q9'", "'c01'", "powsm")),
        (repeat_id, (f"{CUTS}:3", "asterisk_c00_eng", "line 1", "must differ")),
        (repeat_id_in_other_shard, ("train", "asterisk_c00_eng", "000000", "000001")),
        (name_two_channels, (f"{CUTS}:1", "'c00'", "2 channels", "expected 1")),
        (leave_nothing, ("train", "no utterance left", "no_ipa=1")),
    ],
)
def test_stage_1_names_a_bad_shard_and_makes_no_set(tmp_path, bend, words):
    make_downloads(tmp_path)
    split = tmp_path / "downloads" / CORPUS / "train"
    bend(split)
    assert_one_line(prepare_data(tmp_path), *words)
    assert "train" not in {name.split("/")[0] for name in seen(tmp_path / "data")}


def test_stage_1_as_run_sh_calls_it_goes_on_once_the_shard_is_mended(tmp_path):
    make_downloads(tmp_path)
    split = tmp_path / "downloads" / CORPUS / "train"
    whole = (split / "recording.000000.tar").read_bytes()
    cut_off_tar(split)
    assert_one_line(run_sh(tmp_path, 1), TAR, "cut off")
    assert seen(tmp_path / "data") == {}
    (split / "recording.000000.tar").write_bytes(whole)
    assert run_sh(tmp_path, 1).status == 0
    utt2lang = (tmp_path / "data/train/utt2lang").read_text().splitlines()
    assert len(utt2lang) == 8 and utt2lang[1] == "asterisk_c01_ita ita"


def test_downloads_that_are_not_there_are_named(tmp_path):
    ended = prepare_data(tmp_path)
    assert_one_line(ended, tmp_path / "downloads", "no such folder", "stage 0")
    ended = run_sh(tmp_path, 1)
    assert_one_line(ended, "stage 1 needs", tmp_path / "downloads", "--dry_run")


# --- text and IPA, from the cuts to the dump


def dumped(root: Path, name: str, dset: str = "train") -> dict[str, str]:
    lines = (root / "dump/raw" / dset / name).read_text("utf-8").splitlines()
    return {key: value for key, _, value in (line.partition(" ") for line in lines)}


def test_words_that_look_like_nothing_stay_words_and_nothing_stays_nothing(tmp_path):
    texts = ["null", "NA", "None", "nan", "", " \t ", "नमस्ते दुनिया", "தமிழ் மொழி"]
    cuts = [
        make_cut(f"c{n:02d}", n_samples=SECOND, text=text, language=language)
        for n, (text, language) in enumerate(
            zip(texts, ["en"] * 6 + ["hi", "ta"], strict=True)
        )
    ]
    make_downloads(tmp_path, train=cuts)
    assert prepare_data(tmp_path).status == 0
    text = (tmp_path / "data/train/text").read_text("utf-8").splitlines()
    assert text[:5] == [
        *("asterisk_c00_eng null", "asterisk_c01_eng NA", "asterisk_c02_eng None"),
        *("asterisk_c03_eng nan", "asterisk_c04_eng"),
    ]
    assert text[5] == "asterisk_c05_eng"
    assert prepare_dump(tmp_path).status == 0
    targets = dumped(tmp_path, "text")
    said = {
        key.removeprefix("asterisk_"): value.partition("<notimestamps>")[2]
        for key, value in targets.items()
        if key.endswith("_asr")
    }
    assert said == {
        "c00_eng_asr": " null",
        "c01_eng_asr": " na",
        "c02_eng_asr": " none",
        "c03_eng_asr": " nan",
        "c06_hin_asr": " नमस्ते दुनिया",  # vowel signs and virama are part of the word
        "c07_tam_asr": " தமிழ் மொழி",
    }
    assert {key for key in targets if "c04" in key or "c05" in key} == {
        "asterisk_c04_eng_pr",
        "asterisk_c05_eng_pr",
    }


# Worked out by hand with PanPhon's table; the first phone of an English word has its
# voicing and aspiration spelled out, as the published recipe does.
SPELLINGS = (
    ("t̪͡sa", "it", "/t͡s//a/"),  # no such affricate: the mark goes before the tie
    ("bɝd", "it", "/b//ɜ˞//d/"),
    ("k'a", "it", "/kʼ//a/"),
    ("a:", "it", "/aː/"),
    ("!a", "it", "/ǃ//a/"),
    ("ga", "it", "/ɡ//a/"),
    ("ʧa", "it", "/t͡ʃ//a/"),
    ("\u0129", "it", "/i\u0303/"),  # ĩ in one character and in two
    ("\u00e7a", "it", "/c\u0327//a/"),
    ("pɔsəm", "en", "/pʰ//ɔ//s//ə//m/"),  # the first word too
)


def test_ipa_of_every_spelling_reaches_the_dump(tmp_path):
    cuts = [
        cut(n, ipa=ipa, language=language)
        for n, (ipa, language, _) in enumerate(SPELLINGS)
    ]
    make_downloads(tmp_path, train=cuts)
    assert prepare_data(tmp_path).status == 0
    assert prepare_dump(tmp_path, "--sets", "train").status == 0
    targets = [v for k, v in dumped(tmp_path, "text").items() if k.endswith("_pr")]
    got = [target.partition("<notimestamps> ")[2] for target in targets]
    assert got == [expected for _, _, expected in SPELLINGS]


def test_data_root_may_be_relative_and_have_other_things_in_it(tmp_path, monkeypatch):
    make_downloads(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "downloads/README.md").write_text("notes")
    (tmp_path / "downloads/.cache").mkdir()
    (tmp_path / "downloads" / CORPUS / "manifest.json").write_text("{}")
    (tmp_path / "downloads" / CORPUS / "train/notes.txt").write_text("notes")
    monkeypatch.chdir(tmp_path)
    ended = call("prepare_data.py", "--downloads", "./downloads", "--data", "data")
    assert ended.status == 0, ended
    first = (tmp_path / "data/train/wav.scp").read_text().splitlines()[0]
    location = first.partition(" ")[2].split(":")[0]
    assert (tmp_path / location).samefile(
        tmp_path / "downloads" / CORPUS / "train/recording.000000.tar"
    )


# --- stages 2, 4 and 5


def test_unknown_symbols_are_counted_and_too_many_stop_stage_4(tmp_path):
    make_downloads(tmp_path)
    assert prepare_data(tmp_path).status == 0
    assert prepare_dump(tmp_path).status == 0
    before = seen(tmp_path / "dump")
    make_downloads(tmp_path, train=[cut(0), cut(1, ipa="kane 中中 ba中a日")])
    assert prepare_data(tmp_path).status == 0
    # four of 14 + 11 characters, spaces not counted
    ended = run_sh(tmp_path, 4)
    assert_one_line(
        ended,
        tmp_path / "data/train/text.ipa",
        "16.00%",
        "at most 1.00%",
        "--max_unknown_rate",
        "'中' (U+4E2D) 3 times, '日' (U+65E5) 1 times",
    )
    assert seen(tmp_path / "dump") == before
    assert prepare_dump(tmp_path, "--max_unknown_rate", 0.2).status == 0
    drops = json.loads((tmp_path / "dump/raw/train/drops.json").read_text())
    assert drops["unknown"]["n_unknown"] == 4


def test_stage_4_with_no_utterance_left_counts_why(tmp_path):
    make_downloads(tmp_path)
    assert prepare_data(tmp_path).status == 0
    ended = prepare_dump(tmp_path, "--min_duration", 1.5)
    assert_one_line(ended, tmp_path / "data/dev", "no utterance left", "too_short=2")
    assert seen(tmp_path / "dump") == {}


def test_data_changed_by_hand_is_named_by_stages_2_and_4(tmp_path):
    make_downloads(tmp_path)
    assert prepare_data(tmp_path).status == 0
    text = tmp_path / "data/train/text"
    lines = text.read_text().splitlines(keepends=True)
    text.write_text("".join(lines[:2] + lines[3:]))
    words = (text, "asterisk_c02_eng")
    ended = script("data_report.py", "--data", tmp_path / "data")
    assert_one_line(ended, f"{text}:3", *words)
    assert not (tmp_path / "data/report").exists()
    assert_one_line(prepare_dump(tmp_path), text, "7 lines", "has 8", "stage 1")
    assert "raw/train" not in seen(tmp_path / "dump")


def test_vocabulary_that_cannot_be_says_what_can(tmp_path):
    make_downloads(tmp_path)
    assert prepare_data(tmp_path).status == 0
    assert prepare_dump(tmp_path).status == 0
    assert_one_line(prepare_tokens(tmp_path, "--nbpe", 9), "--nbpe 9", "at least")
    assert_one_line(prepare_tokens(tmp_path, "--nbpe", 9000), "--nbpe 9000", "at most")
    assert not list((tmp_path / "data").rglob("bpe.model"))
    textless = [cut(n, text="") for n in range(3)]
    make_downloads(tmp_path, train=textless)
    assert prepare_data(tmp_path).status == 0
    assert prepare_dump(tmp_path).status == 0
    ended = script(
        *("tokens", "--dump_set", tmp_path / "dump/raw/train"),
        *("--out", tmp_path / "data/token_list", "--nbpe", 60),
    )
    assert_one_line(ended, tmp_path / "dump/raw/train/text", "no example of asr")


# --- stages 10 to 12: audio


def flac(n_channels: int = 1, rate: int = SAMPLE_RATE) -> bytes:
    """A second of quiet noise."""
    noise = np.random.default_rng(0).normal(0, 0.01, (rate, n_channels))
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format="FLAC")
    return file.getvalue()


def swap_audio(root: Path, data: bytes, split: str = "train") -> None:
    """Give the second utterance of a split other bytes than its manifest promises."""
    split_dir = root / "downloads" / CORPUS / split
    path = split_dir / "cuts.000000.jsonl.gz"
    cuts = [json.loads(line) for line in gzip.open(path)]
    members = [
        m for n, c in enumerate(cuts) for m in members_of(c, (None, data)[n == 1])
    ]
    write_tar(split_dir / "recording.000000.tar", members)


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Two small sets with tokens, settings and a model of random weights."""
    root = tmp_path_factory.mktemp("ready")
    make_downloads(root)
    for stage in (prepare_data, prepare_dump, prepare_tokens):
        ended = stage(root)
        assert ended.status == 0, ended
    settings = SETTINGS | {
        "max_epoch": 1,
        "num_iters_per_epoch": 3,
        "batch_conf": {"batch_seconds": 3, "update_batches": 1},
    }
    (root / "train.yaml").write_text(yaml.safe_dump(settings))
    make_experiment(root, root / "data/token_list/bpe_unigram60")
    return root


@pytest.fixture
def spoiled(ready, tmp_path):
    """A function that makes `ready` anew with other audio in one utterance."""

    def spoil(data: bytes, split: str = "train") -> Path:
        make_downloads(tmp_path)
        swap_audio(tmp_path, data, split)
        assert prepare_data(tmp_path).status == 0  # decodes nothing
        assert prepare_dump(tmp_path).status == 0
        shutil.copytree(ready / "data/token_list", tmp_path / "data/token_list")
        shutil.copytree(ready / "exp", tmp_path / "exp")
        shutil.copy(ready / "train.yaml", tmp_path)
        return tmp_path

    return spoil


UTTERANCE = "asterisk_c01_ita"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>404</html>", ("16 bytes do not decode as audio", "FLAC, WAV")),
        (flac(n_channels=2), ("2 channels, expected 1", "mix or split")),
    ],
)
def test_bad_audio_is_named_by_stage_10(spoiled, data, words):
    root = spoiled(data)
    ended = call(*collect_stats(root))
    assert_one_line(ended, root / "dump/raw/train", UTTERANCE, TAR, *words)
    assert not list((root / "exp/stats").rglob("*.npz"))


def test_shard_that_vanished_after_stage_1_is_named_by_stage_10(spoiled):
    root = spoiled(flac())
    (root / "downloads" / CORPUS / TAR).unlink()
    ended = script(*collect_stats(root))
    assert_one_line(ended, "asterisk_c00_eng", TAR, "No such file")
    assert not list((root / "exp/stats").rglob("*.npz"))


def test_bad_audio_is_named_by_stage_11_from_a_loading_process(spoiled):
    root = spoiled(b"<html>404</html>")
    ended = script(*train(root, "num_workers=1"))
    assert_one_line(ended, UTTERANCE, TAR, "16 bytes do not decode as audio")
    assert not list((root / "exp/tiny").glob("*.pth"))


def test_bad_audio_of_dev_is_named_by_stage_11(spoiled):
    root = spoiled(flac(n_channels=2), "dev")
    ended = call(*train(root))
    assert_one_line(ended, "dump/raw/dev", "asterisk_c09_ita", "2 channels, expected 1")


def test_bad_audio_of_a_test_set_stops_stage_12_when_the_rest_is_decoded(spoiled):
    """A test set of thousands is not lost for one, and nobody overlooks it."""
    root = spoiled(b"<html>404</html>", "test")
    ended = script(*decode(root, root / "exp"))
    assert ended.status == 1 and "Traceback" not in ended.stderr
    lines = ended.stderr.splitlines()
    assert lines[-1].startswith("powsm decode: error: 1 recordings could not be read")
    (line,) = [line for line in lines if "do not decode" in line]
    assert "asterisk_c11_ita" in line and "test/recording.000000.tar" in line
    (hyp,) = (root / "exp").glob("*/test_asterisk/pr_ctc/hyp.jsonl")
    rows = [json.loads(line) for line in hyp.read_text().splitlines()]
    assert ["error" in row for row in rows] == [False, True]
    again = call(*decode(root, root / "exp"), "--skip_bad_audio")
    assert again.status == 0


def test_audio_of_another_rate_is_resampled_and_said(tmp_path, ready, caplog):
    make_downloads(tmp_path)
    slow = cut(1)
    manifest = {"sampling_rate": 8000, "num_samples": 8000}
    slow["recording"] |= manifest
    split = tmp_path / "downloads" / CORPUS / "train"
    write_cuts(split / "cuts.000000.jsonl.gz", [cut(0), slow])
    members = [*members_of(cut(0)), *members_of(slow, flac(rate=8000))]
    write_tar(split / "recording.000000.tar", members)
    assert prepare_data(tmp_path).status == 0
    assert prepare_dump(tmp_path).status == 0
    assert set(dumped(tmp_path, "utt2num_samples").values()) == {"16000"}
    shutil.copy(ready / "train.yaml", tmp_path)
    audio._announced_rates.clear()
    with caplog.at_level(logging.WARNING):
        assert call(*collect_stats(tmp_path)).status == 0
    (line,) = [r.getMessage() for r in caplog.records if "8000 Hz" in r.getMessage()]
    assert TAR in line and "resampled to 16000 Hz" in line


# --- a full disk


@contextlib.contextmanager
def full_disk(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond `n_bytes`, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


FULL = "File too large"  # what the system says of a limit; "No space left" of a disk


def test_full_disk_in_the_stages_without_torch(tmp_path):
    make_downloads(tmp_path)
    for stage, place, folder in (
        (prepare_data, tmp_path / "data/.parts", "data"),
        (prepare_dump, tmp_path / "dump/raw/dev", "dump"),
        (prepare_tokens, "bpe.model", "data/token_list"),
    ):
        with full_disk(300):
            ended = stage(tmp_path)
        assert_one_line(ended, FULL, place)
        assert seen(tmp_path / folder) == {}
        assert stage(tmp_path).status == 0


def test_full_disk_in_stages_10_and_11(spoiled):
    root = spoiled(flac())
    for name in ("train", "dev"):  # the index is there; settings and weights do not fit
        build_index(root / "dump/raw" / name)
    with full_disk(200):
        ended = call(*collect_stats(root))
    assert_one_line(ended, FULL, root / "exp/stats/config.yaml")
    assert seen(root / "exp/stats") == {}
    with full_disk(40_000):
        ended = call(*train(root))
    assert_one_line(ended, FULL, root / "exp/tiny")
    assert not list((root / "exp/tiny").rglob("*epoch.pth*"))


# --- settings


def test_unknown_keys_of_the_yaml_are_all_named_with_the_nearest(ready, tmp_path):
    settings = yaml.safe_load((ready / "train.yaml").read_text())
    settings["max_epochs"] = settings.pop("max_epoch")
    settings["encoder_conf"] = settings["encoder_conf"] | {"num_block": 2}
    settings["batch_conf"] = {"batch_second": 3}
    settings["optim"] = "adamwx"
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    stage_10 = ("stats", "--dump", ready / "dump/raw/train", "--config")
    ended = call(*stage_10, tmp_path / "train.yaml", "--out", tmp_path / "stats")
    assert ended.status == 1
    assert ended.said.splitlines()[1:] == [
        "  unknown key 'max_epochs'; did you mean 'max_epoch'?",
        "  encoder_conf.num_block: e_branchformer does not take it; "
        "did you mean 'num_blocks'?",
        "  optim: unknown 'adamwx'; did you mean 'adamw'?",
        "  batch_conf.batch_second: unknown; did you mean 'batch_seconds'?",
    ]
    assert not (tmp_path / "stats").exists()
    ended = call(*train(ready, "num_worker=1", "optim_conf.lrr=1"))
    assert "'num_workers'" in ended.said and "'lr'" in ended.said
    profile = tmp_path / "decode_x.yaml"
    profile.write_text("decod: ctc\nsearch: {beam: 5}\n")
    command = decode(ready, ready / "exp")
    place = command.index("--profiles") + 1
    ended = call(*command[:place], profile, *command[place + 1 :])
    assert_one_line(ended, profile, "decod", "search.beam", "decode", "beam_size")
    profile.write_text("decode: [ctc\n")
    ended = call(*command[:place], profile, *command[place + 1 :])
    assert_one_line(ended, profile, "not valid YAML")


@pytest.mark.parametrize("stage", [1, 5])
def test_faults_of_settings_are_told_before_hours_of_other_stages(tmp_path, stage):
    (tmp_path / "downloads").mkdir()
    ended = launch(
        *("./run.sh", "--stage", stage, "--stop_stage", 11, "--set", "max_epcoh=3"),
        *("--downloads", tmp_path / "downloads", "--data", tmp_path / "data"),
        *("--dump", tmp_path / "dump/raw", "--expdir", tmp_path / "exp"),
    )
    assert ended.status != 0 and "max_epcoh" in ended.stderr
    assert "did you mean 'max_epoch'?" in ended.stderr
    assert f"stage {stage}:" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


def test_unknown_options_of_run_sh_are_all_named_with_the_nearest(tmp_path):
    ended = launch("./run.sh", "--stag", 1, "--nbp", 90, "--nj", "two")
    assert ended.status == 2
    assert ended.stderr.splitlines() == [
        "s2t.sh: unknown option --stag, did you mean --stage?",
        "s2t.sh: unknown option --nbp, did you mean --nbpe?",
        "s2t.sh: --nj is an integer, got 'two'",
        "s2t.sh: --help lists every option",
    ]
