"""`powsm check --gpu --tiny`: every section of the day with a card, on a CPU."""

import argparse
import json
from pathlib import Path

import pytest
from dump_builder import make_dump

from powsm.cli.check import measure_gpu, run
from powsm.cli.main import main
from powsm.errors import PowsmError
from powsm.prepare.index import ExampleIndex
from powsm.train.gpu import reading, sections

CONFIG = Path(__file__).parents[2] / "conf/train_powsm_fast.yaml"


@pytest.fixture(scope="module")
def found():
    return sections.check_gpu(CONFIG, is_tiny=True)


def test_every_section_runs(found):
    assert {name: row.get("error") for name, row in found.items()} == dict.fromkeys(
        sections.SECTIONS
    )
    json.dumps(found)


def test_the_figures_are_there(found):
    assert found["parity"]["float32"]["gradient"] < 1e-5
    assert 0 < found["parity"]["bfloat16"]["gradient"] < 0.3
    assert found["ours"]["4 s of 1 s"]["examples_s"] > 0
    assert found["ours"]["4 s of 1 s"]["tflop"] > 0 < found["stock"]["tflop"]
    assert found["compiled"]["ms"] > 0
    assert found["attention"]["decoder float32"]["kernel"] in (
        *("math", "flash_attention", "efficient_attention"),
    )
    assert found["search"]["beam 3, ctc 0.3"]["identical"] == 1.0
    assert found["alignment"]["most_moved_s"] == 0.0


def test_the_trainer_goes_on_from_its_checkpoint(found):
    assert found["trainer"]["updates"] == [2, 4]
    assert "update 4/4" in found["trainer"]["epoch 2"]["lines"][-1]


def test_a_section_that_fails_says_why_and_the_others_go_on(monkeypatch, capsys):
    def broken(material, found):
        raise RuntimeError("no kernel image is available")

    said = {"broken": broken, "well": lambda material, found: {"ms": 1.0}}
    monkeypatch.setattr(sections, "SECTIONS", said)
    assert measure_gpu(CONFIG, is_tiny=True) == 1
    (line,) = capsys.readouterr().out.splitlines()
    rows = json.loads(line)
    assert rows["broken"]["error"] == "RuntimeError: no kernel image is available"
    assert rows["well"]["ms"] == 1.0

    late = sections.check_gpu(CONFIG, is_tiny=True, budget_s=-1.0)
    assert late["well"] == {"skipped": "-1 s were over"}


def test_the_full_size_wants_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    options = argparse.Namespace(gpu=True, tiny=False, config=CONFIG, given=set())
    with pytest.raises(PowsmError, match="finds no GPU here.*--tiny"):
        run(options)


def test_io_says_what_is_read_and_what_a_gpu_needs(tmp_path, capsys, monkeypatch):
    make_dump(tmp_path / "train", [0.6, 0.8, 1.0, 0.7, 0.9], seed=1)
    index = ExampleIndex(tmp_path / "train")
    sizes = [Path(index.audio(utt)).stat().st_size for utt in range(5)]
    dropped = []
    monkeypatch.setattr(reading, "_forget", dropped.append)
    arguments = ["check", "--io", "--dump", str(tmp_path), "--config", str(CONFIG)]
    small = ("--set", "batch_conf={batch_seconds: 2, update_batches: 1}")
    main([*arguments, *small, "num_workers=2"])
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["threads"], told["reads"], len(dropped)) == (2, 5, 5)
    assert told["bytes_a_read"] == round(sum(sizes) / 5)
    assert told["bytes_a_second_of_audio"] == round(sum(sizes) / 4.0)
    assert told["files_a_batch"] > 1
    for speed in (told["cold"], told["warm"]):
        assert min(speed.values()) > 0
    need = told["a_gpu_needs"]["compiled"]
    assert need["reads_a_second"] == round(need["audio_s_a_second"] * 5 / 4.0)
    with pytest.raises(SystemExit) as stop:
        main([*arguments[:3], str(tmp_path / "none"), *arguments[4:]])
    assert stop.value.code != 0
