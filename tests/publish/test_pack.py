"""Packing: what is in the folder and the archive, and that stock ESPnet loads both."""

import json
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from dump_builder import make_dump
from hub_server import TOKEN
from huggingface_hub import constants
from powsm_command import run_verb
from published_model import files_of, make_published
from tiny_model import make_experiment, make_tokens

from powsm.decode.recogniser import Recogniser
from powsm.hub import HubError
from powsm.model.find import CheckpointError, find_model
from powsm.model.weights import read_weights
from powsm.publish import pack as publish
from powsm.publish import upload
from powsm.publish.card import model_card
from powsm.publish.pack import PackError, check_with_stock, pack
from powsm.report.paper.training import Trained, facts
from powsm.train import config
from powsm.vocabulary.tokenizer import read_token_list

PROFILE = Path(__file__).parents[2] / "conf/decode_joint.yaml"
MADE_WITH = {"policy": "strict", "version": "strict/1", "text_policy": "powsm_fix"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A training set with its normaliser, tokens, and a clip beside them."""
    root = tmp_path_factory.mktemp("publish")
    folder = make_dump(root / "train", [0.6, 0.8, 1.0, 0.7], seed=1)
    (folder / "normaliser.json").write_text(json.dumps(MADE_WITH))
    make_tokens(folder, root / "tokens")
    speech = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(root / "speech.wav", speech, 16_000, subtype="FLOAT")
    return root


@pytest.fixture(scope="module")
def exp(root):
    """An experiment whose averaged model is a link, with weights that say something."""
    exp = make_experiment(root, root / "tokens")
    weights = exp / "valid.loss.ave.pth"
    state = torch.load(weights, weights_only=True)
    tokens = read_token_list(root / "tokens/tokens.txt")
    bias = state["decoder.output_layer.bias"]
    bias[tokens.index("<eos>")] += 3  # short outputs
    bias[tokens.index("<notimestamps>")] += 9  # as a trained model begins
    state["ctc.ctc_lo.bias"][0] += 10  # blank
    torch.save(state, exp / "valid.loss.ave_2best.pth")
    weights.unlink()
    weights.symlink_to("valid.loss.ave_2best.pth")
    (exp / "results.json").write_text("[]")
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["powsm"]["augment"] = {"noise": {"folder": str(root / "street")}}
    config["powsm"]["model_conf"] = {"teacher": str(root / "exp/larger")}
    config["init_param"] = [str(root / "init/init.pth")]
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    (exp / "goes_on_from.json").write_text('{"exp": "first", "epoch": 2}')
    return exp


@pytest.fixture(scope="module")
def packed(root, exp):
    return pack(
        exp, train_set=root / "train", profiles=[PROFILE], hf_repo="user/tiny_powsm"
    )


def test_folder_has_espnets_layout_and_ours(packed):
    assert set(files_of(packed.folder)) == {
        "README.md",
        "SHA256SUMS",
        "meta.yaml",
        "model.safetensors",
        "results.json",
        "conf/decode_joint.yaml",
        "data/token_list/tokens/bpe.model",
        "data/token_list/tokens/phones_by_lang.json",
        "data/token_list/tokens/tokens.txt",
        "exp/exp/config.yaml",
        "exp/exp/goes_on_from.json",
        "exp/exp/normaliser.json",
        "exp/exp/valid.loss.ave_2best.pth",
    }
    assert all(p.stat().st_mode & 0o077 for p in packed.folder.rglob("*"))


def test_archive_is_named_as_espnets_and_holds_the_weights_once(packed):
    assert packed.archive.name == "exp_valid.loss.ave_2best.zip"
    with zipfile.ZipFile(packed.archive) as file:
        names = file.namelist()
        meta = yaml.safe_load(file.read("meta.yaml"))
    assert set(names) == set(files_of(packed.folder)) - {"model.safetensors"}
    assert len(names) == len(set(names))
    assert meta["files"] == {"s2t_model_file": "exp/exp/valid.loss.ave_2best.pth"}


def test_packing_again_gives_the_same_bytes_and_leaves_nothing_of_a_kill(
    root, exp, packed
):
    before = packed.archive.read_bytes(), files_of(packed.folder)
    (exp / ".packed.making-abc").mkdir()
    (exp / f".{packed.archive.name}.abc.new").write_bytes(b"half")
    os.utime(exp / "config.yaml", (0, 0))
    again = pack(
        exp, train_set=root / "train", profiles=[PROFILE], hf_repo="user/tiny_powsm"
    )
    assert (again.archive.read_bytes(), files_of(again.folder)) == before
    assert not list(exp.glob(".*"))


def test_packed_settings_hold_no_key_that_older_readers_refuse(exp, packed):
    """`use_sdpa` chooses a kernel: it is kept apart, and taken up again at loading."""
    config = yaml.safe_load(next(packed.folder.glob("exp/*/config.yaml")).read_text())
    written = {**config["encoder_conf"], **config["decoder_conf"]}
    assert not {"use_sdpa", "use_flash_attn"} & set(written)
    for source in (exp, packed.folder):
        model = Recogniser.load(source).model
        assert model.decoder.decoders[0].self_attn.use_sdpa
        assert model.encoder.encoders[0].attn.use_sdpa


# What constructors took in ESPnet 202310. Keys of a packed configuration beyond them
# would end in a TypeError there; `use_flash_attn` stands where it is true alone, as in
# the public configuration of POWSM.
_ATTENTION = {"dropout_rate", "positional_dropout_rate"}
OLDEST = {
    "frontend_conf": {"fs", "n_fft", "win_length", "hop_length", "n_mels"},
    "specaug_conf": {
        *("apply_time_warp", "time_warp_window", "time_warp_mode"),
        *("apply_freq_mask", "freq_mask_width_range", "num_freq_mask"),
        *("apply_time_mask", "time_mask_width_ratio_range", "num_time_mask"),
        *("time_mask_width_range", "freq_mask_width_ratio_range"),
    },
    "normalize_conf": {"stats_file", "norm_means", "norm_vars"},
    "encoder_conf": {
        *("output_size", "attention_heads", "attention_layer_type", "num_blocks"),
        *("pos_enc_layer_type", "rel_pos_type", "cgmlp_linear_units"),
        *("cgmlp_conv_kernel", "use_linear_after_conv", "gate_activation"),
        *("attention_dropout_rate", "input_layer", "zero_triu", "padding_idx"),
        *("layer_drop_rate", "max_pos_emb_len", "use_ffn", "macaron_ffn"),
        *("ffn_activation_type", "linear_units", "positionwise_layer_type"),
        *("merge_conv_kernel", "interctc_layer_idx", "interctc_use_conditioning"),
        *_ATTENTION,
    },
    "decoder_conf": {
        *("attention_heads", "linear_units", "num_blocks", "input_layer"),
        *("self_attention_dropout_rate", "src_attention_dropout_rate"),
        *("use_output_layer", "normalize_before", "concat_after", "layer_drop_rate"),
        *_ATTENTION,
    },
    "model_conf": {
        *("ctc_weight", "interctc_weight", "ignore_id", "lsm_weight"),
        *("length_normalized_loss", "report_cer", "report_wer", "sym_space"),
        *("sym_blank", "sym_sos", "sym_eos", "sym_sop", "sym_na"),
        "extract_feats_in_collect_stats",
    },
    "preprocessor_conf": {
        *("text_prev_name", "text_ctc_name", "fs", "na_symbol", "speech_length"),
        *("speech_resolution", "speech_init_silence", "text_prev_apply_prob"),
        *("time_apply_prob", "notime_symbol", "first_time_symbol"),
        "last_time_symbol",
    },
}


@pytest.mark.parametrize("name", ["train_powsm", "train_powsm_fast", "train_mini_long"])
def test_packed_settings_hold_no_argument_that_older_espnets_lack(name, tmp_path):
    """Other packages that build the model from `config.yaml`, as PRiSM, too."""
    settings = config.load(PROFILE.with_name(f"{name}.yaml"))
    written = config.stock_config(config.parse(settings, tmp_path / "x.yaml"))
    assert written["model"] == "espnet" and written["encoder"] == "e_branchformer"
    publish._keep_kernels_apart(written)
    flash = {"use_flash_attn"} if name == "train_powsm" else set()
    for part, known in OLDEST.items():
        more = flash if part in ("encoder_conf", "decoder_conf") else set()
        assert set(written.get(part) or {}) <= known | more, part
    others = ("preencoder_conf", "postencoder_conf", "ctc_conf")
    assert not any(written.get(part) for part in others[:2])
    assert set(written["ctc_conf"]) <= {
        *("dropout_rate", "ctc_type", "reduce", "ignore_nan_grad", "zero_infinity")
    }


def test_packed_model_is_the_one_that_was_packed(exp, packed):
    before = Recogniser.load(exp).model.state_dict()
    found = find_model(packed.folder)
    assert found.normaliser == MADE_WITH
    for model in (packed.folder, packed.archive):
        after = Recogniser.load(model).model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[key], before[key]) for key in before)


def test_config_says_nothing_of_the_machine(root, packed):
    text = (packed.folder / "exp/exp/config.yaml").read_text()
    assert str(root) not in text
    ours = yaml.safe_load(text)["powsm"]
    assert ours["model_conf"]["teacher"] == "larger"
    assert ours["augment"]["noise"]["folder"] == "street"
    assert "output_dir" not in yaml.safe_load(text)
    assert yaml.safe_load(text)["bpemodel"] == "data/token_list/tokens/bpe.model"


def test_packed_model_says_what_its_training_began_with(packed):
    """Fine-tuned or gone on, it is no training from scratch to a paper's table."""
    (written,) = packed.folder.glob("exp/*/config.yaml")
    model = Trained.read(written)
    assert facts(model.settings, ["pr"])["init_param"] == ("init.pth",)
    assert model.began_at == "first"


def test_stock_espnet_decodes_packed_and_unpacked_alike(root, exp, packed, caplog):
    """With `powsm` out of reach; all four tasks, and `espnet phonemize`."""
    said = check_with_stock(packed, find_model(exp), root / "speech.wav", "eng")
    assert said.keys() == {"pr", "asr", "g2p", "p2g", "phonemize"}
    for task in ("pr", "asr", "g2p", "p2g"):
        assert said[task].startswith(f"<eng><{task}><notimestamps>")
    assert "espnet phonemize says" not in caplog.text  # it ends where it should


def test_clip_in_a_language_of_a_test_set_alone(root, exp, packed, monkeypatch):
    """Stock ESPnet knows the language by its token, or as unknown."""
    asked = []
    monkeypatch.setattr(publish, "pack", lambda *_, **__: packed)
    monkeypatch.setattr(publish, "check_with_stock", lambda *a: asked.append(a) or {})
    for lang in ("rus", "eng"):
        make_dump(root / f"dump_{lang}/test_a", [0.6], langs=(lang,))
        run_verb("pack", "--exp", exp, "--dump", root / f"dump_{lang}")
    assert [lang for *_, lang in asked] == ["unk", "eng"]


def test_card_that_somebody_wrote_is_kept(root, tmp_path, caplog):
    exp = make_experiment(tmp_path, root / "tokens")
    folder = pack(exp, train_set=root / "train").folder
    first = (folder / "README.md").read_text()
    pack(exp, train_set=root / "train")
    assert not (exp / "before.README.md").exists()
    (folder / "README.md").write_text("license: mit\n")
    pack(exp, train_set=root / "train")
    assert (folder / "README.md").read_text() == first
    assert (exp / "before.README.md").read_text() == "license: mit\n"
    assert "packed/README.md: written anew" in caplog.text


def test_both_are_asked_with_the_range_of_times_that_is_packed(
    root, exp, packed, monkeypatch
):
    """Else a model that says <notimestamps> anywhere differs, as after one epoch."""
    seen = []

    def stop(command, **how):
        asked = json.loads(Path(command[-1]).read_text())
        seen.append(yaml.safe_load(Path(asked["config"]).read_text()))
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(publish.subprocess, "run", stop)
    with pytest.raises(PackError, match="stock ESPnet fails on it"):
        check_with_stock(packed, find_model(exp), root / "speech.wav", "eng")
    packed_config = yaml.safe_load((packed.folder / "exp/exp/config.yaml").read_text())
    assert seen[0]["preprocessor_conf"] == packed_config["preprocessor_conf"]


def test_snippet_of_the_card_runs_on_the_tag(root, packed, hub, tmp_path):
    """As a reader runs it: from the Hub, in a process that knows no `powsm`."""
    hub.add_repo("user/tiny_powsm", files_of(packed.folder), repo_type="model")
    card = (packed.folder / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "powsm" not in snippet.replace("user/tiny_powsm", "")
    blocked = f"import sys\nsys.modules['powsm'] = None\n{snippet}"
    env = os.environ | hub.env | {"HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", blocked],
        **{"cwd": root, "env": env, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = [line.split()[0] for line in done.stdout.splitlines()]
    assert sorted(said) == ["asr", "g2p", "p2g", "pr"]


def test_card_says_what_each_score_heard_of_a_recording(root, exp, tmp_path):
    result = {
        **{"set": "test_a", "lang": "all", "task": "pr", "metric": "PFER"},
        **{"decode": "joint", "value": 9.0, "low": 8.0, "high": 10.0},
        **{"n_utts": 3, "n_units": 30},
    }
    names = ("decode_joint", "decode_paper", "decode_mine")
    results = [result | {"profile": name} for name in names]
    (tmp_path / "results.json").write_text(json.dumps(results))
    profiles = [PROFILE, PROFILE.with_name("decode_paper.yaml")]
    files = replace(find_model(exp), normaliser=MADE_WITH)
    card = model_card(files, tmp_path, tag="x", profiles=profiles)
    rows = [line for line in card.splitlines() if line.startswith("| test_a")]
    heard = {row.split(" | ")[2]: row.split(" | ")[3] for row in rows}
    assert heard == {
        "joint": "its own length",
        "paper": "padded to 20 s",
        "mine": "not known",  # its profile is not packed
    }
    assert "The code above pads to 20 s" in card


def test_card_tells_languages_policies_and_profiles(packed):
    card = (packed.folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["language"] == ["eng", "ita"] and header["library_name"] == "espnet"
    assert "policy `strict` (`strict/1`), text by policy `powsm_fix`" in card
    assert "`conf/decode_joint.yaml`" in card


def test_weights_are_packed_under_the_names_that_every_espnet_reads(packed):
    """Up to 202511, and in PRiSM, the subsampling's Linear is `out.0`."""
    for path in (
        packed.folder / "model.safetensors",
        *packed.folder.glob("exp/*/*.pth"),
    ):
        embed = {name for name in read_weights(path) if ".embed.out" in name}
        assert embed == {"encoder.embed.out.0.weight", "encoder.embed.out.0.bias"}


def test_published_checkpoint_is_packed_with_its_statistics(root, tmp_path):
    """Old parameter names go in and come out; statistics go along."""
    files = find_model(make_published(tmp_path / "old", root / "tokens"))
    exp = files.config_file.parent
    folder = pack(exp, model_file=files.weights_file, train_set=root / "train").folder
    assert "encoder.embed.out.0.weight" in read_weights(folder / "model.safetensors")
    config = yaml.safe_load(next(folder.glob("exp/*/config.yaml")).read_text())
    stats = config["normalize_conf"]["stats_file"]
    assert stats == "exp/s2t_stats_raw/train/feats_stats.npz"
    assert (folder / stats).exists()


def test_long_form_decoding_may_leave_out_times(packed):
    """ESPnet's `phonemize` starts with a time or, so, with <notimestamps>."""
    config = yaml.safe_load((packed.folder / "exp/exp/config.yaml").read_text())
    conf, tokens = config["preprocessor_conf"], config["token_list"]
    assert conf["first_time_symbol"] == conf["notime_symbol"] == "<notimestamps>"
    assert tokens.index("<0.00>") == tokens.index("<notimestamps>") + 1


def test_model_that_does_not_load_is_not_packed(root, tmp_path):
    exp = make_experiment(tmp_path, root / "tokens")
    state = read_weights(exp / "valid.loss.ave.pth")
    del state["ctc.ctc_lo.bias"]
    torch.save(state, exp / "valid.loss.ave.pth")
    with pytest.raises(CheckpointError, match="ctc.ctc_lo.bias is missing"):
        pack(exp, train_set=root / "train")
    assert sorted(os.listdir(exp)) == [
        "config.yaml",
        "settings.yaml",
        "valid.loss.ave.pth",
    ]


def test_unknown_normaliser_stops_the_packing(root, tmp_path):
    exp = make_experiment(tmp_path, root / "tokens")
    with pytest.raises(PackError, match="no normaliser.json says"):
        pack(exp)
    assert not list(exp.glob("*packed*"))


def test_what_was_written_is_read_back(root, tmp_path, monkeypatch):
    """A disk that turns a number round is noticed before the folder is in place."""
    exp = make_experiment(tmp_path, root / "tokens")

    def save_wrongly(state, path, **_):
        torch_save({k: v + 1 if k == "ctc.ctc_lo.bias" else v
                    for k, v in state.items()}, path)  # fmt: skip

    torch_save = torch.save
    monkeypatch.setattr(publish.torch, "save", save_wrongly)
    with pytest.raises(PackError, match="ctc.ctc_lo.bias is not what was packed"):
        pack(exp, train_set=root / "train")
    assert not (exp / "packed").exists()


# ------------------------------------------------------------------------- upload


@pytest.fixture
def client(hub, monkeypatch):
    """A hub, and a client in this process that may write there."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def test_upload_brings_every_byte(client, packed, caplog):
    caplog.set_level("DEBUG")
    address = upload.upload(packed.folder, "user/tiny_powsm", private=True)
    repo = client.repos["models/user/tiny_powsm"]
    assert repo.files == files_of(packed.folder)
    assert repo.private and address.startswith(client.url)
    assert TOKEN not in caplog.text


def test_upload_again_sends_nothing_large_again(client, packed):
    client.fail("POST .*/commit/", status=500, times=9)
    with pytest.raises(HubError, match="answered 500; try again later"):
        upload.upload(packed.folder, "user/tiny_powsm")
    client.faults.clear()
    n_sent = client.count("PUT /lfs/")
    upload.upload(packed.folder, "user/tiny_powsm")
    assert client.count("PUT /lfs/") == n_sent > 0
    assert client.repos["models/user/tiny_powsm"].files == files_of(packed.folder)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "answered 401; set HF_TOKEN, or log in with `hf auth login`"),
        (403, "answered 403; the token may not write to user/tiny_powsm"),
        (429, "answered 429; too many requests"),
    ],
)
def test_refusal_says_what_to_do_and_no_token(
    client, packed, status, message, capfd, caplog
):
    caplog.set_level("DEBUG")
    client.fail("POST /api/repos/create", status=status, times=9)
    with pytest.raises(HubError, match=message) as caught:
        upload.upload(packed.folder, "user/tiny_powsm")
    everything = str(caught.getrepr()) + caplog.text + "".join(capfd.readouterr())
    assert TOKEN not in everything.replace(f"TOKEN = {TOKEN!r}", "")


def test_wrong_token_is_refused(client, packed, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_anothertoken")
    with pytest.raises(HubError, match="answered 401; set HF_TOKEN"):
        upload.upload(packed.folder, "user/tiny_powsm")


def test_hub_that_is_down(client, packed):
    client.stop()
    with pytest.raises(HubError, match="connection to .* failed.*stage 15"):
        upload.upload(packed.folder, "user/tiny_powsm")


def test_half_a_folder_is_not_uploaded(client, tmp_path):
    (tmp_path / "meta.yaml").write_text("yaml_files: {}\nfiles: {}\n")
    with pytest.raises(CheckpointError):
        upload.upload(tmp_path, "user/tiny_powsm")
    assert not client.requests
