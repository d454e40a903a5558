#!/usr/bin/env bash
# The mini recipe with a model without a decoder: all four tasks, and the language, by CTC.
# Usage: ./run_ctc.sh [option of run.sh]...
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] || cd "$(dirname "${BASH_SOURCE[0]}")"

exec ./run.sh --config conf/train_mini_ctc.yaml --exp_name mini_ctc \
    --decode_configs "conf/decode_ctc_tasks.yaml conf/decode_ctc_lid.yaml" -- "$@"
