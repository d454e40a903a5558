"""What only a card can show: `powsm check --gpu` at the full size, in eight minutes."""

import time
from pathlib import Path

import pytest
import torch

from powsm.train.gpu.sections import SECTIONS, check_gpu

CONFIG = Path(__file__).parents[2] / "conf/train_powsm_fast.yaml"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def found():
    start = time.monotonic()
    rows = check_gpu(CONFIG)
    rows["all"] = {"seconds": time.monotonic() - start}
    return rows


def test_every_section_runs_in_eight_minutes(found):
    faults = {name: found[name].get("error") for name in SECTIONS}
    assert faults == dict.fromkeys(SECTIONS)
    assert not [name for name in SECTIONS if "skipped" in found[name]]
    assert found["all"]["seconds"] < 480


def test_attention_is_a_fused_kernel_and_none_of_cudnn(found):
    kernels = {
        name: row["kernel"] for name, row in found["attention"].items() if " " in name
    }
    assert set(kernels.values()) <= {"flash_attention", "efficient_attention"}


def test_the_card_computes_as_a_cpu(found):
    assert found["parity"]["float32"]["loss"] < 1e-4
    assert found["parity"]["float32"]["gradient"] < 1e-3
    assert found["parity"]["bfloat16"]["loss"] < 1e-2


def test_a_step_is_faster_an_example_than_stock_and_waits_seldom(found):
    ours = found["ours"]["268 s of 7.4 s"]
    assert ours["examples_s"] > 2 * found["stock"]["examples_s"]
    assert sum(ours["waits"].values()) <= 10


def test_layers_are_compiled_and_faster(found):
    assert found["compiled"].get("fault") is None
    assert found["compiled"]["ms"] < found["ours"]["268 s of 7.4 s"]["ms"]


def test_batches_that_do_not_fit_are_halved_and_training_goes_on(found):
    assert found["trainer"]["updates"] == [15, 30]
    assert found["trainer"]["epoch 1"]["batches_in_parts"] == 0
    assert found["trainer"]["epoch 2"]["batches_in_parts"] > 0


def test_search_and_alignment_find_what_they_find_elsewhere(found):
    rows = [row for row in found["search"].values() if "identical" in str(row)]
    assert {row["identical"] for row in rows} == {1.0}
    assert found["alignment"]["most_moved_s"] <= 0.02
