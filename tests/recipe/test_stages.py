"""All stages of the mini recipe on a minute of synthetic speech, as users run them."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from synthetic import make_corpus
from tiny_model import SETTINGS

pytestmark = pytest.mark.recipe

RECIPE = Path(__file__).parents[2] / "egs2/mini_ipapack/s2t1"


def command(root: Path, *options: str) -> list[str]:
    """run.sh with every folder inside `root`."""
    return [
        *("./run.sh", "--downloads", str(root / "downloads")),
        *("--data", str(root / "data"), "--dump", str(root / "dump/raw")),
        *("--expdir", str(root / "exp"), "--exp_name", "tiny", "--nj", "2"),
        *("--config", str(root / "train_tiny.yaml"), "--nbpe", "90"),
        *options,
    ]


def run(root: Path, *options: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        command(root, *options), cwd=RECIPE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def hashes(folder: Path) -> dict[str, str]:
    """Every file's hash, but for markers and indexes with times in them."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.parts[-3:])
    }


def prepare(root: Path) -> Path:
    make_corpus(root / "downloads")
    settings = SETTINGS | {
        "normalize": "global_mvn",
        "batch_conf": {"batch_seconds": 10, "update_batches": 1},
        "best_model_criterion": [["valid", "pfer_ctc", "min"]],
        "max_epoch": 1,
    }
    (root / "train_tiny.yaml").write_text(yaml.safe_dump(settings))
    return root


