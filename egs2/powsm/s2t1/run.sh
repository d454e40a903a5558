#!/usr/bin/env bash
# POWSM as published (arXiv 2510.24992): IPAPack++, 17,000 hours, 88 languages.
# Usage: ./run.sh [--stage N] [--stop_stage N] [--option value]...   (--help lists them)
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted;
# egs2/powsm_ctc runs it in a folder of its own
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] ||
    cd "${POWSM_RECIPE:-$(dirname "${BASH_SOURCE[0]}")}"
. ./db.sh

test_sets="test_aishell test_cv test_doreco test_fleurs test_kazakh test_librispeech"
test_sets+=" test_mls_dutch test_mls_french test_mls_german test_mls_italian"
test_sets+=" test_mls_polish test_mls_portuguese test_mls_spanish test_tamil"

decode_configs="conf/decode_paper.yaml conf/decode_ctc_greedy.yaml"
decode_configs+=" conf/decode_attention.yaml conf/decode_lid.yaml"

exec scripts/s2t.sh \
    --downloads "${IPAPACK_PLUS}" --data "${POWSM_DATA}" \
    --dump "${POWSM_DUMP}" --expdir "${POWSM_EXP}" \
    --download local/download_ipapack.py \
    --nj 32 --ngpu 4 --cluster conf/cluster/powsm.yaml \
    --nbpe 40000 --phones all --languages all --time_symbols true \
    --config conf/train_powsm.yaml \
    --decode_configs "${decode_configs}" --test_sets "${test_sets}" \
    -- \
    "$@"
