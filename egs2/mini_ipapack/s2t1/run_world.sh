#!/usr/bin/env bash
# The mini recipe for languages that it was not trained on: prompts, volunteers (tuxpaint)
# and a synthesiser in 34 languages, disturbed by noise (gnomeworld), as training speech.
# Usage: ./run_world.sh [option of run.sh]...
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] || cd "$(dirname "${BASH_SOURCE[0]}")"

exec ./run.sh \
    --downloads downloads/world --data data/world --dump dump/world --expdir exp/world \
    --download_opts="--corpora=asterisk,tuxpaint,gnomeworld" \
    --nbpe 1400 --config conf/train_mini_world.yaml -- "$@"
