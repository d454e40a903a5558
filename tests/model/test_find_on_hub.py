"""Models by Hub tag, from a hub on loopback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from dump_builder import make_dump
from hub_server import TOKEN, sha256
from huggingface_hub import constants
from powsm_command import POWSM
from published_model import (
    CTC_WEIGHTS,
    WEIGHTS,
    files_of,
    make_full_size,
    make_published,
)
from tiny_model import make_tokens

from powsm.decode.batch import Item, decode_batch
from powsm.decode.profile import Profile
from powsm.decode.recogniser import Recogniser
from powsm.decode.recordings.model import load
from powsm.decode.search import SearchOptions
from powsm.errors import PowsmError
from powsm.model import find
from powsm.model.find import CheckpointError, find_model

ROOT = Path(__file__).parents[2]
SPEECH = torch.randn(16_000, generator=torch.Generator().manual_seed(0)) / 10


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokens")
    make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    return make_tokens(root / "train", root / "tokens")


@pytest.fixture(scope="module")
def published(tokens, tmp_path_factory):
    """As `espnet/powsm`: a model, and another in a sub-folder."""
    root = make_published(tmp_path_factory.mktemp("published"), tokens)
    make_published(root / "textnorm_retrained", tokens, seed=7)
    return root


@pytest.fixture
def client(hub, monkeypatch, tmp_path):
    """The hub, and a client in this process that goes there, with an empty cache."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return hub


@pytest.fixture
def filled(client, published):
    client.add_repo("espnet/powsm", files_of(published), repo_type="model")
    return client


def decoded(recogniser: Recogniser) -> dict:
    search = SearchOptions(beam_size=1, ctc_weight=0.3, maxlenratio=-5)
    profile = Profile("decode_x", decode="joint", search=search)
    item = Item("u_eng", "", len(SPEECH), "<eng>", "<na>")
    (record,) = decode_batch(recogniser, profile, "pr", [item], [SPEECH])
    return record


def test_tag_decodes_as_the_folder_does(filled, published):
    found = find_model("espnet/powsm")
    assert "phones by policy released and text by policy released" in found.describe()
    assert found.source.startswith("espnet/powsm@")
    assert decoded(Recogniser.load(found)) == decoded(Recogniser.load(published))
    # nothing of the other model
    assert not [name for name in filled.served if "textnorm" in name]
    # no byte is fetched twice, and without the network the cache is enough
    find_model("espnet/powsm")
    sizes = {name: len(data) for name, data in files_of(published).items()}
    assert dict(filled.served) == {n: sizes[n] for n in filled.served}
    filled.stop()
    assert find_model("espnet/powsm").config_file == found.config_file


def test_sub_folder_of_a_tag(filled, published):
    found = find_model("espnet/powsm/textnorm_retrained")
    assert "text by policy powsm_fix" in found.describe()
    there = Recogniser.load(published / "textnorm_retrained")
    assert decoded(Recogniser.load(found)) == decoded(there)
    assert WEIGHTS not in filled.served
    with pytest.raises(CheckpointError, match="espnet/powsm has no folder fixed"):
        find_model("espnet/powsm/fixed")


def test_safetensors_spare_the_pickle(client, published):
    files = files_of(published)
    client.add_repo(
        "a/b", files | {"model.safetensors": b"12345678"}, repo_type="model"
    )
    assert find_model("a/b").weights_file.name == "model.safetensors"
    assert WEIGHTS not in client.served


