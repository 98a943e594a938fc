"""The scripts that a shell evaluates to install the completion, and to uninstall it.

Each calls the program on the command line itself, so that the environment in which a line will run
completes it. Lines of `python` that call something else are left to any earlier completion.
"""

from __future__ import annotations

PROGRAMS = "python python3 equipoise equipoise-train equipoise-evaluate"
OURS = r"( -m equipoise|train\.py|evaluate\.py)( |$)"

BASH = r"""_equipoise_before=$(complete -p python 2> /dev/null)
_equipoise_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" ours='@OURS@' words query word cut candidate
    read -ra words <<< "$line"
    words[0]="${words[0]/#\~/$HOME}"
    COMPREPLY=()
    case "${words[0]##*/}" in
        python*)
            if ! [[ $line =~ $ours ]]; then
                [[ $_equipoise_before =~ -F\ ([^ ]+) ]] && "${BASH_REMATCH[1]}" "$@"
                return
            fi
            query=("${words[0]}" -m equipoise train) ;;
        equipoise) query=("${words[0]}" train) ;;
        *) query=("${words[0]%-*}-train") ;;
    esac
    word="${line##*[[:space:]]}"
    # readline replaces what follows the last of its separators, unless a quote is open
    case "$word" in
        [\'\"]*) cut="" ;;
        *) cut="${word%"${word##*[$COMP_WORDBREAKS]}"}" ;;
    esac
    while IFS= read -r candidate; do
        [[ -n $candidate ]] && COMPREPLY+=("${candidate#"$cut"}")
    done < <(COMP_LINE="$line" COMP_POINT=${#line} "${query[@]}" -sc query=bash 2> /dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=./@:] ]]; then
        compopt +o nospace 2> /dev/null
    fi
}
complete -o nospace -o bashdefault -o default -F _equipoise_completion @PROGRAMS@
"""
BASH_AWAY = r"""complete -r @PROGRAMS@ 2> /dev/null
eval "$_equipoise_before"
unset -f _equipoise_completion
unset _equipoise_before
"""

ZSH = r"""(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
typeset -g _equipoise_before=${_comps[python]-}
_equipoise_completion() {
    local line=${BUFFER[1,CURSOR]} program candidate
    local -a typed query found
    typed=(${(Q)${(z)line}})
    program=${typed[1]/#\~/$HOME}
    case ${program:t} in
        python*)
            if ! [[ $line =~ '@OURS@' ]]; then
                [[ -n $_equipoise_before ]] && $_equipoise_before "$@" || _files
                return
            fi
            query=($program -m equipoise train) ;;
        equipoise) query=($program train) ;;
        *) query=(${program%-*}-train) ;;
    esac
    found=(${(f)"$(COMP_LINE=$line COMP_POINT=${#line} $query -sc query=zsh 2> /dev/null)"})
    if (( ! $#found )); then
        _files
        return
    fi
    for candidate in $found; do
        if [[ $candidate == *[=./@:] ]]; then
            compadd -Q -S '' -- $candidate
        else
            compadd -Q -- $candidate
        fi
    done
}
compdef _equipoise_completion @PROGRAMS@
"""
ZSH_AWAY = r"""compdef -d @PROGRAMS@
[[ -n $_equipoise_before ]] && compdef $_equipoise_before python python3
unset -f _equipoise_completion
unset _equipoise_before
"""

FISH = r"""function __equipoise_completion
    set -l line (commandline -cp)
    set -l program (commandline -cpo)[1]
    switch (basename $program)
        case 'python*'
            set query $program -m equipoise train
        case equipoise
            set query $program train
        case '*'
            set query (string replace -r -- '-evaluate$' -train $program)
    end
    set -lx COMP_LINE $line
    set -lx COMP_POINT (string length -- $line)
    $query -sc query=fish 2> /dev/null
end
function __equipoise_is_called
    string match -qr -- '^\S*equipoise|@OURS@' (commandline -cp)
end
for program in @PROGRAMS@
    complete -c $program -n __equipoise_is_called -f -a '(__equipoise_completion)'
end
"""
FISH_AWAY = r"""for program in @PROGRAMS@
    complete -e -c $program
end
functions -e __equipoise_completion __equipoise_is_called
"""

SCRIPTS = {
    "install": {"bash": BASH, "zsh": ZSH, "fish": FISH},
    "uninstall": {"bash": BASH_AWAY, "zsh": ZSH_AWAY, "fish": FISH_AWAY},
}


def script(action: str, shell: str) -> str:
    """The script that installs or uninstalls the completion."""
    return SCRIPTS[action][shell].replace("@OURS@", OURS).replace("@PROGRAMS@", PROGRAMS)
