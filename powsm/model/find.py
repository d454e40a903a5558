"""Models by name: an experiment folder, a packed folder or archive, or a Hub tag.

Packed folders are as ESPnet publishes them: a `meta.yaml` that names the training
configuration and the weights, which are below it with the SentencePiece model and
the statistics. A Hub tag is `espnet/powsm`, `espnet/powsm@revision` (or a pull request,
`@refs/pr/1`), or a sub-folder, `espnet/powsm/textnorm_retrained`.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from powsm.errors import PowsmError
from powsm.files.archives import unpack
from powsm.files.datadir import NORMALISER_FILE
from powsm.files.whole import read_json, sha256_file, sweep_files, write_whole
from powsm.settings import load_yaml
from powsm.vocabulary.phone_sets import COUNTS_FILE

log = logging.getLogger(__name__)

CONFIG_KEY = "s2t_train_config"  # of meta.yaml, as espnet2.bin.pack writes it
WEIGHTS_KEY = "s2t_model_file"
SAFETENSORS = "model.safetensors"  # beside meta.yaml; the same weights, read faster
SUMS_FILE = "SHA256SUMS"  # beside meta.yaml, as `sha256sum` writes and checks it
GOES_ON_FILE = "goes_on_from.json"  # beside config.yaml: whose end a training began at
TOKENS = "token_list"  # folder beside config.yaml: tokens that stage 5 does not replace

# Published before their policies were written down (paper, section 3 and appendix)
PUBLISHED = {
    "espnet/powsm": {"policy": "released", "text_policy": "released"},
    "espnet/powsm/textnorm_retrained": {
        "policy": "powsm_fix",
        "text_policy": "powsm_fix",
    },
}

_TAG = re.compile(
    r"(\w[\w.-]*/\w[\w.-]*)(?:@(refs/(?:pr|convert)/\w+|[\w.-]+))?((?:/\w[\w.-]*)*)"
)


class CheckpointError(PowsmError):
    """A model that cannot be found or does not fit; the message says what to do."""


@dataclass(frozen=True)
class ModelFiles:
    """Where the parts of a model are on this machine.

    Attributes:
        source: as the user named it, with the revision if it is from the Hub.
        config_file: ESPnet's training configuration, with the token list.
        weights_file: `.pth` or `.safetensors`.
        bpe_model: SentencePiece model.
        stats_file: global mean and variance, if the model normalises by them.
        normaliser: `policy` and `text_policy` of the training set, `version` where it
            is known; empty if unknown.
        weights_sha256: hash of `weights_file` when it was packed; empty if not known.
    """

    source: str
    config_file: Path
    weights_file: Path
    bpe_model: Path
    stats_file: Path | None
    normaliser: Mapping[str, str]
    weights_sha256: str = ""

    def describe(self) -> str:
        """One line: what is loaded and how its training set was normalised."""
        if not self.normaliser:
            made_with = "how its training set was normalised is not recorded"
        else:
            made_with = (
                f"trained on phones by policy {self.normaliser['policy']} and "
                f"text by policy {self.normaliser['text_policy']}"
            )
        return f"model {self.source}: {self.weights_file.name}, {made_with}"


# ------------------------------------------------------------------------ finding


def find_model(source: str | Path, model_file: Path | None = None) -> ModelFiles:
    """Find a model's parts; downloads or unpacks what is missing.

    Args:
        source: experiment folder, packed folder or archive, or Hub tag. What is on
            the disk is taken first.
        model_file: other weights than the averaged or packed ones.

    Raises:
        CheckpointError: there is no such model, or a part of it is missing.
        ArchiveError: an archive that cannot be unpacked.
    """
    path = Path(source)
    name = str(source)
    if path.is_dir():
        if (path / "config.yaml").exists():
            weights = model_file or default_weights(path)
            config = path / "config.yaml"
            return _model_files(name, config, weights, path.parents, packed=False)
        return _packed(name, path, model_file)
    if path.is_file():
        return _packed(name, unpack(path), model_file)
    match = _TAG.fullmatch(name)
    if match is None:
        raise CheckpointError(
            f"{name}: no such folder or archive, nor the form of a Hub tag "
            "(espnet/powsm, espnet/powsm@revision, espnet/powsm/sub_folder)"
        )
    return _from_hub(name, *match.groups(), model_file)


def keep_normaliser(train_set: Path, exp: Path) -> None:
    """Let an experiment remember how the phones and text of its training set are."""
    record = train_set / NORMALISER_FILE
    if record.exists():
        write_whole(exp / NORMALISER_FILE, record.read_text("utf-8"))


def keep_tokens(bpe_model: Path, exp: Path) -> Path:
    """Let an experiment keep its tokens, whatever stage 5 makes after it.

    Only for who owns the experiment.

    Returns:
        Its own copy of the SentencePiece model.
    """
    kept = exp / TOKENS / bpe_model.parent.name / bpe_model.name
    sweep_files(kept.parent, below=False)
    for name in (COUNTS_FILE, bpe_model.name):
        source, copy = bpe_model.with_name(name), kept.with_name(name)
        if not source.exists():
            continue
        content = source.read_bytes()
        if not copy.exists() or copy.read_bytes() != content:
            write_whole(copy, content)
    return kept


def default_weights(exp: Path) -> Path:
    """The averaged model of an experiment folder.

    Of several the one of the first `best_model_criterion` that has one: an experiment
    that went on with another criterion holds an average of earlier epochs, too.
    Released ones have the epochs in their names: `.ave_5best.till70epoch.pth`, or
    `.ave.till70epoch.pth`. Where an experiment was copied without its links, the file
    that `.ave.pth` was a link to is taken, the newest if there are several.

    Raises:
        CheckpointError: there is none.
    """
    averages = [p for p in sorted(Path(exp).glob("valid.*.ave.pth")) if p.exists()]
    if len(averages) > 1 and (Path(exp) / "config.yaml").exists():
        criteria = load_yaml(Path(exp) / "config.yaml").get("best_model_criterion")
        wanted = [Path(exp) / f"{c[0]}.{c[1]}.ave.pth" for c in criteria or ()]
        averages = [p for p in wanted if p in averages] or averages
    averages = averages or sorted(Path(exp).glob("valid.*.ave*.till*epoch.pth"))
    averages = averages or sorted(
        Path(exp).glob("valid.*.ave_*best.pth"), key=lambda path: -path.stat().st_mtime
    )
    if not averages:
        raise CheckpointError(
            f"{exp}: no valid.*.ave.pth; run stage 11 to its end, or name the weights"
        )
    return averages[0]


def _packed(name: str, root: Path, model_file: Path | None) -> ModelFiles:
    """A folder in the published layout, with or without its `meta.yaml`."""
    if (root / "meta.yaml").exists():
        meta = load_yaml(root / "meta.yaml")
        try:
            config = meta["yaml_files"][CONFIG_KEY]
            weights = meta["files"][WEIGHTS_KEY]
        except (KeyError, TypeError) as err:
            raise CheckpointError(
                f"{root}/meta.yaml names no {CONFIG_KEY} and {WEIGHTS_KEY}: it is not "
                "the packed model of an S2T recipe"
            ) from err
        # espnet2.bin.pack records absolute paths, but stores them below the root
        config, weights = (root / str(p).lstrip("/") for p in (config, weights))
    else:
        configs = sorted(root.glob("exp/*/config.yaml"))
        configs = [path for path in configs if list(path.parent.glob("*.pth"))]
        if len(configs) != 1:
            raise CheckpointError(
                f"{root}: neither config.yaml (an experiment) nor meta.yaml (a packed "
                f"model) is there, and {len(configs)} models are in exp/"
            )
        config = configs[0]
        weights = sorted(config.parent.glob("*.pth"))
        is_alone = len(weights) == 1 or model_file is not None
        weights = weights[0] if is_alone else default_weights(config.parent)
    if (root / SAFETENSORS).exists():
        weights = root / SAFETENSORS
    roots = (root, root.parent)  # a sub-folder's config may speak of the whole
    files = _model_files(name, config, model_file or weights, roots)
    sums = _read_sums(root)
    for path in filter(None, (files.bpe_model, files.stats_file)):
        check_hash(path, sums.get(path, ""))
    return replace(files, weights_sha256=sums.get(files.weights_file, ""))


def _read_sums(root: Path) -> dict[Path, str]:
    """SHA-256 of the files of a packed model; empty where none were stored."""
    path = root / SUMS_FILE
    if not path.exists():
        return {}
    sums = {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        digest, gap, name = line.partition("  ")
        if not gap or len(digest) != 64:
            raise CheckpointError(
                f"{path}: {line[:80]!r} is not a SHA-256 and a name; fetch the model "
                "again"
            )
        sums[root / name] = digest
    return sums


def check_hash(path: Path, expected: str) -> None:
    """Compare a file of a packed model with its hash, where that is known.

    Raises:
        CheckpointError: the file has changed since.
    """
    if expected and (actual := sha256_file(path)) != expected:
        raise CheckpointError(
            f"{path}: its SHA-256 is {actual[:12]}..., {SUMS_FILE} says "
            f"{expected[:12]}...: the file is damaged or another; fetch or unpack the "
            "model again"
        )


def _from_hub(
    name: str, repo: str, revision: str | None, folder: str, model_file: Path | None
) -> ModelFiles:
    folder = folder.strip("/")
    prefix = f"{folder}/" if folder else ""
    parts = ("meta.yaml", SUMS_FILE, "exp/*.yaml", "exp/*.npz", "exp/*.json", "data/*")
    small = [prefix + part for part in parts]
    if folder:  # its config may name files of the whole
        small += ["exp/*.npz", "data/*"]
    root = _download(name, repo, revision, small)
    revision = root.name  # the commit
    if not (root / folder).is_dir():
        raise CheckpointError(f"{name}: {repo} has no folder {folder} on the Hub")
    if model_file is None:
        _download(name, repo, revision, [prefix + SAFETENSORS])
        if not (root / prefix / SAFETENSORS).exists():
            _download(name, repo, revision, [prefix + "exp/*.pth"])
    plain = "/".join(filter(None, (repo, folder)))
    found = _packed(f"{plain}@{revision[:12]}", root / folder, model_file)
    if found.normaliser or plain not in PUBLISHED:
        return found
    return replace(found, normaliser=PUBLISHED[plain])


def _download(name: str, repo: str, revision: str | None, patterns: list[str]) -> Path:
    """A snapshot of a repository with the files that match; its name is the commit."""
    from powsm.hub import HubError, fetch_model  # a model that is here needs no client

    try:
        return fetch_model(repo, revision, patterns)
    except HubError as err:
        raise CheckpointError(f"{name}: {err}") from err


def _model_files(
    name: str,
    config_file: Path,
    weights_file: Path,
    roots: Sequence[Path],
    packed: bool = True,
) -> ModelFiles:
    for path in (config_file, weights_file):
        if not path.exists():
            raise CheckpointError(f"{name}: {path} is missing")
    config = load_yaml(config_file)
    named = config.get("bpemodel")
    own = config_file.parent.joinpath(TOKENS, *PurePosixPath(named or "-").parts[-2:])
    bpe_model = own  # which earlier versions did not keep
    if not own.is_file():
        bpe_model = _locate(config_file, "bpemodel", named, roots, packed)
    stats_file = None
    if config.get("normalize") == "global_mvn":
        stats = (config.get("normalize_conf") or {}).get("stats_file")
        stats_file = _locate(
            config_file, "normalize_conf.stats_file", stats, roots, packed
        )
    record = config_file.parent / NORMALISER_FILE
    normaliser = _read_normaliser(record) if record.exists() else {}
    return ModelFiles(
        name, config_file, weights_file, bpe_model, stats_file, normaliser
    )


def _read_normaliser(path: Path) -> dict[str, str]:
    remedy = "take the file of the training set, dump/raw/train"
    return read_json(path, remedy, keys=("policy", "text_policy"))


def _locate(
    config_file: Path, key: str, value: str | None, roots: Sequence[Path], packed: bool
) -> Path:
    """A file that a configuration names as the machine of its training did.

    In a packed model that is the longest tail of the path that exists below its root.
    An experiment may name files elsewhere, and moves with the folders around it.
    """
    if not value:
        raise CheckpointError(f"{config_file}: {key} is not set")
    parts = PurePosixPath(value.lstrip("/")).parts
    below = [
        root.joinpath(*parts[start:]) for start in range(len(parts)) for root in roots
    ]
    if packed or not Path(value).is_absolute():
        candidates = [*below, Path(value)]
    else:
        candidates = [Path(value), *below]
    for path in candidates:
        if path.is_file():
            return path
    raise CheckpointError(
        f"{config_file}: {key} is {value}, which is neither here nor below {roots[0]}; "
        "bring that file along, or the model that `powsm pack` makes, which has it"
    )
