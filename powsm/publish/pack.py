"""Pack a trained model as ESPnet publishes them: a folder for the Hub and an archive.

    README.md  meta.yaml  model.safetensors  RESULTS.md  results.json
    exp/<name>/{config.yaml,<weights>.pth,normaliser.json,goes_on_from.json,
        boundaries.json}
    exp/s2t_stats_raw/train/feats_stats.npz
    data/token_list/<name>/{bpe.model,tokens.txt,phones_by_lang.json}
    conf/decode_*.yaml

`espnet2.bin.s2t_inference` loads both, and so does `powsm.model.find`.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from powsm.decode.timing.stored import pack_timing
from powsm.errors import PowsmError
from powsm.files.datadir import NORMALISER_FILE
from powsm.files.whole import (
    atomic_folder,
    atomic_write,
    read_json,
    sha256_file,
    sweep_files,
    write_json,
    write_whole,
)
from powsm.model.find import (
    CONFIG_KEY,
    GOES_ON_FILE,
    SAFETENSORS,
    SUMS_FILE,
    WEIGHTS_KEY,
    ModelFiles,
    find_model,
)
from powsm.model.weights import current_names, load_model, names_for_all, read_weights
from powsm.publish.card import model_card
from powsm.score.results import RESULTS_FILE
from powsm.settings import load_yaml
from powsm.tasks import TASKS
from powsm.vocabulary.phone_sets import COUNTS_FILE

log = logging.getLogger(__name__)

STATS = "exp/s2t_stats_raw/train/feats_stats.npz"
CARD = "README.md"
# What a configuration says of the machine of training and of its data
_OF_THE_MACHINE = (
    "output_dir",
    "train_data_path_and_name_and_type",
    "valid_data_path_and_name_and_type",
    "train_shape_file",
    "valid_shape_file",
    "init_param",
)


class PackError(PowsmError):
    """A model that cannot be published as it is; the message says why."""


@dataclass(frozen=True)
class Packed:
    """What was written."""

    folder: Path
    archive: Path
    n_parameters: int


def pack(
    exp: Path,
    *,
    model_file: Path | None = None,
    train_set: Path | None = None,
    profiles: Sequence[Path] = (),
    hf_repo: str = "",
) -> Packed:
    """Write `<exp>/packed` and `<exp>/<name>_<weights>.zip`, whole or not at all.

    Args:
        exp: experiment folder.
        model_file: weights; default the average.
        train_set: its dump folder, for how the training set was normalised, if the
            experiment folder does not say.
        profiles: decode profiles to go along.
        hf_repo: Hub tag that the model card speaks of; default: the archive.

    Raises:
        CheckpointError: the model does not load as it is.
        PackError: it is not known how the training set was normalised, or the packed
            model is not the one that was to be packed.
    """
    files = find_model(exp, model_file)
    name = exp.resolve().name
    weights_file = files.weights_file.resolve()  # behind valid.*.ave.pth
    archive = exp / f"{name}_{weights_file.stem}.zip"
    with atomic_folder(exp / "packed") as folder:
        # a training may be at work on other files
        sweep_files(exp, below=False, of=[archive.name])
        model = load_model(files)
        state = current_names(read_weights(weights_file), model.state_dict())
        state = names_for_all(state)
        _fill(folder, files, state, train_set)
        for path in profiles:
            _copy(path, folder / "conf" / path.name)
        for file in ("RESULTS.md", RESULTS_FILE):
            if (exp / file).exists():
                _copy(exp / file, folder / file)
        card = model_card(
            find_model(folder), exp, tag=hf_repo or archive.name, profiles=profiles
        )
        (folder / CARD).write_text(card, encoding="utf-8")
        _compare(folder, state)
        _archive(folder, archive)
        _keep_card(exp, card)
    n_parameters = sum(p.numel() for p in model.parameters())
    return Packed(exp / "packed", archive, n_parameters)


def _keep_card(exp: Path, card: str) -> None:
    """Keep the card of an earlier packing where it is another: people write in it."""
    written = exp / "packed" / CARD
    if written.is_file() and (earlier := written.read_bytes()) != card.encode():
        kept = exp / f"before.{CARD}"
        write_whole(kept, earlier)
        log.warning(
            "%s: written anew; what it was, with all that was written into it, is in "
            "%s",
            *(written, kept),
        )


def _fill(
    folder: Path,
    files: ModelFiles,
    state: dict[str, torch.Tensor],
    train_set: Path | None,
) -> None:
    """Write the model itself."""
    name = files.config_file.resolve().parent.name
    config_file = f"exp/{name}/config.yaml"
    weights_file = f"exp/{name}/{files.weights_file.resolve().stem}.pth"
    token_dir = f"data/token_list/{files.bpe_model.parent.name}"
    config = load_yaml(files.config_file)
    _keep_names_alone(config)
    for key in _OF_THE_MACHINE:
        config.pop(key, None)
    config["preprocessor_conf"] = _with_no_times(config)
    _keep_kernels_apart(config)
    config["bpemodel"] = f"{token_dir}/bpe.model"
    _copy(files.bpe_model, folder / config["bpemodel"])
    counts = files.bpe_model.with_name(COUNTS_FILE)
    if counts.exists():
        _copy(counts, folder / token_dir / COUNTS_FILE)
    if files.stats_file is not None:
        config["normalize_conf"] = {**config["normalize_conf"], "stats_file": STATS}
        _copy(files.stats_file, folder / STATS)
    (folder / config_file).parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
    (folder / config_file).write_text(text, encoding="utf-8")
    goes_on = files.config_file.with_name(GOES_ON_FILE)
    if goes_on.exists():
        _copy(goes_on, (folder / config_file).with_name(GOES_ON_FILE))
    tokens = "".join(f"{token}\n" for token in config["token_list"])
    (folder / token_dir / "tokens.txt").write_text(tokens, encoding="utf-8")
    normaliser = files.normaliser
    record = train_set / NORMALISER_FILE if train_set is not None else None
    if not normaliser and record is not None and record.exists():
        keys = ("policy", "text_policy")
        normaliser = read_json(record, "run stage 4 again", keys=keys)
    if not normaliser:
        raise PackError(
            f"{files.source}: no {NORMALISER_FILE} says how its training set was "
            "normalised, which users need for g2p and p2g; name the set with --dump"
        )
    target = (folder / config_file).with_name(NORMALISER_FILE)
    write_json(target, dict(normaliser))
    torch.save(state, folder / weights_file)
    contiguous = {key: value.contiguous() for key, value in state.items()}
    save_file(contiguous, folder / SAFETENSORS, metadata={"format": "pt"})
    # which is for its owner alone; a model is for everybody
    (folder / SAFETENSORS).chmod((folder / weights_file).stat().st_mode)
    copies = [folder / weights_file, folder / SAFETENSORS]
    pack_timing(files.config_file, files.weights_file, folder / config_file, copies)
    index = {
        "yaml_files": {CONFIG_KEY: config_file},
        "files": {WEIGHTS_KEY: weights_file},
    }
    (folder / "meta.yaml").write_text(yaml.safe_dump(index), encoding="utf-8")
    _write_sums(folder)


def _keep_kernels_apart(config: dict) -> None:
    """Move `use_sdpa` to where no other reader looks: it chooses a kernel, no result.

    Older ESPnets and the loader of PRiSM refuse the key. What they do not know and says
    nothing is left out: `use_flash_attn: false` (202402), `brctc_*` (202310).
    """
    parts = []
    for part in ("encoder_conf", "decoder_conf", "promptencoder_conf"):
        if part not in config:
            continue  # there is a decoder, or an encoder of prompts
        conf = dict(config[part])
        if conf.pop("use_sdpa", False):
            parts.append(part)
        if not conf.get("use_flash_attn"):
            conf.pop("use_flash_attn", None)
        config[part] = conf
    config["powsm"] = {**(config.get("powsm") or {}), "use_sdpa": parts}
    ctc = dict(config.get("ctc_conf") or {})
    if ctc.get("ctc_type") != "brctc":
        kept = {k: v for k, v in ctc.items() if not k.startswith("brctc_")}
        config["ctc_conf"] = kept


def _keep_names_alone(config: dict) -> None:
    """Of a teacher, noise and first weights keep the names, which say where from.

    The weights are named under `powsm` alone: ESPnet would look for the files.
    """
    ours = config["powsm"] = dict(config.get("powsm") or {})
    if began_with := config.get("init_param"):
        ours["init_param"] = [Path(weights).name for weights in began_with]
    model_conf = dict(ours.get("model_conf") or {})
    if teacher := model_conf.get("teacher"):
        ours["model_conf"] = model_conf | {"teacher": Path(teacher).name}
    augment = dict(ours.get("augment") or {})
    noise = dict(augment.get("noise") or {})
    if noise.get("folder"):
        noise["folder"] = Path(noise["folder"]).name
        ours["augment"] = augment | {"noise": noise}


def _write_sums(folder: Path) -> None:
    """Hashes of the files that no reader changes by hand: see `find.SUMS_FILE`."""
    sealed = sorted(
        path
        for kind in ("*.safetensors", "*.pth", "*.npz", "*.model")
        for path in folder.rglob(kind)
    )
    lines = [f"{sha256_file(path)}  {path.relative_to(folder)}\n" for path in sealed]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def _with_no_times(config: dict) -> dict:
    """Preprocessor settings with which ESPnet's long-form decoding may leave out times.

    `espnet phonemize` and `decode_long` let an encoder-decoder model begin with a time
    symbol, and end only after another. This one saw none in training and would go on to
    the longest output. `<notimestamps>` comes right before `<0.00>` in the token list,
    and counts as a time if the range begins with it; the model then takes that.
    """
    conf = dict(config["preprocessor_conf"])
    if "first_time_symbol" not in conf:  # of a model without a decoder
        return conf
    tokens = config["token_list"]
    before = tokens[tokens.index(conf["first_time_symbol"]) - 1]
    if before == conf["notime_symbol"]:
        conf["first_time_symbol"] = before
    return conf


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _compare(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """Read back what was written: it builds, and every parameter is the same."""
    files = find_model(folder)
    load_model(files)  # of the safetensors
    pickled = next(files.config_file.parent.glob("*.pth"))
    for path in (files.weights_file, pickled):
        written = read_weights(path)
        changed = [
            key
            for key in {*state, *written}
            if key not in written or not torch.equal(written[key], state[key])
        ]
        if changed:
            raise PackError(f"{path}: {sorted(changed)[0]} is not what was packed")


def _archive(folder: Path, archive: Path) -> None:
    """Write the folder as ESPnet's archive, the weights once, the same bytes each time.

    `espnet2.bin.pack` writes the time into it, and of files their times.
    """
    members = sorted(path for path in folder.rglob("*") if path.is_file())
    members = [path for path in members if path.name != SAFETENSORS]
    with atomic_write(archive, "wb") as file, zipfile.ZipFile(file, "w") as written:
        for path in members:
            member = zipfile.ZipInfo(str(path.relative_to(folder)))  # of 1980
            member.external_attr = 0o100644 << 16
            member.file_size = path.stat().st_size  # more than 4 GB are said first
            with open(path, "rb") as source, written.open(member, "w") as target:
                shutil.copyfileobj(source, target)


# -------------------------------------------------------------- as others see it


def check_with_stock(packed: Packed, files: ModelFiles, clip: Path, lang: str) -> dict:
    """Compare packed and unpacked model on a clip, by stock ESPnet alone.

    Args:
        files: the unpacked model.
        clip: an audio file, 16 kHz.
        lang: ISO 639-3 of it, with a token of its own, or `unk`.

    Returns:
        What both say, by task, and under `phonemize` what that command of ESPnet says
        to the packed one.

    Raises:
        PackError: they differ, or ESPnet cannot load or decode one of them.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = load_yaml(files.config_file)
        if files.stats_file is not None:
            stats = {"stats_file": str(files.stats_file.resolve())}
            config["normalize_conf"] = {**config["normalize_conf"], **stats}
        config["bpemodel"] = str(files.bpe_model.resolve())
        # one that learnt little may say <notimestamps> anywhere, and ESPnet bars times
        config["preprocessor_conf"] = _with_no_times(config)
        config_file = Path(folder) / "config.yaml"
        config_file.write_text(yaml.safe_dump(config), encoding="utf-8")
        request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked = {
            "config": str(config_file),
            "weights": str(files.weights_file.resolve()),
            "archive": str(packed.archive.resolve()),
            "clip": str(clip.resolve()),
            "lang": lang,
            "prompts": {task.name: task.sample for task in TASKS.values()},
            "answer": str(answer),
        }
        request.write_text(json.dumps(asked), encoding="utf-8")
        command = [sys.executable, "-m", "powsm.publish.stock_check", str(request)]
        # ESPnet keeps unpacked archives at home, under the path of the archive alone
        env = os.environ | {"HOME": folder, "XDG_CACHE_HOME": f"{folder}/.cache"}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            last = " ".join(done.stderr.strip().splitlines()[-1:])
            raise PackError(f"{packed.archive}: stock ESPnet fails on it: {last}")
        outputs = json.loads(answer.read_text("utf-8"))
    before, after = outputs["unpacked"], outputs["packed"]
    heard = before.pop("phonemize")
    if {**after, "phonemize": ""} != {**before, "phonemize": ""}:
        raise PackError(
            f"{packed.archive}: stock ESPnet says {after} to {clip}, and {before} with "
            "the unpacked model"
        )
    if after["phonemize"] != heard:
        reason = (
            "does the model choose <notimestamps> where a time could be? It does "
            "once it is trained"
            if "decoder_conf" in config
            else "it takes the best path in windows of 20 s, the other is a beam search"
        )
        log.warning(
            "espnet phonemize says %s to %s, and not %s: %s",
            after["phonemize"],
            clip,
            heard,
            reason,
        )
    return after
