# shellcheck shell=bash
# Command-line options from a script's own settings (the idea is Kaldi's).
#
# Every line `name=default  # what it is` above the line sourcing this file
# is the option --name. The default says what a value must look like:
#   true or false   the value is true or false; a bare --name means true
#   12              an integer
#   0.5             a number
#   ()              any text, and the option may be given several times
#   anything else   any text
# --name value and --name=value mean the same, and so do --stop-stage and --stop_stage.
# A later option overrides an earlier one. All faults are reported at once, exit status 2.
# A recipe puts `--` between its own settings and the user's: those after the last one are
# named in ${given[*]}.
# --help prints the script's opening comment and every option with its value so far;
# lines `## Title` between the settings become headings.

# Names and comments of the settings, in order, into the arrays of parse_options.
_po_read_settings() {
    local _line
    while IFS= read -r _line; do
        case ${_line} in
            '. '*parse_options.sh* | 'source '*parse_options.sh*) break ;;
            '## '*) _po_names+=("${_line}") ;;
        esac
        if [[ ${_line} =~ ^([a-z][a-z0-9_]*)=(.*[^[:space:]])?[[:space:]]+'# '(.*)$ ]]; then
            _po_names+=("${BASH_REMATCH[1]}")
            _po_about[${BASH_REMATCH[1]}]=${BASH_REMATCH[3]}
        fi
    done <"$1"
}

_po_kind() {
    local _default=${!1-}
    if [[ $(declare -p "$1") == 'declare -a'* ]]; then echo list
    elif [[ ${_default} =~ ^(true|false)$ ]]; then echo boolean
    elif [[ ${_default} =~ ^-?[0-9]+$ ]]; then echo integer
    elif [[ ${_default} =~ ^-?[0-9]+\.[0-9]+$ ]]; then echo number
    else echo text
    fi
}

_po_nearest() {
    local _wanted=$1
    shift
    printf '%s\n' "$@" | awk -v wanted="${_wanted}" '
        function smaller(a, b) { return a < b ? a : b }
        function distance(a, b,    i, j, row, above, corner) {
            for (j = 0; j <= length(b); j++) row[j] = j
            for (i = 1; i <= length(a); i++) {
                corner = row[0]; row[0] = i
                for (j = 1; j <= length(b); j++) {
                    above = row[j]
                    row[j] = smaller(smaller(above, row[j - 1]) + 1,
                        corner + (substr(a, i, 1) != substr(b, j, 1)))
                    corner = above
                }
            }
            return row[length(b)]
        }
        { d = distance(wanted, $0) }
        NR == 1 || d < best { best = d; nearest = $0 }
        END { print nearest }'
}

_po_help() {
    local _name _value
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$1"
    for _name in "${_po_names[@]}"; do
        if [[ ${_name} == '## '* ]]; then
            printf '\n%s\n' "${_name#'## '}"
            continue
        fi
        local -n _setting=${_name}
        _value=${_setting[*]}
        printf '  --%-18s %s [%s]\n' "${_name}" "${_po_about[${_name}]}" "${_value}"
        unset -n _setting
    done
}

# Usage: parse_options SCRIPT "$@"
parse_options() {
    local -a _po_names=() _po_options=() _po_faults=()
    local -A _po_about=() _po_kinds=()
    local _name _value _script=$1 _is_users=false
    shift
    _po_read_settings "${_script}"
    for _name in "${_po_names[@]}"; do
        [[ ${_name} != '## '* ]] || continue
        _po_options+=("${_name}")
        _po_kinds[${_name}]=$(_po_kind "${_name}")
    done

    while [[ $# -gt 0 ]]; do
        if [[ $1 == -- ]]; then
            _is_users=true
            given=()
            shift
            continue
        fi
        if [[ $1 != --[a-z]* ]]; then
            _po_faults+=("unexpected argument '$1': options start with --")
            shift
            continue
        fi
        _name=${1%%=*}
        _name=${_name#--}
        _name=${_name//-/_}
        if [[ ${_name} == help ]]; then
            _po_help "${_script}"
            exit 0
        fi
        if [[ $1 == *=* ]]; then
            _value=${1#*=}
            shift
        elif [[ $# -gt 1 && $2 != --[a-z]* && $2 != -- ]]; then
            _value=$2
            shift 2
        elif [[ ${_po_kinds[${_name}]-} == boolean ]]; then
            _value=true
            shift
        else
            [[ -z ${_po_kinds[${_name}]-} ]] ||
                _po_faults+=("--${_name} needs a value")
            _value=
            shift
            [[ -z ${_po_kinds[${_name}]-} ]] || continue
        fi
        [[ ${_is_users} == false ]] || given+=("${_name}")
        case ${_po_kinds[${_name}]-unknown} in
            unknown)
                _po_faults+=("unknown option --${_name}, did you mean --$(
                    _po_nearest "${_name}" "${_po_options[@]}"
                )?")
                continue
                ;;
            boolean)
                [[ ${_value} =~ ^(true|false)$ ]] ||
                    _po_faults+=("--${_name} is true or false, got '${_value}'")
                ;;
            integer)
                [[ ${_value} =~ ^-?[0-9]+$ ]] ||
                    _po_faults+=("--${_name} is an integer, got '${_value}'")
                ;;
            number)
                [[ ${_value} =~ ^-?[0-9]+(\.[0-9]+)?$ ]] ||
                    _po_faults+=("--${_name} is a number, got '${_value}'")
                ;;
            list)
                local -n _list=${_name}
                _list+=("${_value}")
                unset -n _list
                continue
                ;;
        esac
        printf -v "${_name}" '%s' "${_value}"
    done

    if [[ ${#_po_faults[@]} -gt 0 ]]; then
        printf "${_script##*/}: %s\n" "${_po_faults[@]}" >&2
        echo "${_script##*/}: --help lists every option" >&2
        exit 2
    fi
}

given=()
parse_options "${BASH_SOURCE[1]}" "$@"
