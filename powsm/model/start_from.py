"""Begin with another model: its vocabulary, extended where asked, and its weights.

A token keeps its weights whatever its number becomes; a new one begins with the mean
of its kind (language, phone or other piece), so that it is as likely as they are.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from espnet2.torch_utils.load_pretrained_model import load_pretrained_model

from powsm.files.whole import atomic_write, write_whole
from powsm.languages import LANGUAGES, lang_sym
from powsm.model.ctc_heads import PhoneColumns
from powsm.model.find import CheckpointError, find_model
from powsm.model.weights import load_weights, read_weights
from powsm.settings import load_yaml
from powsm.vocabulary.extend import NewTokens, extend_pieces
from powsm.vocabulary.phone_sets import COUNTS_FILE, is_phone, write_counts
from powsm.vocabulary.tokenizer import read_token_list, token_list_of
from powsm.vocabulary.train import write_tokenizer

WEIGHTS_FILE = "init.pth"
STATS_FILE = "feats_stats.npz"
ADDED_FILE = "added_tokens.txt"  # by extending the vocabulary, a token a line
# parameters with a row (0) or a column (1) for each token
TOKEN_AXIS = {
    "decoder.embed.0.weight": 0,
    "decoder.output_layer.weight": 0,
    "decoder.output_layer.bias": 0,
    "ctc.ctc_lo.weight": 0,
    "ctc.ctc_lo.bias": 0,
    "embed.weight": 0,  # of a model without a decoder, for prompt, language and task
    "encoder.conditioning_layer.weight": 1,
}
_LANGUAGE_SYMS = frozenset(lang_sym(code) for code in LANGUAGES)


def check_same_tokens(mine: Sequence[str], theirs: Sequence[str], where: str) -> None:
    """Two vocabularies must agree token by token.

    Raises:
        CheckpointError: names the first difference.
    """
    length = max(len(mine), len(theirs))
    for number in range(length):
        a = mine[number] if number < len(mine) else "missing"
        b = theirs[number] if number < len(theirs) else "missing"
        if a != b:
            raise CheckpointError(
                f"{where}: the vocabularies differ first at token {number} (of "
                f"{len(mine)} and {len(theirs)}): {a} and {b}; take weights, BPE model "
                "and token list from one model (--init_from does)"
            )


def token_kind(token: str) -> str:
    """language, phone or piece.

    >>> token_kind("<eng>"), token_kind("/p/"), token_kind("<pr>"), token_kind("▁a")
    ('language', 'phone', 'piece', 'piece')
    """
    if token in _LANGUAGE_SYMS:
        return "language"
    return "phone" if is_phone(token) else "piece"


def regrow(
    state: Mapping[str, torch.Tensor], old: Sequence[str], new: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Weights of a vocabulary `old` for a vocabulary `new`, by token.

    A CTC head of phones alone has rows for these, and stays one.

    Raises:
        CheckpointError: a parameter does not have one row for each old token, or a new
            token is of a kind that the old vocabulary has none of.
    """
    grown = dict(state)
    for name, axis in TOKEN_AXIS.items():
        if name not in state:
            continue
        rows, tokens = state[name].movedim(axis, 0), (old, new)
        if name.startswith("ctc.") and len(rows) != len(old):
            tokens = _of_phones(old), _of_phones(new)
        if len(rows) != len(tokens[0]):
            raise CheckpointError(
                f"{name} is for {len(rows)} tokens, the vocabulary has {len(old)}"
            )
        rows = torch.stack([rows[source].mean(0) for source in _sources(*tokens)])
        grown[name] = rows.movedim(0, axis).contiguous()
    return grown


def _of_phones(tokens: Sequence[str]) -> list[str]:
    """What a CTC head of phones alone speaks of a vocabulary."""
    return [tokens[i] for i in PhoneColumns(tokens).kept]


