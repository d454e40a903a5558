#!/usr/bin/env bash
# POWSM-CTC as released (arXiv 2601.14046): the recipe of egs2/powsm, a model without decoder.
# Usage: ./run.sh [--stage N] [--stop_stage N] [--option value]...   (--help lists them)
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] || cd "$(dirname "${BASH_SOURCE[0]}")"

decode_configs="conf/decode_ctc_tasks_20s.yaml conf/decode_ctc_tasks.yaml"
decode_configs+=" conf/decode_ctc_pr_p2g.yaml"

# the settings are those there, the files those of this folder
POWSM_RECIPE=${PWD} exec ../../powsm/s2t1/run.sh \
    --config conf/train_powsm_ctc.yaml --decode_configs "${decode_configs}" \
    -- \
    "$@"
