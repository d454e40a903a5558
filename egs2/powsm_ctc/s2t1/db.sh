# shellcheck shell=bash
# The data are those of egs2/powsm, which lie beside its run.sh unless POWSM_ROOT says
# otherwise: lists, examples, vocabulary and statistics serve both models.
POWSM_ROOT=${POWSM_ROOT:-../../powsm/s2t1}
. ../../powsm/s2t1/db.sh