def _sources(old: Sequence[str], new: Sequence[str]) -> list[list[int]]:
    """The rows of `old` whose mean each of `new` is: its own, or all of its kind."""
    number = {token: i for i, token in enumerate(old)}
    of_kind: dict[str, list[int]] = {}
    for i, token in enumerate(old):
        of_kind.setdefault(token_kind(token), []).append(i)
    for token in new:
        if token not in number and token_kind(token) not in of_kind:
            raise CheckpointError(
                f"the vocabulary has no {token_kind(token)}, and a new one such as "
                f"{token} begins with the mean of its kind; begin with a model that "
                "has some, such as espnet/powsm"
            )
    return [
        [number[token]] if token in number else of_kind[token_kind(token)]
        for token in new
    ]


def start_from(source: str, dump_set: Path, out: Path, *, extend_vocab: bool) -> str:
    """Write what training needs from another model.

    Args:
        source: experiment folder, packed folder or archive, or Hub tag.
        dump_set: training set in `dump/raw`.
        out: gets `bpe.model tokens.txt ...` as stage 5 writes them, the weights, and
            mean and variance if the model normalises by them.
        extend_vocab: add what the vocabulary lacks of the training set.

    Returns:
        A line on what was taken and added.

    Raises:
        CheckpointError: the model is incomplete, or lacks languages or phones of the
            training set and is not to be extended.
    """
    files = find_model(source)
    bpe_model = files.bpe_model.read_bytes()
    old = list(load_yaml(files.config_file)["token_list"])
    check_same_tokens(old, token_list_of(bpe_model), source)
    new = NewTokens.find(dump_set, old)
    if (new.languages or new.phones) and not extend_vocab:
        raise CheckpointError(
            f"{source} has no tokens for {new.describe()} of {dump_set}; add them with "
            "--extend_vocab, or leave those languages out with --langs"
        )
    if extend_vocab:
        bpe_model = extend_pieces(bpe_model, new)
    tokens = token_list_of(bpe_model)
    state = regrow(read_weights(files.weights_file), old, tokens)
    nlsyms = [t for t in tokens[2:-3] if t[0] == "<" and t[-1] == ">" and len(t) > 2]
    write_tokenizer(out, bpe_model, nlsyms)
    write_counts(dump_set, out, files.bpe_model.with_name(COUNTS_FILE))
    known = frozenset(old)
    with atomic_write(out / ADDED_FILE) as file:
        file.writelines(f"{token}\n" for token in tokens if token not in known)
    with atomic_write(out / WEIGHTS_FILE, "wb") as file:
        torch.save(state, file)
    if files.stats_file is not None:
        write_whole(out / STATS_FILE, files.stats_file.read_bytes())
    verb = "added" if extend_vocab else "not in its vocabulary"
    return f"{files.describe()}; {len(tokens)} tokens, {verb}: {new.describe()}"


def added_tokens(init_param: str) -> list[str]:
    """What `start_from` added to the vocabulary beside weights; nothing elsewhere.

    Raises:
        CheckpointError: it does not say so, being of an earlier version.
    """
    path = Path(init_param)
    if path.name != WEIGHTS_FILE:
        return []
    if not path.with_name(ADDED_FILE).exists():
        raise CheckpointError(
            f"{path.parent}: no {ADDED_FILE} says which tokens are new; remove the "
            "folder and run stage 5 again"
        )
    return read_token_list(path.with_name(ADDED_FILE))


def load_initial(model: torch.nn.Module, init_param: str) -> None:
    """Put the weights of ESPnet's `init_param` into a model.

    All parameters must be there, and the vocabulary beside the weights be the model's.
    With ESPnet's `<file>:<source>:<target>:<exclude>` a part is loaded, as ESPnet does.

    Raises:
        CheckpointError: weights or vocabulary do not fit.
    """
    if ":" in init_param:
        load_pretrained_model(init_param, model, ignore_init_mismatch=False)
        return
    path = Path(init_param)
    if not path.is_file():
        raise CheckpointError(f"init_param: {path} is missing")
    tokens = None
    if (path.parent / "tokens.txt").exists():
        tokens = read_token_list(path.parent / "tokens.txt")
    elif (path.parent / "config.yaml").exists():
        tokens = load_yaml(path.parent / "config.yaml").get("token_list")
    if tokens is not None:
        check_same_tokens(model.token_list, tokens, init_param)
    load_weights(model, read_weights(path), init_param)
