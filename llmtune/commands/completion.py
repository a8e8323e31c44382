"""`llmtune completion SHELL`: a script that asks `llmtune --complete WORDS...` and falls back to files."""

from typing import TYPE_CHECKING

from llmtune.completion import SHELLS
from llmtune.errors import UsageError

if TYPE_CHECKING:
    from llmtune.cli import Options

# Readline replaces only what follows the last '=' or ':', so candidates lose what stands before it. Written for bash 3.2 too.
_BASH = r"""_llmtune() {
    local line=${COMP_LINE:0:COMP_POINT} candidate kept=""
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local current=${words[${#words[@]}-1]}
    [[ $COMP_WORDBREAKS == *=* ]] && kept=${current%"${current##*[=:]}"}
    COMPREPLY=()
    while IFS= read -r candidate; do
        COMPREPLY+=("${candidate#"$kept"}")
    done < <("${words[0]/#\~/$HOME}" --complete "${words[@]:1}" 2>/dev/null)
    [[ ${COMPREPLY[0]-} == *[=.] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _llmtune llmtune
"""

_ZSH = r"""#compdef llmtune
_llmtune() {
    local -a found open closed
    found=(${(f)"$(${(Q)words[1]/#\~/$HOME} --complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)"})
    if (( ! ${#found} )); then
        compset -P '*='
        _files
        return
    fi
    open=(${(M)found:#*[=.]}) closed=(${found:#*[=.]})
    (( ${#open} )) && compadd -S '' -- $open
    (( ${#closed} )) && compadd -- $closed
}
compdef _llmtune llmtune
"""

_FISH = r"""function __llmtune_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    test (count $current) -eq 0; and set current ''
    set -l found ($before[1] --complete $before[2..-1] $current 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        set -l typed (string match -r -- '^[^=]*=' $current)
        for file in (__fish_complete_path (string replace -r -- '^[^=]*=' '' $current))
            printf '%s%s\n' "$typed" $file
        end
    end
end
complete -c llmtune -f -a '(__llmtune_complete)'
"""


def run(args: list[str], options: "Options") -> int:
    scripts = dict(zip(SHELLS, (_BASH, _ZSH, _FISH), strict=True))
    shell = options.words[0]
    if args or shell not in scripts:
        raise UsageError(f"no completion for '{(args or [shell])[0]}'", remedy=f"llmtune completion {'|'.join(SHELLS)}")
    print(scripts[shell], end="")
    return 0
