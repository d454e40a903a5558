#!/usr/bin/env bash
# The mini recipe for languages that it was not trained on: prompts, volunteers (tuxpaint)
# and a synthesiser in 52 languages, disturbed by noise (gnomeworld, stampworld), as
# training speech, other synthesisers and Mboshi where db.sh says so. Six languages are for the
# dev set alone, which chooses the checkpoint, and a volunteer for the test set.
# Usage: ./run_world.sh [option of run.sh]...
set -euo pipefail
unset CDPATH
# sbatch runs a copy of this file from elsewhere, in the folder where it was submitted
[[ ! -f $(dirname "${BASH_SOURCE[0]}")/db.sh ]] || cd "$(dirname "${BASH_SOURCE[0]}")"
. ./db.sh

exec ./run.sh \
    --downloads downloads/world --data data/world --dump dump/world --expdir exp/world \
    --download_opts="--corpora=asterisk,tuxpaint,gnomeworld,stampworld${VOICES:+,voices}" \
    --download_opts="--dev_langs=ell,dan,bul,tur,hin,kat" \
    --download_opts="--test_speakers=volunteer-cat" \
    ${MBOSHI:+--download_opts="--mboshi=${MBOSHI}"} \
    ${SPEECHOCEAN762_TRAIN:+--download_opts="--speechocean762=${SPEECHOCEAN762_TRAIN}"} \
    --max_duration 13 --nbpe 1900 --config conf/train_mini_world.yaml \
    --decode_configs "conf/decode_ctc_unk.yaml conf/decode_ctc_greedy.yaml" -- "$@"
