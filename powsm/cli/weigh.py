"""How often each utterance of a set is trained on: by its phones, by how it is heard.

powsm weigh dump/raw/train --phone_temperature 2 --out dump/raw/train.utt2weight
powsm weigh dump/raw/train --decoded exp/x/decode_ctc_unk/train/pr_ctc --most_pfer 60 \\
    --out dump/raw/train.utt2weight

Written are the utterances whose weight is not 1; `powsm train --set utt2weight=FILE`
reads them.
"""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path

from powsm.cli.options import number, refuse_unused
from powsm.errors import PowsmError

log = logging.getLogger(__name__)

_MOST = 4.0


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("set", type=Path, help="folder of a training set, dump/raw/train")
    balance = "T: phones by (their share)^(1/T), as utterances allow; 1 leaves them"
    add("--phone_temperature", type=number(1), default=1.0, help=balance)
    most = f"no utterance comes more often for its phones; default: {_MOST:g}"
    add("--most", type=number(1, 100), default=_MOST, help=most)
    decoded = "decoded phones of the set, <exp>/<profile>/<set>/pr..."
    add("--decoded", type=Path, help=decoded)
    leave = "leave out utterances whose PFER in --decoded is more, such as 60"
    add("--most_pfer", type=number(), help=leave)
    add("--out", type=Path, required=True, help="the file of weights")


def run(options: argparse.Namespace) -> None:
    from powsm.files.datadir import write_scp
    from powsm.prepare.weights import balance_phones, count_phones, dump_phones

    refuse_unused(
        options,
        "most",
        why="there is no --phone_temperature above 1",
        unless=options.phone_temperature > 1,
    )
    if (options.decoded is None) != (options.most_pfer is None):
        raise PowsmError("--decoded and --most_pfer go together: give both, or neither")
    if options.phone_temperature == 1 and options.decoded is None:
        raise PowsmError(
            "nothing to weigh by: give --phone_temperature above 1, or --decoded with "
            "--most_pfer"
        )
    scores = _scores(options.set, options.decoded)
    weights = {u: 0.0 for u, pfer in scores.items() if pfer > options.most_pfer}
    n_utts, left_out = sum(1 for _ in dump_phones(options.set)), len(weights)
    if left_out == n_utts:
        raise PowsmError(f"{options.set}: all {n_utts:,} utterances would be left out")

    def kept():  # which alone are balanced
        rows = dump_phones(options.set)
        return ((utt_id, said) for utt_id, said in rows if utt_id not in weights)

    counts = count_phones(kept())
    temperature, most = options.phone_temperature, options.most
    balanced = list(balance_phones(kept(), counts, temperature, most))
    weights |= {utt_id: weight for utt_id, weight in balanced if weight != 1.0}
    write_scp(options.out, ((u, f"{weights[u]:.4g}") for u in sorted(weights)))
    used = [w for w in weights.values() if w > 0]
    log.info(
        "%s: %d of %d utterances left out, %d others not once: %.2f to %.2f times",
        *(options.out, left_out, n_utts, len(used)),
        *(min(used, default=1.0), max(used, default=1.0)),
    )


def _scores(folder: Path, decoded: Path | None) -> Mapping[str, float]:
    """PFER of each utterance of a decoded set; none where there is no such set.

    Raises:
        PowsmError: it is another set, or holds no phones.
    """
    if decoded is None:
        return {}
    from powsm.score.decoded import DecodedSet
    from powsm.tasks import PHONES

    heard = DecodedSet(decoded)
    if heard.set_name != folder.name:
        raise PowsmError(
            f"--decoded {decoded}: of set {heard.set_name}, expected {folder.name}"
        )
    if heard.writes != PHONES:
        raise PowsmError(f"--decoded {decoded}: task {heard.task} writes no phones")
    scores = heard.score(folder.parent)
    values = scores.utterance_values("PFER").tolist()
    return dict(zip(scores.utt_ids, values, strict=True))
