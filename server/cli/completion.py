"""`ingle completion`: scripts with which a shell completes commands, options and models."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

_BASH = r"""
_ingle_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##*[[:space:]]}"
    mapfile -t COMPREPLY < <(
        _INGLE_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
            _TYPER_COMPLETE_ARGS="$line" "$1" 2>/dev/null | cut -f 1
    )
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        # bash replaces only what stands after the last colon
        COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
    fi
}
complete -o default -F _ingle_completion ingle
"""

_ZSH = r"""
#compdef ingle
_ingle() {
    eval "$(
        _INGLE_COMPLETE=complete_zsh _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" \
            "${words[1]}" 2>/dev/null
    )"
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _ingle "$@"
else
    compdef _ingle ingle
fi
"""
_FISH = r"""
function __ingle_complete
    set --local words (commandline --current-process --cut-at-cursor)
    _INGLE_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS="$words" ingle 2>/dev/null
end
complete --command ingle --arguments "(__ingle_complete)"
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell it is for.")],
) -> None:
    """Print a script that completes commands, options and models in a shell.

    bash: `ingle completion bash > ~/.local/share/bash-completion/completions/ingle`;
    zsh: `ingle completion zsh > "${fpath[1]}/_ingle"`;
    fish: `ingle completion fish > ~/.config/fish/completions/ingle.fish`.
    """
    typer.echo(_SCRIPTS[shell].strip())
