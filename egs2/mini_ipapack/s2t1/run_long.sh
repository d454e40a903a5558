#!/usr/bin/env bash
# The mini recipe for 80 to 120 minutes instead of 20, with more speech: volunteers in nine
# languages (tuxpaint) and seven hours of a synthesiser (gnomehelp) for training.
# Usage: ./run_long.sh [option of run.sh]...
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] || cd "$(dirname "${BASH_SOURCE[0]}")"

exec ./run.sh \
    --downloads downloads/long --data data/long --dump dump/long --expdir exp/long \
    --download_opts="--corpora=asterisk,tuxpaint,gnomehelp" \
    --nbpe 320 --config conf/train_mini_long.yaml -- "$@"
