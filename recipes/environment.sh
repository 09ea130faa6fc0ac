# shellcheck shell=bash
# The Python environment of every recipe and of the tests, and the few words that they share. Source it, then call
#
#     seqba_environment          # seqba and what its commands on text need
#     seqba_environment wmt      # and what prepares the WMT corpus
#     seqba_environment dev      # and the tools that check everything
#
# which makes .venv in the project's folder with the first Python >= 3.10 it finds (or $PYTHON), installs the one torch
# that this project is tested with, then seqba itself, editable, and puts its commands first on PATH. A second call sees
# that nothing changed and takes no time. With SEQBA_VENV=DIR the environment in DIR is used as it stands, and nothing
# is installed. pip's own configuration (indexes, proxies, caches) is left to the machine.
#
# SEQBA_LAUNCH="torchrun --nproc-per-node 4" (words without spaces of their own) goes before every recipe's seqba-train:
# its updates are spread over so many processes, and come out the same.
#
# Torch is pinned here and nowhere else; SEQBA_TORCH="torch==…" tries another one. On a machine without a GPU, point pip
# at CPU wheels of the same version first: an ordinary Linux index answers with the build that carries gigabytes of CUDA.

SEQBA_TORCH="${SEQBA_TORCH:-torch==2.13.0}"

seqba_fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Sets the caller's variables to the options of the same names, and its array `passed`, if it has one, to what follows a
# lone --:
#
#     from="" batch_size=64 passed=()
#     seqba_options from batch-size -- "$@"
seqba_options() { # NAME... -- [--NAME VALUE]... [-- ...]
    local known=() option
    while [[ "$1" != -- ]]; do
        known+=("$1")
        shift
    done
    shift
    while (($#)); do
        if [[ "$1" == -- ]] && declare -p passed >/dev/null 2>&1; then
            passed=("${@:2}")
            return
        fi
        case "$1" in -h | --help) seqba_header "$0"; exit ;; esac
        for option in "${known[@]}"; do
            [[ "$1" != "--$option" ]] || break
        done
        [[ "$1" == "--$option" ]] || seqba_fail "unknown argument '$1'; see bash $0 --help"
        (($# >= 2)) || seqba_fail "$1 needs a value; see bash $0 --help"
        printf -v "${option//-/_}" '%s' "$2"
        shift 2
    done
}

seqba_count() { # OPTION VALUE
    [[ "$2" =~ ^[1-9][0-9]{0,8}$ ]] || seqba_fail "$1 takes a whole number from 1 on, not '$2'"
}

# --scale S makes a run short: √S of the examples for √S of the epochs, so that it costs S of the whole one.
seqba_check_scale() { # SCALE, or nothing for the whole run
    [[ -z "$1" ]] || awk -v scale="$1" 'BEGIN { exit !(scale ~ /^[0-9]*[.]?[0-9]+(e-?[0-9]+)?$/ && scale > 0 && scale <= 1) }' ||
        seqba_fail "--scale takes a share of the run above 0 and up to 1 (0.01, say), not '$1'"
}

seqba_share() { # COUNT SCALE [LEAST]: COUNT · √SCALE, rounded, at least LEAST (1), at most COUNT
    awk -v count="$1" -v scale="$2" -v least="${3:-1}" 'BEGIN {
        share = int(count * sqrt(scale) + 0.5)
        if (share < least) share = least
        print (share > count ? count : share)
    }'
}

# Sets the caller's `arms` to what --arm names: one of the paper's columns, all of them, or one of two that aren't in the
# paper.
seqba_choose_arms() { # ARM
    case "$1" in
        all) arms=(baseline fixed-samples ba) ;;
        baseline | fixed-samples | ba | large-batch | fixed-rows) arms=("$1") ;;
        *) seqba_fail "--arm is baseline, fixed-samples, ba, large-batch, fixed-rows or all, not '$1'" ;;
    esac
}

# Of a Transformer's `arms`: its rows share nothing.
seqba_refuse_large_batch() {
    [[ "${arms[*]}" != large-batch ]] ||
        seqba_fail "--arm large-batch is for what the rows of a batch share (batch norm, weight masks), and a" \
            "Transformer's share nothing: take --arm fixed-samples, which is the same there"
}

# Of `arms`, before any work: fixed-rows divides the micro-batches of an update by M, or else their size. Options behind
# a lone -- may say otherwise; seqba-train looks at those.
seqba_check_rows() { # M MICRO_BATCHES OPTION SIZE
    [[ "${arms[*]}" != fixed-rows || -n "${passed[*]-}" ]] || (($2 % $1 == 0 || $4 % $1 == 0)) ||
        seqba_fail "--arm fixed-rows sees 1/M of the examples, but --copies $1 doesn't divide $3 $4: give a multiple of it"
}

# Stands before the command of that name in every recipe.
seqba-train() {
    # shellcheck disable=SC2086 # words
    ${SEQBA_LAUNCH:-} "$(type -P seqba-train)" "$@"
}

seqba_step() {
    printf '\n== %s\n' "$*" >&2
}

# The comment at the head of a script: what it reaches, in what time, on what.
seqba_header() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$1"
}

seqba_is_recent_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1
}

seqba_find_python() {
    local candidate
    if [[ -n "${PYTHON:-}" ]]; then
        seqba_is_recent_python "$PYTHON" || seqba_fail "PYTHON=$PYTHON is not a Python 3.10 or later"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python python3.14 python3.13 python3.12 python3.11 python3.10; do
        if seqba_is_recent_python "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    seqba_fail "no Python 3.10 or later on PATH; install one, or name it: PYTHON=/path/to/python3 bash $0"
}

seqba_install() {
    local root="$1" venv="$2" extras="$3" stamp="$2/.seqba-installed${3:+-$3}" state python installed
    state="$(cat "$root/pyproject.toml" "$root/recipes/environment.sh" | cksum) $root"
    for installed in "$stamp" "$venv/.seqba-installed-dev"; do # dev has everything
        [[ -f "$installed" && "$(<"$installed")" == "$state" ]] && return
    done
    if [[ ! -x "$venv/bin/python" ]]; then
        python="$(seqba_find_python)" || exit
        echo "environment: making $venv with $("$python" --version)"
        "$python" -m venv "$venv" ||
            seqba_fail "$python cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)"
    fi
    seqba_is_recent_python "$venv/bin/python" || seqba_fail "$venv has no Python 3.10 or later; remove it and try again"
    echo "environment: installing $SEQBA_TORCH, then seqba${extras:+[$extras]}"
    # Torch first and alone, so that nothing else can choose another one.
    "$venv/bin/python" -m pip install --quiet "$SEQBA_TORCH" || seqba_fail "pip could not install $SEQBA_TORCH"
    "$venv/bin/python" -m pip install --quiet "$SEQBA_TORCH" --editable "$root${extras:+[$extras]}" ||
        seqba_fail "pip could not install seqba${extras:+[$extras]}"
    printf '%s\n' "$state" >"$stamp"
}

seqba_environment() {
    local root venv
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    if [[ -n "${SEQBA_VENV:-}" ]]; then
        venv="$SEQBA_VENV"
        "$venv/bin/python" -c 'import importlib.util as u; u.find_spec("torch").name; u.find_spec("seqba").name' \
            >/dev/null 2>&1 && [[ -x "$venv/bin/seqba-train" ]] ||
            seqba_fail "SEQBA_VENV=$venv has no seqba installed; unset it, or pip install -e $root there"
    else
        venv="$root/.venv"
        seqba_install "$root" "$venv" "${1:-text}"
    fi
    export PATH="$venv/bin:$PATH"
}