RATES = {  # task, how it is decoded, metric
    ("pr", "ctc", "PFER"),
    ("pr", "attention", "PER"),
    ("pr", "joint", "PFER"),
    ("g2p", "attention", "PFER"),
    ("asr", "attention", "WER"),
    ("p2g", "attention", "CER"),
    ("lid", "attention", "accuracy"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Stages 1 to 13, once."""
    root = prepare(tmp_path_factory.mktemp("recipe"))
    run(root, "--stage", "1", "--stop_stage", "13", "--align", "true")
    return root


def test_results_cover_every_task_and_language(finished):
    records = json.loads((finished / "exp/tiny/results.json").read_text())
    got = {(r["task"], r["decode"], r["metric"]) for r in records}
    assert RATES <= got
    assert {r["lang"] for r in records} == {"all", "eng", "ita"}
    for r in records:
        assert r["set"] == "test_asterisk" and r["n_utts"] > 0
        assert r["low"] <= r["value"] <= r["high"]


def test_results_page_and_curves_exist(finished):
    exp = finished / "exp/tiny"
    text = (exp / "RESULTS.md").read_text()
    for word in ("PFER", "PER", "WER", "CER", "lid", "eng", "ita", "python"):
        assert word.lower() in text.lower(), word
    assert list((exp / "images").glob("*.png"))
    assert "<html" in (exp / "report/index.html").read_text()
    assert "duration" in (exp / "results_by.csv").read_text()
    assert (finished / "data/report/report.md").exists()


def test_decoded_phones_have_times(finished):
    decoded = finished / "exp/tiny/decode_ctc_greedy/test_asterisk/pr_ctc"
    hyps = map(json.loads, (decoded / "hyp.jsonl").open(encoding="utf-8"))
    times = map(json.loads, (decoded / "align/phones.jsonl").open(encoding="utf-8"))
    found = {row["utt_id"]: row["segments"] for row in times}
    for hyp in hyps:
        phones = [token for token in hyp["tokens"] if token[0] == token[-1] == "/"]
        assert len(found[hyp["utt_id"]]) == len(phones)
        assert (decoded / f"align/{hyp['utt_id']}.TextGrid").exists()


def test_stage_4_twice_gives_the_same_bytes(finished, tmp_path):
    before = hashes(finished / "dump")
    assert before
    other = ["--dump", str(tmp_path / "dump/raw"), "--nj", "1"]
    run(finished, "--stage", "4", "--stop_stage", "4", *other)
    again = hashes(tmp_path / "dump")
    assert again == before


def test_a_rerun_finds_everything_current(finished):
    exp = finished / "exp/tiny"
    before = (exp / "1epoch.pth").stat().st_mtime_ns
    hyps = sorted(exp.glob("*/*/*/hyp.jsonl"))
    times = [p.stat().st_mtime_ns for p in hyps]
    done = run(finished, "--stage", "1", "--stop_stage", "13")
    assert (exp / "1epoch.pth").stat().st_mtime_ns == before
    assert [p.stat().st_mtime_ns for p in hyps] == times
    assert "current" in done.stderr


def test_two_ranks_train_and_decode_through_torchrun(finished):
    settings = yaml.safe_load((finished / "train_tiny.yaml").read_text())
    settings["batch_conf"]["update_batches"] = 2
    (finished / "train_two.yaml").write_text(yaml.safe_dump(settings))
    options = ("--config", str(finished / "train_two.yaml"), "--exp_name", "two")
    profile = ("--decode_configs", "conf/decode_ctc_greedy.yaml", "--nproc", "2")
    run(finished, "--stage", "11", "--stop_stage", "12", *options, *profile)
    exp = finished / "exp/two"
    assert "2 rank(s) on cpu x 1 accumulated" in (exp / "train.log").read_text()
    (hyps,) = exp.glob("*/test_asterisk/pr_ctc*/hyp.jsonl")
    n_utts = len((finished / "dump/raw/test_asterisk/ref.ipa").read_text().splitlines())
    assert len(hyps.read_text().splitlines()) == n_utts


def test_training_goes_on_with_more_epochs(finished):
    settings = yaml.safe_load((finished / "train_tiny.yaml").read_text())
    (finished / "train_tiny.yaml").write_text(
        yaml.safe_dump(settings | {"max_epoch": 2})
    )
    run(finished, "--stage", "11", "--stop_stage", "11")
    history = (finished / "exp/tiny/history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in history] == [1, 2]


def test_another_experiment_goes_on_from_a_finished_one(finished):
    """As the printed commands of table 5 do."""
    more = ("--set", "model_conf.ctc_weight=0.5", "--set", "max_epoch=5")
    before = str(finished / "exp/tiny")
    only = ("--stage", "11", "--stop_stage", "11", "--exp_name", "then")
    run(finished, *more, *only, "--goes_on_from", before)
    history = (finished / "exp/then/history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in history] == [1, 2, 3, 4, 5]
    origin = json.loads((finished / "exp/then/goes_on_from.json").read_text())
    assert origin["exp"] == "tiny"


def members_of(session: int) -> list[int]:
    """Processes of a session that have not ended, whatever their process group."""
    pids = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended in between
            state, _, _, sid = file.read_text().rpartition(")")[2].split()[:4]
            if int(sid) == session and state not in "ZX":
                pids.append(int(file.parent.name))
    return pids


def kill_session(session: int) -> None:
    """The shell and its commands, and what they started while they were looked for."""
    while pids := members_of(session):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_killed_stage_is_done_again_with_the_same_bytes(finished, tmp_path):
    """SIGKILL to all processes in the middle of stage 1 or 4."""
    root = tmp_path
    (root / "downloads").symlink_to(finished / "downloads")
    (root / "train_tiny.yaml").symlink_to(finished / "train_tiny.yaml")
    options = ("--stage", "1", "--stop_stage", "4", "--skip_stages", "2")
    for delay_s in (0.3, 0.8, 1.3):
        process = subprocess.Popen(
            command(root, *options),
            cwd=RECIPE,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay_s)
        kill_session(process.pid)
        process.wait()
    run(root, *options)
    expected = hashes(finished / "dump")
    got = hashes(root / "dump")
    assert got.keys() == expected.keys()
    assert {k for k in got if got[k] != expected[k] and "done" not in k} <= {
        k for k in got if k.endswith((".json", "wav.scp"))
    }