def test_revision_of_a_tag(filled):
    commit = find_model("espnet/powsm").config_file.parts[-4]
    assert find_model(f"espnet/powsm@{commit}").source == f"espnet/powsm@{commit[:12]}"


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("a/b", ("a/b", None, "")),
        ("a/b@refs/pr/1", ("a/b", "refs/pr/1", "")),
        ("a/b@refs/convert/parquet/c", ("a/b", "refs/convert/parquet", "/c")),
        ("a/b@v1.0/c/d", ("a/b", "v1.0", "/c/d")),
        ("a/b@refs/heads", ("a/b", "refs", "/heads")),
    ],
)
def test_tag_in_its_parts(monkeypatch, tag, parts):
    asked = []
    monkeypatch.setattr(find, "_from_hub", lambda *args: asked.append(args[1:4]))
    find_model(tag)
    assert asked == [parts]


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (404, {"X-Error-Code": "RevisionNotFound"}, "espnet/powsm has no revision"),
        (403, {"X-Error-Code": "GatedRepo"}, "access to .*/espnet/powsm must be asked"),
        (401, {}, "answered 401; is HF_TOKEN right"),
        (503, {}, "answered 503; try again|cannot be reached"),
    ],
)
def test_refusals_say_what_to_do(filled, status, headers, message):
    filled.fail("/api/models", times=9, status=status, headers=headers)
    with pytest.raises(CheckpointError, match=message):
        find_model("espnet/powsm")


def test_model_that_is_nowhere(client):
    with pytest.raises(CheckpointError, match="exp/s2t_mispelt: no such folder here"):
        find_model("exp/s2t_mispelt")


def test_private_model_needs_the_token(client, published, monkeypatch):
    client.add_repo("a/b", files_of(published), repo_type="model", private=True)
    with pytest.raises(CheckpointError, match="a private one needs HF_TOKEN"):
        find_model("a/b")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert find_model("a/b").weights_file.exists()


def test_without_network_and_cache(client):
    client.stop()
    with pytest.raises(CheckpointError, match="not in the cache .* cannot be reached"):
        find_model("espnet/powsm")


def test_transfer_that_breaks_is_no_model(filled):
    filled.fail(f"cdn/.*{WEIGHTS}", times=99, status=500)
    with pytest.raises(CheckpointError, match="answered 500|cannot be reached"):
        find_model("espnet/powsm")


@pytest.mark.parametrize("weights", CTC_WEIGHTS)
def test_model_without_a_decoder_does_four_tasks_by_tag(
    client, tokens, tmp_path, weights
):
    """Under both names that its weights are known by, parameters as released."""
    root = make_published(tmp_path / "powsm_ctc", tokens, weights=weights)
    client.add_repo("espnet/powsm_ctc", files_of(root), repo_type="model")
    by_tag, by_folder = load("espnet/powsm_ctc"), load(root)
    assert by_tag.files.source.startswith("espnet/powsm_ctc@")
    assert by_tag.files.weights_file.name == Path(weights).name
    for task, text in (("pr", None), ("asr", None), ("g2p", "ba"), ("p2g", "ba")):
        asked = {"task": task, "lang": "ita", "text": text}
        said = by_tag(SPEECH.numpy(), **asked)
        assert said.slashed and said == by_folder(SPEECH.numpy(), **asked), task
    with pytest.raises(PowsmError, match="given that of every example"):
        by_tag.languages(SPEECH.numpy())
    state = torch.load(root / weights, weights_only=True)
    state["embed_proj.biases"] = state.pop("embed_proj.bias")
    state["encoder.conditioning_layer.weight"] = torch.zeros(16, 3)
    torch.save(state, root / weights)
    client.add_repo("a/b", files_of(root), repo_type="model")
    with pytest.raises(CheckpointError) as refused:
        load("a/b")
    for fault in (
        "embed_proj.bias is missing",
        "embed_proj.biases is left over",
        "encoder.conditioning_layer.weight has shape (16, 3), the configuration wants",
    ):
        assert fault in str(refused.value)


FULL_SIZE = pytest.mark.skipif(
    "POWSM_FULL_SIZE" not in os.environ,
    reason="a minute of CPU, 5 GB of memory and 4 GB of disk: set POWSM_FULL_SIZE=1",
)

