#!/usr/bin/env bash
# The mini recipe for two hours instead of half of one, with more speech: volunteers in
# ten languages (tuxpaint) and seven hours of a synthesiser (gnomehelp) for training.
# Usage: ./run_long.sh [option of run.sh]...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ./run.sh \
    --downloads downloads/long --data data/long --dump dump/long --expdir exp/long \
    --download_opts="--corpora=asterisk,tuxpaint,gnomehelp" \
    --nbpe 320 --config conf/train_mini_long.yaml "$@"
