"""A packed model without a decoder: loaded here by every part, and by stock ESPnet."""

import json

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import CTC_SETTINGS, make_corpus, make_experiment

from powsm.decode.recogniser import Recogniser
from powsm.model.find import CheckpointError, find_model
from powsm.model.s2t_ctc import PowsmCtcModel
from powsm.model.weights import load_model
from powsm.publish.pack import check_with_stock, pack


@pytest.fixture(scope="module")
def exp(tmp_path_factory):
    root = tmp_path_factory.mktemp("pack")
    corpus = make_corpus(root)
    exp = make_experiment(root / "model", corpus / "tokens", base=CTC_SETTINGS)
    record = {"policy": "strict", "version": "strict/1", "text_policy": "powsm_fix"}
    (exp / "normaliser.json").write_text(json.dumps(record))
    return exp


def test_archive_says_what_the_unpacked_model_does(exp, tmp_path):
    packed = pack(exp)
    model = load_model(find_model(packed.archive))
    assert type(model) is PowsmCtcModel and model.lang_apply_prob == 1.0
    clip = tmp_path / "clip.wav"
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(clip, noise.astype(np.float32), 16_000)
    said = check_with_stock(packed, find_model(exp), clip, "eng")
    assert set(said) == {"pr", "asr", "g2p", "p2g", "phonemize"}
    card = (packed.folder / "README.md").read_text()
    assert "| decoder | none |" in card
    assert "A speech model without a decoder" in card and "encoder-decoder" not in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("embed_proj.bias"), "embed_proj.bias is missing"),
        (
            lambda s: s.update({"prompt_proj.bias": torch.zeros(3)}),
            r"prompt_proj.bias has shape \(3,\), the configuration wants \(16,\)",
        ),
        (
            lambda s: s.update({"encoder.scale": torch.zeros(1)}),
            "encoder.scale is left over",
        ),
    ],
)
def test_parameter_that_does_not_fit_is_refused_by_name(exp, tmp_path, change, message):
    state = torch.load(exp / "valid.loss.ave.pth", weights_only=True)
    change(state)
    path = tmp_path / "x.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_model(find_model(exp, path))


def test_names_of_the_released_weights_are_those_of_this_espnet(exp, tmp_path):
    """The subsampling's Linear once stood in a Sequential."""
    state = torch.load(exp / "valid.loss.ave.pth", weights_only=True)
    old = {k.replace("embed.out.", "embed.out.0."): v for k, v in state.items()}
    assert old.keys() != state.keys()
    path = tmp_path / "valid.total_count.ave_5best.till70epoch.pth"
    torch.save(old, path)
    ours = Recogniser.load(find_model(exp, path)).model.state_dict()
    assert torch.equal(
        ours["encoder.embed.out.weight"], state["encoder.embed.out.weight"]
    )
