"""Train: Lightning around ESPnet's task and model, with ESPnet's experiment folder.

Lightning brings ranks, precision, accumulation, checkpoints and loggers. What is
kept from ESPnet is what its users and its inference read: `config.yaml`,
`<epoch>epoch.pth`, `valid.<criterion>.ave_<n>best.pth`, `train.log`.

The order of the data comes from (seed, pass) and the random numbers of a step from its
number, so a run that was killed and resumed goes through the same steps as one that
was not.
"""

import argparse
import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import lightning as L
import torch
import yaml
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor
from typeguard import TypeCheckError

from powsm.cluster.ranks import meet
from powsm.errors import PowsmError
from powsm.files.lock import owned
from powsm.files.whole import atomic_write
from powsm.model.find import find_model, keep_normaliser, keep_tokens
from powsm.model.start_from import added_tokens, load_initial
from powsm.prepare.index import build_index
from powsm.prepare.weights import read_weights
from powsm.settings import ConfigError
from powsm.train.checkpoints import (
    AtomicCheckpointIO,
    EpochModels,
    ResumableCheckpoint,
    checkpoint_to_resume,
    newest_checkpoint,
    remove_broken_off,
)
from powsm.train.config import check_tokens, not_read, parse, stock_config, with_data
from powsm.train.experiment.go_on import go_on_from
from powsm.train.experiment.record import check_experiment, has_weights, keep_record
from powsm.train.lit import LitPowsm
from powsm.train.loader import handing_over
from powsm.train.logged import Logged, loggers
from powsm.train.memory import PartFinder, RankStrategy, TrainingError
from powsm.train.parts.adapters import Lora, add_adapters
from powsm.train.parts.freeze import check_ctc_alone, freeze
from powsm.train.progress import Bar, Clock, Watchdog
from powsm.vocabulary.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def train_experiment(
    settings: Mapping,
    *,
    train_folder: Path,
    valid_folder: Path,
    token_dir: Path,
    stats: Path | None,
    exp: Path,
    goes_on_from: Path | None = None,
) -> Path:
    """Stage 11: train in an experiment folder, which one process at a time may do.

    Nothing is written where an experiment was trained with something else.

    Args:
        settings: of the training YAML, `powsm.train.config.load`.
        train_folder, valid_folder: dump folders of stage 4.
        token_dir: `tokens.txt` and `bpe.model` of stage 5.
        stats: `feats_stats.npz` of stage 10, for `normalize: global_mvn`.
        exp: the experiment folder.
        goes_on_from: a finished experiment that this one is to continue.

    Raises:
        ConfigError: a token list with faults.
        GoOnError: it cannot go on from that experiment.
        ExperimentError: the experiment was trained with something else.
        OwnedError: another process trains there.
        TrainingError, RankError, StoppedBySignal: see `train`.
    """
    folders = {"train_folder": train_folder, "valid_folder": valid_folder}
    data = folders | {"token_dir": token_dir, "stats": stats}
    with owned(exp) if _is_first() else nullcontext():
        args = look(settings, **data, exp=exp, goes_on_from=goes_on_from)
        if goes_on_from is not None and _is_first():
            go_on_from(args, before=goes_on_from, exp=exp, **folders)
        return train(args, exp=exp, **folders)


def look(
    settings: Mapping,
    *,
    train_folder: Path,
    valid_folder: Path,
    token_dir: Path,
    stats: Path | None,
    exp: Path,
    goes_on_from: Path | None = None,
) -> argparse.Namespace:
    """All settings, where an experiment may be trained with them; nothing is written.

    Raises:
        ConfigError, ExperimentError: see `train_experiment`.
    """
    check_tokens(token_dir / "tokens.txt")
    with tempfile.TemporaryDirectory() as scratch:
        settings = with_data(settings, token_dir=token_dir, stats=stats)
        args = parse(settings, Path(scratch) / "settings.yaml")
    _check(args)
    if goes_on_from is None or has_weights(exp):
        folders = {"train_folder": train_folder, "valid_folder": valid_folder}
        check_experiment(args, exp=exp, **folders)
    Tokenizer(token_dir / "bpe.model", token_dir / "tokens.txt")  # which fit
    if "RANK" not in os.environ:  # ranks look for theirs where they meet
        _check_gpu(args)
    return args