# Prints the kilobytes that a command needed at most. A process of its own: a command
# starts as a copy of its parent, whose memory counts as the command's.
PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""

FOUR_TASKS = """\
import json, powsm
from powsm.errors import PowsmError
model = powsm.load("espnet/powsm_ctc", device="cpu")
for task, text in (("pr", None), ("asr", None), ("g2p", "ba"), ("p2g", "ba")):
    how = {"task": task, "lang": "eng", "text": text, "times": False}
    print(json.dumps([task, model("speech.wav", **how).slashed]))
try:
    model.languages("speech.wav")
except PowsmError as err:
    print(json.dumps(["lid", str(err)]))
"""


@FULL_SIZE
def test_full_size_model_without_a_decoder_does_four_tasks_by_tag(
    hub, tokens, tmp_path
):
    """425.6 M parameters, 40,002 tokens, old parameter names: 1.7 GB over HTTP."""
    (weights, _) = CTC_WEIGHTS
    root = make_full_size(tmp_path / "powsm_ctc", tokens, weights)
    state = torch.load(root / weights, weights_only=True, mmap=True)
    learned = [v for k, v in state.items() if not k.startswith(("frontend", "normal"))]
    assert round(sum(value.numel() for value in learned) / 1e5) == 4256
    assert state["ctc.ctc_lo.bias"].shape == (40_002,)
    del state, learned
    hub.add_repo("espnet/powsm_ctc", files_of(root), repo_type="model")
    (root / weights).unlink()
    soundfile.write(tmp_path / "speech.wav", SPEECH.numpy(), 16_000)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, sys.executable, "-c", FOUR_TASKS],
        **{"cwd": tmp_path, "env": os.environ | hub.env | {"HF_HOME": str(tmp_path)}},
        **{"capture_output": True, "text": True},
    )
    sha256.cache_clear()
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, kilobytes = done.stdout.splitlines()
    said = dict(map(json.loads, lines))
    assert all(said[task] for task in ("pr", "asr", "g2p", "p2g"))
    assert "lang_apply_prob: 1.0" in said["lid"]
    assert int(kilobytes) < 6_000_000
    print(kilobytes)  # pytest -s shows it


@FULL_SIZE
def test_full_size_model_decodes_by_tag(hub, tokens, tmp_path):
    """350 M parameters, 40,002 tokens, old parameter names: 1.4 GB over HTTP."""
    root = make_full_size(tmp_path / "powsm", tokens)
    state = torch.load(root / WEIGHTS, weights_only=True, mmap=True)
    assert 340e6 < sum(value.numel() for value in state.values()) < 380e6
    assert state["decoder.output_layer.bias"].shape == (40_002,)
    del state
    hub.add_repo("espnet/powsm", files_of(root), repo_type="model")
    (root / WEIGHTS).unlink()
    soundfile.write(tmp_path / "speech.wav", SPEECH.numpy(), 16_000)
    (tmp_path / "decode_five.yaml").write_text(
        "decode: joint\nsearch: {beam_size: 1, ctc_weight: 0.3, maxlenratio: -5}\n"
    )
    options = "--model espnet/powsm --profile decode_five.yaml --lang eng --out out"
    command = [
        *POWSM,
        "transcribe",
        *options.split(),
        "--format",
        "jsonl",
        "speech.wav",
    ]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *command],
        **{"cwd": tmp_path, "env": os.environ | hub.env | {"HF_HOME": str(tmp_path)}},
        **{"capture_output": True, "text": True},
    )
    sha256.cache_clear()
    assert done.returncode == 0, done.stderr[-2000:]
    assert "parameter encoder.embed.out.0.weight is encoder.embed.out.weight" in (
        done.stderr
    )
    (record,) = map(json.loads, (tmp_path / "out/speech.jsonl").open(encoding="utf-8"))
    assert record["lang"] == "eng" and record["pieces"][0]["text"]
    assert int(done.stdout.splitlines()[-1]) < 6_000_000
