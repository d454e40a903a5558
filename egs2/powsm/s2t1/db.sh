# shellcheck shell=bash
# Where the data lie. Every path can be set in the environment instead.

# One folder for everything that is downloaded or made: 1.9 TB (README.md, "Cost").
POWSM_ROOT=${POWSM_ROOT:-.}
# The Shar folders of IPAPack++. A copy that is there is used as it is; stage 0 adds
# what it lacks, and --stage 1 does not ask.
IPAPACK_PLUS=${IPAPACK_PLUS:-${POWSM_ROOT}/downloads}
# What the stages make: lists of utterances, examples, experiments (README.md, "Cost").
POWSM_DATA=${POWSM_DATA:-${POWSM_ROOT}/data}
POWSM_DUMP=${POWSM_DUMP:-${POWSM_ROOT}/dump/raw}
POWSM_EXP=${POWSM_EXP:-${POWSM_ROOT}/exp}

# Evaluation sets that IPAPack++ does not hold: the folder of the corpus, or of a copy
# as conf/tables/sets.yaml names it. Those that are set are prepared by --eval_sets and
# by scripts/reproduce.sh; each module of powsm/corpora says what it reads.
export VOXANGELES=${VOXANGELES:-}
export TUSOM2021=${TUSOM2021:-}
export BUCKEYE=${BUCKEYE:-}
export DRC_SE=${DRC_SE:-}
export L2ARCTIC=${L2ARCTIC:-}
export EPADB=${EPADB:-}
export SPEECHOCEAN762=${SPEECHOCEAN762:-}
export TIMIT=${TIMIT:-}
export SAA=${SAA:-}