def _check_gpu(args: argparse.Namespace) -> None:
    if args.ngpu > 0 and not torch.cuda.is_available():
        raise TrainingError(
            f"ngpu is {args.ngpu}, but PyTorch finds no GPU on {socket.gethostname()}: "
            "see nvidia-smi, or set --ngpu 0 to train on the CPU"
        )


def train(
    args: argparse.Namespace, *, train_folder: Path, valid_folder: Path, exp: Path
) -> Path:
    """Train to `max_epoch`, going on from the newest checkpoint in `exp`.

    Args:
        args: all settings, from `powsm.train.config.parse`.
        train_folder, valid_folder: dump folders of stage 4.
        exp: the experiment folder.

    Returns:
        The averaged model of the first criterion.

    Raises:
        ConfigError: a setting is one that only ESPnet's own loop reads.
        CheckpointError: a teacher that is not there, or does not fit.
        TrainingError: gradients stay infinite, a criterion does not exist, a GPU is
            wanted and there is none, or no checkpoint can be used.
        LoadingError: a batch cannot be handed over.
        RankError: a rank is missing or out of order.
        StoppedBySignal: a signal asked for the end; all is saved.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    _check(args)
    exp.mkdir(parents=True, exist_ok=True)
    for folder in (train_folder, valid_folder):
        # by one rank; the others wait at its lock, however long it takes, and not
        # where the ranks meet
        build_index(folder)
    if world_size > 1:
        meet(cuda=args.ngpu > 0)
    else:
        _check_gpu(args)
    args.output_dir = str(exp)
    set_all_random_seed(args.seed)
    torch.set_flush_denormal(True)  # numbers near zero cost a CPU a hundred times more
    with _telling_what_makes_no_model():
        module = LitPowsm(args, train_folder, valid_folder)
        module.dataset("train")  # whose prompts may not be left out
    if newest_checkpoint(exp) is None:
        for init_param in args.init_param:
            load_initial(module.model, init_param)
    if lora := Lora.of(args.lora):
        add_adapters(module.model, lora, added_tokens(args.init_param[0]))
    checkpoint = checkpoint_to_resume(exp, module.model)
    freeze(module.model, args.freeze_param)
    if args.ctc_only_updates:
        check_ctc_alone(module.model)
    module.batch_options = module.batch_options.shared_by(world_size)
    if _is_first():
        remove_broken_off(exp)
    clock = Clock(args.log_interval or 50)
    models = EpochModels(exp, args.best_model_criterion, _nbest(args), clock)
    _check_criteria(models, module)
    callbacks = _callbacks(args, exp, clock, models)
    trainer = _trainer(args, exp, module, world_size, callbacks)
    if trainer.is_global_zero:
        folders = {"train_folder": train_folder, "valid_folder": valid_folder}
        keep_normaliser(train_folder, exp)
        keep_record(args, exp=exp, **folders)
        tokens = {"bpemodel": str(keep_tokens(Path(args.bpemodel), exp))}
        config = stock_config(args) | tokens
        with atomic_write(exp / "config.yaml") as file:
            yaml.safe_dump(config, file, allow_unicode=True, sort_keys=False)
    # it is: train_dataloader starts where the checkpoint's counters say
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
    with handing_over():
        trainer.fit(module, ckpt_path=checkpoint)
    return models.average() if trainer.is_global_zero else exp


@contextmanager
def _telling_what_makes_no_model() -> Iterator[None]:
    """One line where ESPnet's classes refuse their settings, each in its own way."""
    try:
        yield
    except PowsmError:
        raise
    except (
        ValueError,
        TypeError,
        KeyError,
        NotImplementedError,
        AssertionError,
        TypeCheckError,  # of ESPnet's constructors
    ) as err:
        fault = " ".join(f"{type(err).__name__}: {err}".split())
        raise ConfigError(
            f"no model can be built of these settings ({fault}); see frontend_conf, "
            "encoder_conf, decoder_conf and model_conf"
        ) from err


