# Completion of stream-router for fish.
function __stream_router_complete
    set -l words (commandline -opc)
    set -l begun (commandline -ct)
    set -l found ($words[1] complete -- $words[2..] "$begun" 2>/dev/null)
    if test "$found" = ":files"
        __fish_complete_path "$begun"
    else
        printf '%s\n' $found
    end
end
complete -c stream-router -f -a '(__stream_router_complete)'
