#!/usr/bin/env bash
# POWSM-CTC as released (arXiv 2601.14046): the data of egs2/powsm, a model without decoder.
# Usage: ./run.sh [--stage N] [--stop_stage N] [--option value]...   (--help lists them)
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] || cd "$(dirname "${BASH_SOURCE[0]}")"
. ./db.sh

test_sets="test_aishell test_cv test_doreco test_fleurs test_kazakh test_librispeech"
test_sets+=" test_mls_dutch test_mls_french test_mls_german test_mls_italian"
test_sets+=" test_mls_polish test_mls_portuguese test_mls_spanish test_tamil"

decode_configs="conf/decode_ctc_tasks_20s.yaml conf/decode_ctc_tasks.yaml"
decode_configs+=" conf/decode_ctc_pr_p2g.yaml"

exec scripts/s2t.sh \
    --downloads "${IPAPACK_PLUS}" --data "${POWSM_DATA}" \
    --dump "${POWSM_DUMP}" --expdir "${POWSM_EXP}" \
    --download local/download_ipapack.py \
    --nj 32 --ngpu 4 --cluster conf/cluster/powsm.yaml \
    --nbpe 40000 --phones all --languages all --time_symbols true \
    --config conf/train_powsm_ctc.yaml \
    --decode_configs "${decode_configs}" --test_sets "${test_sets}" \
    "$@"
