"""Stage 4 end to end: the exact files, determinism, and nothing half-written."""

import errno
import json
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datadir_builder import make_data_dir

from powsm.files import chunks
from powsm.files.datadir import EXAMPLE_FILES, DataDirError, validate
from powsm.phones.unknown import UnknownSymbolsError
from powsm.prepare.dump import DONE_FILE, Settings, prepare_set
from powsm.prepare.filters import Limits
from powsm.prepare.index import build_index
from powsm.prepare.judge import corpus_of
from powsm.tasks import PUBLISHED_TASKS

SCRIPT = Path(__file__).parents[2] / "local" / "prepare_dump.py"
SECOND = 16_000


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.fixture
def small(tmp_path):
    rows = {
        "asterisk_a_eng": {"text": "Possum, don’t!", "ipa": "pʰɔːsəm dənt"},
        "asterisk_b_fra": {"text": "", "ipa": "sa", "speaker": "spk2"},
        "asterisk_c_spa": {"n_samples": "7999"},
        "asterisk_d_spa": {"n_samples": "320001"},
        "asterisk_e_spa": {"ipa": "ˈ . ‿"},
        "asterisk_f_ina": {},
    }
    return make_data_dir(tmp_path / "data" / "train", rows)


def test_stage_4_leaves_the_index_that_training_reads(small, tmp_path, monkeypatch):
    """So that no rank waits for one."""
    arguments = ["--data", tmp_path / "data", "--dump", tmp_path / "dump"]
    monkeypatch.setattr(sys, "argv", ["prepare_dump.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    record = tmp_path / "dump/train/.index/stamp.json"
    before = record.stat()
    assert build_index(tmp_path / "dump/train") == record.parent
    assert record.stat() == before, "it was current"
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert record.stat() == before, "and a set that is current keeps it"


def test_sets_of_an_earlier_run_are_said(small, tmp_path, monkeypatch, caplog):
    make_data_dir(tmp_path / "data/dev", {"asterisk_g_rus": {}})
    arguments = ["--data", tmp_path / "data", "--dump", tmp_path / "dump"]
    monkeypatch.setattr(sys, "argv", ["prepare_dump.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "earlier run" not in caplog.text
    shutil.rmtree(tmp_path / "data/dev")
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert f"{tmp_path}/dump/dev: of an earlier run, not in --data now" in caplog.text


def test_files_hold_exactly_the_published_format(small, tmp_path):
    out = tmp_path / "dump" / "raw" / "train"
    outcome = prepare_set(small, out, Settings(tasks=PUBLISHED_TASKS))
    # English: no p t k b d ɡ begins a phone string without a boundary rule: pʰ stays,
    # d of the second word is devoiced, ɔː has no nasal after it, ə is never nasalised
    slashed, ctc = "/pʰ//ɔː//s//ə//m//t//ə//n//t/", "/pʰ//ɔ//s//ə//m//t//ə//n//t/"
    assert lines(out / "text") == [
        "asterisk_a_eng_asr <eng><asr><notimestamps> possum don't",
        f"asterisk_a_eng_g2p <eng><g2p><notimestamps> {slashed}",
        "asterisk_a_eng_p2g <eng><p2g><notimestamps> possum don't",
        f"asterisk_a_eng_pr <eng><pr><notimestamps> {slashed}",
        "asterisk_b_fra_pr <fra><pr><notimestamps> /s//a/",
    ]
    assert lines(out / "text.prev") == [
        "asterisk_a_eng_asr <na>",
        "asterisk_a_eng_g2p possum don't",
        f"asterisk_a_eng_p2g {slashed}",
        "asterisk_a_eng_pr <na>",
        "asterisk_b_fra_pr <na>",
    ]
    assert {line.split(" ")[1] for line in lines(out / "text.ctc")} == {ctc, "/s//a/"}
    assert lines(out / "wav.scp")[0] == "asterisk_a_eng_asr downloads/x.tar:0:1000"
    assert lines(out / "utt2speaker")[-1] == "asterisk_b_fra_pr spk2"
    assert lines(out / "spk2utt")[-1] == "asterisk_b_fra_pr asterisk_b_fra_pr"
    assert not (out / "ref.ipa").exists()
    assert outcome.counts.summary() == (
        "kept 2 of 6 (dropped_language=1 no_phones=1 too_long=1 too_short=1 "
        "kept without text: no_text=1)"
    )
    summary = validate(out, EXAMPLE_FILES)
    assert summary.n_utts == 5
    drops = json.loads((out / "drops.json").read_text())
    assert drops["examples"]["too_short"] == ["asterisk_c_spa"]
    normaliser = json.loads((out / "normaliser.json").read_text())
    assert normaliser["policy"] == "strict"


def test_simplified_labels_are_those_of_train_and_dev_alone(tmp_path):
    rows = {"cv_a_eng": {"ipa": "pɔːm"}, "cv_b_eng": {"ipa_clean": ""}}
    written = {}
    for dset in ("train", "dev", "test_cv"):
        data = make_data_dir(tmp_path / "data" / dset, rows)
        out = tmp_path / "dump" / dset
        outcome = prepare_set(data, out, Settings(policy="released", labels="clean"))
        normaliser = json.loads((out / "normaliser.json").read_text())
        written[dset] = (
            [line.partition("> ")[2] for line in lines(out / "text") if "_pr " in line],
            outcome.counts.dropped,
            normaliser.get("labels"),
        )
    clean = (["/p//ɔ/"], {"no_ipa": 1}, "clean")
    assert written["train"] == written["dev"] == clean
    # vowels before m are nasal in English
    assert written["test_cv"] == (["/p//ɔː//m/", "/p//ɔː/"], {}, None)
    assert lines(tmp_path / "dump/test_cv/ref.raw.ipa")[0] == "cv_a_eng pɔːm"
    # other labels are other sets: made anew
    assert prepare_set(tmp_path / "data/dev", tmp_path / "dump/dev", Settings())


def test_dev_and_test_sets_get_references(tmp_path):
    rows = {
        "asterisk_a_eng": {"text": "Paw", "ipa": "pɔː"},
        "doreco_b_evn": {"text": "", "ipa": "<p:> bana̰  d", "n_samples": "100"},
        "doreco_c_eng": {"text": "X", "ipa": "pa"},
    }
    data = make_data_dir(tmp_path / "data" / "test_x", rows)
    out = tmp_path / "dump" / "test_x"
    prepare_set(data, out, Settings())
    assert lines(out / "ref.ipa") == [
        "asterisk_a_eng /pʰ//ɔː/",  # what the model is taught
        "doreco_b_evn <p:> bana̰  d",  # human labels: as they are
        "doreco_c_eng pa",
    ]
    assert lines(out / "ref.raw.ipa") == [
        "asterisk_a_eng pɔː",  # as the corpus has it: the paper's references
        "doreco_b_evn <p:> bana̰  d",
        "doreco_c_eng pa",
    ]
    assert lines(out / "ref.text") == [
        "asterisk_a_eng paw",
        "doreco_b_evn",
        "doreco_c_eng x",
    ]
    # human labels get no English rules: p stays unaspirated
    texts = dict(line.split(" ", 1) for line in lines(out / "text"))
    assert texts["doreco_c_eng_pr"] == "<eng><pr><notimestamps> /p//a/"
    assert texts["doreco_b_evn_pr"].startswith("<unk><pr>")


def generated(directory, n_utts=700, seed=0):
    lottery = random.Random(seed)
    rows = {}
    for _ in range(n_utts):
        lang = lottery.choice(["eng", "deu", "tam"])
        words = [
            "".join(lottery.choices(["p", "ɔː", "t͡ʃ", "ç", "ə", "n", "ɫ"], k=4))
            for _ in range(lottery.randrange(1, 12))
        ]
        rows[f"cv_{lottery.randrange(10**9):09d}_{lang}"] = {
            "ipa": " ".join(words),
            "text": lottery.choice(["", "ein\u2028zwei", "Straße - null", "வணக்கம்"]),
            "speaker": f"s{lottery.randrange(20)}",
            "n_samples": str(lottery.randrange(4_000, 30 * SECOND)),
        }
    return make_data_dir(directory, rows)


def test_same_bytes_for_any_number_of_processes_and_chunks(tmp_path, monkeypatch):
    data = generated(tmp_path / "data" / "dev")
    prepare_set(data, tmp_path / "a" / "dev", Settings())
    plan = chunks.plan_chunks
    monkeypatch.setattr(
        "powsm.prepare.dump.plan_chunks", lambda d, files: plan(d, files, 4_000)
    )
    prepare_set(data, tmp_path / "b" / "dev", Settings(), nj=2)
    assert contents(tmp_path / "a" / "dev") == contents(tmp_path / "b" / "dev")
    validate(tmp_path / "a" / "dev", EXAMPLE_FILES)


def test_rerun_is_a_no_op_until_something_changes(small, tmp_path):
    out = tmp_path / "dump" / "train"
    assert prepare_set(small, out, Settings()) is not None
    before = contents(out)
    stamp = (out / "text").stat().st_mtime_ns
    assert prepare_set(small, out, Settings()) is None
    assert (out / "text").stat().st_mtime_ns == stamp
    assert contents(out) == before
    # other settings, other input, or a damaged output: done again
    assert prepare_set(small, out, Settings(text_policy="released")) is not None
    assert prepare_set(small, out, Settings()) is not None
    assert contents(out) == before
    (out / "text").write_text("short\n")
    assert prepare_set(small, out, Settings()) is not None
    assert contents(out) == before
    (small / "text").write_text((small / "text").read_text().replace("Possum", "Cat"))
    assert prepare_set(small, out, Settings()) is not None
    assert contents(out) != before


def test_too_many_unknown_symbols_fail_and_leave_files_alone(small, tmp_path):
    out = tmp_path / "dump" / "train"
    prepare_set(small, out, Settings())
    before = contents(out)
    ipa = (small / "text.ipa").read_text().replace(" sa", " s中中a")
    (small / "text.ipa").write_text(ipa)
    with pytest.raises(UnknownSymbolsError, match=r"'中' \(U\+4E2D\) 2 times"):
        prepare_set(small, out, Settings())
    assert contents(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["train"]
    outcome = prepare_set(small, out, Settings(max_unknown_rate=0.5))
    assert outcome.unknown.contexts["中"][0].startswith("asterisk_b_fra: s中中a")


@pytest.mark.parametrize(
    "leftover", [".train.making-a1", ".train.old-a1", ".train.preparing", ".train.old"]
)
def test_leftovers_of_a_killed_run_do_no_harm(small, tmp_path, leftover):
    clean, killed = tmp_path / "a" / "train", tmp_path / "b" / "train"
    prepare_set(small, clean, Settings())
    leftover = killed.with_name(leftover)
    leftover.mkdir(parents=True)
    (leftover / "text").write_text("half a line")
    (leftover / "text.000000").write_text("old part")
    prepare_set(small, killed, Settings())
    assert contents(killed) == contents(clean)
    assert [path.name for path in killed.parent.iterdir()] == ["train"]


@pytest.mark.parametrize("at", ["text", "text.ctc.000000", "spk2utt"])
def test_same_bytes_after_a_kill(tmp_path, at):
    """kill -9 when files are opened, when a part is written, when speakers are."""
    data, out = generated(tmp_path / "data" / "dev"), tmp_path / "dump" / "dev"
    command = [sys.executable, SCRIPT, "--data", data.parent, "--dump", out.parent]
    status = 0
    while status != -signal.SIGKILL:  # on a busy machine it may be done before
        shutil.rmtree(out, ignore_errors=True)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if list(out.parent.glob(f".dev.making-*/{at}")):
                process.kill()
            time.sleep(0.001)
        status = process.wait()
        assert status in (0, -signal.SIGKILL)
    prepare_set(data, out, Settings())
    shutil.rmtree(out / ".index", ignore_errors=True)  # of one killed at its very end
    prepare_set(data, tmp_path / "clean" / "dev", Settings())
    assert contents(out) == contents(tmp_path / "clean" / "dev")
    assert [path.name for path in out.parent.iterdir()] == ["dev"]


def test_full_disk_leaves_the_older_set(small, tmp_path, monkeypatch):
    out = tmp_path / "dump" / "train"
    prepare_set(small, out, Settings())
    before = contents(out)

    def no_space(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("powsm.prepare.dump.os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        prepare_set(small, out, Settings(text_policy="released"))
    assert contents(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["train"]


def test_set_with_nothing_left_is_an_error(small, tmp_path):
    with pytest.raises(ValueError, match="no utterance left; kept 0 of 6"):
        prepare_set(small, tmp_path / "train", Settings(limits=Limits(19.0)))
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize("name", ["utt2lang", "wav.scp"])
def test_lines_of_windows_are_refused(small, tmp_path, name):
    """A language `eng` with the rest of a line break is none: it was `<unk>`."""
    path = small / name
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(DataDirError, match=f"{name}:1: the line ends in CR LF"):
        prepare_set(small, tmp_path / "dump/train", Settings())
    assert not (tmp_path / "dump/train").exists()


def test_id_that_begins_another_id_is_refused(tmp_path):
    # sorted by example, a_eng_asr < a_eng_b_eng_asr < a_eng_g2p: no longer together
    rows = {"cv_a_eng": {}, "cv_a_eng_b_eng": {}}
    data = make_data_dir(tmp_path / "train", rows)
    with pytest.raises(DataDirError, match="begins with another id, 'cv_a_eng'"):
        prepare_set(data, tmp_path / "out", Settings())


@pytest.mark.parametrize("name", ["text", "utt2lang"])
def test_files_that_disagree_are_named(small, tmp_path, name):
    kept = lines(small / name)[:-1]
    (small / name).write_text("\n".join(kept) + "\n")
    with pytest.raises(DataDirError, match=f"{name}: 5 lines where .*wav.scp has 6"):
        prepare_set(small, tmp_path / "out", Settings())


def test_corpus_of_an_id():
    assert corpus_of("kazakh2_1_kaz") == "kazakh2"
    assert corpus_of("nowhere_1_eng") == "nowhere"


def test_subset_touches_train_only_and_is_nested(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        "powsm.prepare.dump.SUBSET_HOURS", {"10h": 0.1, "100h": 0.4, "1kh": 1e3}
    )
    kept = {}
    for dset in ("train", "dev"):
        data = generated(tmp_path / "data" / dset)
        for subset in ("10h", "100h", None):
            out = tmp_path / f"dump_{subset}" / dset
            prepare_set(data, out, Settings(subset=subset))
            kept[dset, subset] = set(lines(out / "utt2speaker"))
            record = json.loads((out / "normaliser.json").read_text())
            assert record.get("subset") == (subset if dset == "train" else None)
    assert kept["train", "10h"] < kept["train", "100h"] < kept["train", None]
    assert kept["dev", "10h"] == kept["dev", None]
    assert "to choose from" not in caplog.text
    # what is all there is must not count as a subset in a table
    prepare_set(tmp_path / "data/train", tmp_path / "all/train", Settings(subset="1kh"))
    assert "h to choose from, so --subset 1kh takes all of them" in caplog.text
    assert set(lines(tmp_path / "all/train/utt2speaker")) == kept["train", None]
    assert "subset" not in (tmp_path / "all/train/normaliser.json").read_text()


def test_limits_that_are_not_the_default_are_in_the_record_of_train(tmp_path):
    limits = Limits(max_duration_s=15.0, only_languages=frozenset({"eng", "deu"}))
    for dset, said in (
        ("train", {"max_duration": 15.0, "langs": "deu,eng"}),
        ("test_x", None),
    ):
        data = generated(tmp_path / "data" / dset)
        for name, settings in (("some", Settings(limits=limits)), ("all", Settings())):
            prepare_set(data, tmp_path / name / dset, settings)
        record, usual = (
            json.loads((tmp_path / name / dset / "normaliser.json").read_text())
            for name in ("some", "all")
        )
        assert record.get("limits") == said and "limits" not in usual


def test_script_prints_counts_and_one_line_for_an_error(small, tmp_path):
    command = [sys.executable, str(SCRIPT), "--data", str(small.parent)]
    run = subprocess.run(
        [*command, "--dump", str(tmp_path / "dump")], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "train: kept 2 of 6 (" in run.stderr
    assert (tmp_path / "dump" / "train" / DONE_FILE).is_file()
    run = subprocess.run(
        [*command, "--dump", str(tmp_path / "none"), "--min_duration", "20"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("prepare_dump.py: error: ")
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "none" / "train").exists()
