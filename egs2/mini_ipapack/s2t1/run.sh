#!/usr/bin/env bash
# POWSM on a small real corpus: 74 minutes of speech in five languages, on a CPU.
# Usage: ./run.sh [--stage N] [--stop_stage N] [--option value]...   (--help lists them)
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] || cd "$(dirname "${BASH_SOURCE[0]}")"
. ./db.sh

decode_configs="conf/decode_ctc_greedy.yaml conf/decode_joint.yaml"
decode_configs+=" conf/decode_attention.yaml conf/decode_joint_unk.yaml"
decode_configs+=" conf/decode_lid.yaml"

exec scripts/s2t.sh \
    --download local/download_mini.py \
    ${ASTERISK_SOUNDS:+--download_opts="--corpus_dir=${ASTERISK_SOUNDS}"} \
    --nbpe 300 --stats_hours 0.25 --phones observed --languages observed --time_symbols false \
    --config conf/train_mini.yaml \
    --decode_configs "${decode_configs}" \
    -- \
    "$@"
