# shellcheck shell=bash
# Where the data lie. Every path can be set in the environment instead.

# One folder for everything that is downloaded or made: 1.8 TB (README.md, "Disk").
POWSM_ROOT=${POWSM_ROOT:-.}
# The Shar folders of IPAPack++; a copy that is already there is used as it is.
IPAPACK_PLUS=${IPAPACK_PLUS:-${POWSM_ROOT}/downloads}
