#!/usr/bin/env bash
# Fill a published table with the scores of a model: an experiment, a packed folder or
# archive, or a Hub tag.
# Usage: scripts/reproduce.sh --table 4 [--model DIR_OR_TAG] [--dump dump/raw] [--dry_run]
# Run it in a recipe folder, where dump/ is; --help lists every option.
set -euo pipefail
# -P: in a recipe folder, scripts/ is a link
root=$(CDPATH='' cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# where the corpora lie, and what the stages make
# shellcheck source=/dev/null
[[ ! -f db.sh ]] || . ./db.sh
exec "${root}/.venv/bin/powsm" reproduce --conf "${root}/conf" \
    ${POWSM_DATA:+--data "${POWSM_DATA}"} ${POWSM_DUMP:+--dump "${POWSM_DUMP}"} \
    ${POWSM_EXP:+--expdir "${POWSM_EXP}"} "$@"
