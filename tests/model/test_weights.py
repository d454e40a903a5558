"""Damage to a model is named by its file, in one line."""

import json
import shutil

import pytest
import torch
import yaml
from dump_builder import make_dump
from published_model import BPE_MODEL, CONFIG, STATS, WEIGHTS, make_published
from safetensors.torch import save_file
from tiny_model import make_tokens

from powsm.decode.recogniser import Recogniser
from powsm.errors import PowsmError
from powsm.files.whole import sha256_file
from powsm.model.find import CheckpointError, find_model


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_published(
        root / "published", make_tokens(root / "train", root / "tokens")
    )


@pytest.fixture
def root(published, tmp_path):
    return shutil.copytree(published, tmp_path / "model")


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff" * 40)


@pytest.mark.parametrize("damage", [truncate, empty, foreign])
@pytest.mark.parametrize("name", [WEIGHTS, BPE_MODEL, STATS, CONFIG, "meta.yaml"])
def test_a_damaged_file_is_named_in_one_line(root, name, damage):
    damage(root / name)
    with pytest.raises(PowsmError) as caught:
        Recogniser.load(root)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"policy": "strict"}'])
def test_a_damaged_record_of_the_normaliser_is_named(root, content):
    (root / CONFIG).with_name("normaliser.json").write_text(content)
    with pytest.raises(PowsmError, match=r"normaliser\.json: .*training set"):
        find_model(root)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], 7])
def test_a_file_without_parameters_is_refused(root, content):
    torch.save(content, root / WEIGHTS)
    with pytest.raises(CheckpointError, match="expected parameters by name"):
        Recogniser.load(root)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_finite_numbers_are_refused(root, value):
    state = torch.load(root / WEIGHTS, weights_only=True)
    state["decoder.output_layer.bias"][3] = value
    torch.save(state, root / WEIGHTS)
    with pytest.raises(CheckpointError, match="output_layer.bias holds .* no finite"):
        Recogniser.load(root)


def test_a_missing_setting_is_named(root):
    config = yaml.safe_load((root / CONFIG).read_text())
    del config["encoder_conf"], config["frontend"]
    (root / CONFIG).write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match="no setting 'frontend'"):
        Recogniser.load(root)


@pytest.mark.parametrize("kind", ["weights", "pieces", "stats"])
def test_a_flipped_bit_is_found_by_the_stored_hash(root, kind):
    """In the middle of a safetensors file a bit is a number, which no reader misses."""
    state = torch.load(root / WEIGHTS, weights_only=True)
    state = {name: value.contiguous() for name, value in state.items()}
    save_file(state, root / "model.safetensors")
    sealed = {
        "weights": root / "model.safetensors",
        "pieces": root / BPE_MODEL,
        "stats": root / STATS,
    }
    sums = [f"{sha256_file(p)}  {p.relative_to(root)}\n" for p in sealed.values()]
    (root / "SHA256SUMS").write_text("".join(sums))
    Recogniser.load(root)  # as it was packed
    damaged = sealed[kind]
    data = bytearray(damaged.read_bytes())
    data[-100] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(CheckpointError, match="its SHA-256 is") as caught:
        Recogniser.load(root)
    assert str(damaged) in str(caught.value)


def test_sums_that_are_none_are_refused(root):
    (root / "SHA256SUMS").write_text(json.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="SHA256SUMS: .*not a SHA-256"):
        find_model(root)


def test_a_pass_in_bfloat16_leaves_nothing_to_one_in_float32(published):
    """Longer and shorter inputs in between, and a second model of the process."""
    generator = torch.Generator().manual_seed(0)
    short, long = (torch.randn(n, generator=generator) / 10 for n in (16_000, 80_000))
    one, other = Recogniser.load(published), Recogniser.load(published)

    def log_probs(recogniser, speech, dtype="float32"):
        with recogniser.precision(dtype):
            memory, lens = recogniser.encode([speech])
            model = recogniser.model
            ys = torch.tensor([[model.sos, 3, 4, 5]])
            with torch.inference_mode():
                scores, _ = model.decoder(memory, lens, ys, torch.tensor([4]))
                return model.ctc.log_softmax(memory), scores

    before = {len(s): log_probs(one, s) for s in (short, long)}
    half = log_probs(one, short, "bfloat16")
    assert not torch.equal(half[0].float(), before[len(short)][0])
    log_probs(other, long, "bfloat16")
    log_probs(one, long, "bfloat16")
    for recogniser in (one, other):
        for speech in (short, long, short):
            for a, b in zip(
                log_probs(recogniser, speech), before[len(speech)], strict=True
            ):
                assert torch.equal(a, b)
