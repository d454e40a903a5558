"""What differs between a training of before and one that is asked for, in words."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from powsm.files.whole import read_json
from powsm.score.results import read_history
from powsm.train.config import OUR_KEYS, get_parser, stock_config

RESTORE = "restore it, or remove it, and what it says is no longer compared"

# may differ: they change neither the model nor the order and weight of its data
_FREE = {
    *("config", "output_dir", "ngpu", "num_workers", "log_interval", "print_config"),
    *("checkpoint_every_n_updates", "checkpoint_every_minutes"),
    *("exchange_in_bfloat16", "compile", "optim_conf.fused"),
    *("keep_nbest_models", "best_model_criterion"),
    *("use_wandb", "wandb_project", "wandb_id", "wandb_entity", "wandb_name"),
    # of ESPnet's loop: how it is run, and where its data are
    *("multiprocessing_distributed", "resume", "log_level", "num_att_plot"),
    *(f"{mode}_{what}" for mode in ("train", "valid") for what in
      ("data_path_and_name_and_type", "shape_file")),
    *("token_list", "bpemodel", "token_type"),  # contents are compared, not places
    *("normalize_conf.stats_file", "max_epoch"),
    *(f"{part}_conf.{key}"
      for part in ("encoder", "decoder", "promptencoder") for key in
      ("use_flash_attn", "use_sdpa", "gradient_checkpoint_layers")),
    *(f"batch_conf.{key}" for key in
      ("batch_seconds", "update_batches", "update_seconds")),  # their product is not
}  # fmt: skip


def settings_differences(
    earlier: Mapping, args: argparse.Namespace, may_change: Sequence[str]
) -> list[str]:
    given = _as_given(earlier)
    before = dict(_flat(given))
    now = dict(_flat(_as_given(stock_config(args))))
    parser = get_parser(args.model)
    known = {action.dest for action in parser._actions} | set(OUR_KEYS)
    differences = []
    if ("powsm" in earlier) != ("iterator" in vars(args)):
        loops = ("ESPnet's own loop", "ours (--trainer powsm)")
        old, new = loops if "iterator" in vars(args) else reversed(loops)
        differences.append(f"trained by {old}, now {new}")
    for key in sorted(before.keys() | now.keys()):
        top = key.partition(".")[0]
        if key in _FREE or top in _FREE or top not in known:
            continue
        if key.startswith("dist_"):  # of ESPnet's loop: its ranks
            continue
        if any(key == free or key.startswith(f"{free}.") for free in may_change):
            continue
        default = _plain(
            parser.get_default(key)
        )  # of a key that is newer than the file
        old, new = before.get(key, default), now.get(key, default)
        if old != new:
            differences.append(f"{key} {_shown(old)}, now {_shown(new)}")
    old, new = (_update_seconds(dict(x.get("batch_conf") or {})) for x in
                (given, vars(args)))  # fmt: skip
    if old != new:
        differences.append(f"batch_conf: {old:g} s of audio an update, now {new:g}")
    return differences


def token_differences(earlier: object, token_list: object) -> list[str]:
    """Other tokens or another order; a token's number is a row of the model."""
    if not isinstance(earlier, list):
        return []
    if isinstance(token_list, str):
        lines = Path(token_list).read_text(encoding="utf-8").split("\n")
        now, place = [line for line in lines if line], token_list
    else:
        now, place = list(token_list), "token_list"
    if now == earlier:
        return []
    for number, (old, new) in enumerate(zip(earlier, now, strict=False)):
        if old != new:
            return [f"token {number} {old!r}, now {new!r} ({place})"]
    return [f"{len(earlier)} tokens, now {len(now)} ({place})"]


def normaliser_differences(earlier: Path, now: Path) -> list[str]:
    before = read_json(earlier, RESTORE)
    if not now.exists():
        return [f"{earlier.name}, now missing ({now.parent})"]
    after = read_json(now, "run stage 4 again")
    return [
        f"{key} {_shown(before.get(key))}, now {_shown(after.get(key))} ({now})"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def epoch_differences(exp: Path, args: argparse.Namespace) -> list[str]:
    """Fewer epochs than are done."""
    kept = (p.name.removesuffix("epoch.pth") for p in exp.glob("*epoch.pth"))
    done = max((int(number) for number in kept if number.isdecimal()), default=0)
    done = max([done, *(int(row["epoch"]) for row in read_history(exp))])
    if args.max_epoch is not None and args.max_epoch < done:
        return [f"max_epoch {args.max_epoch}, but {done} epochs are done"]
    return []


def _flat(settings: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif not (isinstance(value, Mapping) and prefix == ""):
            yield prefix + key, _plain(value)


def _plain(value: object) -> object:
    """Tuples as lists and whole floats as they are compared in YAML."""
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return value


def _as_given(config: Mapping) -> dict:
    """Settings of a `config.yaml` under the names of the training YAML."""
    ours = dict(config.get("powsm") or {})
    settings = {k: v for k, v in config.items() if k != "powsm"}
    model_conf = (settings.get("model_conf") or {}) | (ours.pop("model_conf", {}) or {})
    return settings | ours | {"model_conf": model_conf}


def _shown(value: object) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _update_seconds(batch_conf: Mapping) -> float:
    """Most seconds of audio in an update, however it is cut into batches."""
    if batch_conf.get("update_seconds") is not None:
        return float(batch_conf["update_seconds"])
    seconds = float(batch_conf.get("batch_seconds", 100.0))
    return seconds * int(batch_conf.get("update_batches", 1))
