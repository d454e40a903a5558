"""Estimated costs against what the stages write, and against the paper's recipe."""

import dataclasses
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import costs
import pytest
import yaml
from espnet2.fileio.read_text import read_2columns_text

from powsm.cluster import checks as preflight
from powsm.cluster.costs import read_costs
from powsm.files.datadir import read_scp
from powsm.prepare.index import ExampleIndex
from powsm.tasks import PUBLISHED_TASKS

ROOT = Path(__file__).parents[1]
COSTS = ROOT / "egs2/powsm/s2t1/costs.yaml"
PARAMETERS = 350e6  # the paper's


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with `data` and `dump` of 600 generated utterances."""
    folder = tmp_path_factory.mktemp("costs")
    sys.path.insert(0, str(ROOT / "scripts/bench"))
    try:
        from generated_shar import write_corpora
    finally:
        sys.path.pop(0)
    write_corpora(folder / "downloads", 600)
    tasks = ",".join(PUBLISHED_TASKS)
    for script, *options in (
        ("prepare_data.py", "--downloads", "downloads", "--data", "data"),
        ("prepare_dump.py", "--data", "data", "--dump", "dump", "--tasks", tasks),
    ):
        done = subprocess.run(
            [sys.executable, ROOT / "local" / script, *options],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    return folder


def read(path: Path) -> dict[str, str]:
    return dict(read_scp(path))


def mean_bytes(values: Iterable[str]) -> float:
    sizes = [len(value.encode()) for value in values]
    return sum(sizes) / len(sizes)


@pytest.fixture(scope="module")
def corpus(prepared) -> costs.Corpus:
    """Its training set, by the utterances that stage 4 kept."""
    data, dump = prepared / "data/train", prepared / "dump/train"
    texts = read(dump / "text")
    said = {
        task: mean_bytes(
            t.partition(" ")[2] for u, t in texts.items() if u.endswith(end)
        )
        for task, end in (("asr", "_asr"), ("pr", "_pr"))
    }
    return costs.Corpus(
        utterances=len(texts) // costs.N_TASKS,
        utt_id=mean_bytes(u.rpartition("_")[0] for u in texts),
        speaker=mean_bytes(read(data / "utt2speaker").values()),
        path=mean_bytes(read(data / "wav.scp").values()),
        text=said["asr"],
        ipa=mean_bytes(read(data / "text.ipa").values()),
        clean=mean_bytes(read(data / "text.ipa_clean").values()),
        phones=said["pr"],
    )


def size(*folders: Path) -> int:
    """Bytes of what grows with a corpus: all files but those of counts and hashes."""
    files = [p for f in folders for p in f.rglob("*") if p.is_file()]
    return sum(path.stat().st_size for path in files if path.suffix != ".json")


def test_data_and_dump_take_what_is_estimated(prepared, corpus):
    data = size(prepared / "data/train", prepared / "data/.parts/cv_shar/train")
    n_prepared = len(read(prepared / "data/train/text"))
    estimate = costs.data_bytes(dataclasses.replace(corpus, utterances=n_prepared))
    assert estimate == pytest.approx(data, rel=0.05)

    ExampleIndex(prepared / "dump/train")
    assert costs.dump_bytes(corpus) == pytest.approx(
        size(prepared / "dump/train"), rel=0.05
    )


def test_stock_loader_takes_what_is_estimated(prepared, corpus):
    tracemalloc.start()
    dictionaries = [
        read_2columns_text(prepared / "dump/train" / name)
        for name in ("wav.scp", "text", "text.prev", "text.ctc")
    ]
    measured, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(map(len, dictionaries)) == 16 * corpus.utterances
    assert costs.stock_loader_bytes(corpus) == pytest.approx(measured, rel=0.25)


# What the paper's recipe says


@pytest.fixture(scope="module")
def table() -> dict[int, dict[str, float]]:
    rows = read_costs(COSTS)
    return {
        stage: {what: preflight.parse_size(row[what]) for what in ("disk", "memory")}
        for stage, row in rows.items()
    }


def test_every_stage_has_a_row(table):
    driver = re.findall(
        r"^if in_stage (\d+)", (ROOT / "scripts/s2t.sh").read_text(), re.M
    )
    assert {int(stage) for stage in driver} <= set(table)


def test_disk_is_that_of_the_estimate(table):
    settings = yaml.safe_load((ROOT / "conf/train_powsm.yaml").read_text())
    estimates = {
        0: 1.8e12,  # stated with the data set
        1: costs.data_bytes(costs.IPAPACK_PLUS),
        4: costs.dump_bytes(costs.IPAPACK_PLUS),
        11: costs.experiment_bytes(
            PARAMETERS,
            keep=settings["keep_nbest_models"],
            averages=settings["max_epoch"] // settings["nbest_averaging_interval"],
        ),
    }
    for stage, estimate in estimates.items():
        assert table[stage]["disk"] == pytest.approx(estimate, rel=0.1), stage
    others = sum(row["disk"] for stage, row in table.items() if stage not in estimates)
    assert others < 0.01 * sum(estimates.values())


def test_memory_is_that_of_the_estimate(table):
    own = {
        5: costs.sentencepiece_bytes(costs.IPAPACK_PLUS),
        11: costs.stock_loader_bytes(costs.IPAPACK_PLUS),
    }
    for stage, estimate in own.items():
        assert table[stage]["memory"] == pytest.approx(estimate, rel=0.1), stage


def test_gpu_hours_are_the_papers_and_fit_its_time():
    rows = read_costs(COSTS)
    assert (rows[11]["GPU-hours"], rows[11]["time"]) == ("200", "50 h")  # on 4 GPUs