def _is_first() -> bool:
    """Whether this is rank 0, before Lightning is there to ask."""
    return int(os.environ.get("RANK", "0")) == 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what only ESPnet's own loop does."""
    if args.iterator == "published":
        raise TrainingError(
            "iterator: published is ESPnet's own sampler with one row per example; "
            "train with --trainer espnet, or set iterator=utterances"
        )
    if args.lora and not args.init_param:
        raise ConfigError(
            "lora trains adapters of a trained model: name it with --init_from, or "
            "init_param"
        )
    if teacher := dict(args.model_conf).get("teacher"):
        find_model(teacher)  # before anything is written
    if args.utt2weight:
        read_weights(Path(args.utt2weight))
    if unread := not_read(args):
        raise ConfigError(
            f"only ESPnet's own loop reads {', '.join(unread)}: remove them, or train "
            "with --trainer espnet"
        )


def _check_criteria(models: EpochModels, module: LitPowsm) -> None:
    for _, name, _ in models.criteria:
        if "ctc" in name and module.model.ctc is None:
            raise TrainingError(
                f"best_model_criterion valid {name}: there is no CTC with "
                "model_conf.ctc_weight 0; take another, such as acc"
            )


def _callbacks(
    args: argparse.Namespace, exp: Path, clock: Clock, models: EpochModels
) -> list[L.Callback]:
    """In the order in which Lightning calls them, but for ResumableCheckpoint: last."""
    is_auto = dict(args.batch_conf).get("batch_seconds") == "auto"
    finder = [PartFinder()] if is_auto else []
    averaging = []
    if args.ema_decay:  # of weights: the numbers of rows of PhoneLinear are buffers
        # Lightning makes the average before it moves the model to a GPU
        local = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        device = local if args.ngpu > 0 else "cpu"
        averaging = [
            EMAWeightAveraging(device, decay=args.ema_decay, use_buffers=False)
        ]
    bar = [Bar(clock)] if sys.stdout.isatty() else []
    resumable = ResumableCheckpoint(
        dirpath=exp / "checkpoints",
        filename="step{step:09d}",
        auto_insert_metric_name=False,
        every_n_train_steps=args.checkpoint_every_n_updates or 0,
        every_s=60 * args.checkpoint_every_minutes,
        save_top_k=2,
        monitor="step",
        mode="max",
        save_last=False,
    )
    # the averages' on_validation_epoch_end comes after that of `models`, see there
    return [
        *(*finder, clock, models, *averaging, *bar, Watchdog(), Logged(clock)),
        *(resumable, LearningRateMonitor()),
    ]


def _trainer(
    args: argparse.Namespace,
    exp: Path,
    module: LitPowsm,
    world_size: int,
    callbacks: list[L.Callback],
) -> L.Trainer:
    cuda = args.ngpu > 0
    # not Lightning's guess: inside a Slurm job it would count Slurm's tasks
    ranks = TorchElasticEnvironment() if world_size > 1 else LightningEnvironment()
    strategy: RankStrategy | str = "auto"
    if world_size > 1:
        strategy = RankStrategy(process_group_backend="nccl" if cuda else "gloo")
    ranks_a_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # what Lightning says is in our own lines, but for an advertisement
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", message=".*`srun` command is available")
    return L.Trainer(
        accelerator="cuda" if cuda else "cpu",
        devices=ranks_a_node,
        num_nodes=world_size // ranks_a_node,
        strategy=strategy,
        plugins=[ranks, AtomicCheckpointIO()],
        precision="bf16-mixed" if args.use_amp else "32-true",
        max_epochs=args.max_epoch,
        accumulate_grad_batches=max(
            1, module.batch_options.update_batches // world_size
        ),
        gradient_clip_val=args.grad_clip if args.grad_clip > 0 else None,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        log_every_n_steps=10,
        callbacks=callbacks,
        logger=loggers(args, exp),
        enable_progress_bar=any(isinstance(c, Bar) for c in callbacks),
        enable_model_summary=False,
    )


def _nbest(args: argparse.Namespace) -> int:
    nbest = args.keep_nbest_models
    return max(nbest) if isinstance(nbest, list) else nbest
