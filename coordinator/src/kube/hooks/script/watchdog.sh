# Freezes in a container so that it cannot stay frozen. Set before: T (a random word of the run), A (seconds
# until the watchdog unfreezes), L (seconds that the post-hook may take), H (the
# shell), D (directories for the state), W and P (of a container without a
# writable directory: the watchdog and the pre-hook, by pid and birth), and the functions pre and post, which
# exec the commands of the hook. $1 is this text, $2 what is asked: pre, watch or post.
#
# The state is a directory, S: `watch`, `pre` and `lock/by` name processes; `over`: the pre-hook has ended;
# `lock`: somebody runs the post-hook; `ran`: it was run, after the pre-hook was over. mkdir is the atomic
# operation.

# A process by pid and birth: a pid alone may be another's after the container was started again.
parse() {
    l=${1##*) }
    k=${1%% *}
    set -- $l
    case $1 in [ZX]) return 1 ;; esac
    m=$k:${20}
}
self() {
    m=:
    { read -r l </proc/self/stat; } 2>/dev/null && parse "$l"
}
alive() {
    case $1 in ?*:?*) ;; *) return 1 ;; esac
    { read -r l <"/proc/${1%%:*}/stat"; } 2>/dev/null && parse "$l" && [ "$m" = "$1" ]
}
hear() {
    h=
    { read -r h <"$1"; } 2>/dev/null
}
nap() { sleep 0.05 2>/dev/null || sleep 1; }
say() { printf '\nholdfast-%s %s\n' "$T" "$1"; }

# The pre-hook is over when this ends well: it has ended, was never begun, or is ended here.
settle() {
    h=$P
    if [ -n "$S" ]; then
        [ ! -d "$S/over" ] || return 0
        hear "$S/pre"
        # Its line is being written.
        [ -n "$h" ] || [ ! -e "$S/pre" ] || { sleep 1; hear "$S/pre"; }
    fi
    i=0
    q=$h
    while alive "$q"; do
        case $i in 0) kill "${q%%:*}" ;; 2) kill -9 "${q%%:*}" ;; 5) return 1 ;; esac 2>/dev/null
        sleep 1
        i=$((i + 1))
    done
}

# The post-hook, ended after L seconds.
bounded() {
    (trap - HUP INT QUIT PIPE TERM; post) &
    c=$!
    (
        z= t= g=
        trap 't=1; [ -z "$z" ] || kill "$z"' TERM
        { read -r l <"/proc/$c/stat"; } && parse "$l" && g=$m
        sleep "$L" &
        z=$!
        [ -z "$t" ] || kill "$z"
        wait "$z"
        wait "$z"
        [ -z "$t" ] || exit 0
        alive "$g" && kill "$c"
        sleep 2
        alive "$g" && kill -9 "$c"
    ) </dev/null >/dev/null 2>&1 &
    e=$!
    wait "$c"
    r=$?
    kill "$e" 2>/dev/null
    wait "$e" 2>/dev/null
    return "$r"
}

# Takes the lock; one whose holder is gone, or has it for longer than the post-hook may take, is broken.
lock() {
    i=0
    until mkdir "$S/lock" 2>/dev/null; do
        [ ! -d "$S/ran" ] && [ -d "$S" ] || return 1
        # A directory that takes nothing any more: without a lock rather than never.
        [ -d "$S/lock" ] || [ "$i" -lt 3 ] || return 0
        hear "$S/lock/by"
        if [ "$i" -gt $((L + 10)) ] || { [ -n "$h" ] && ! alive "$h"; }; then
            mv "$S/lock" "$S/broken.$$" 2>/dev/null
            i=0
            continue
        fi
        sleep 1
        i=$((i + 1))
    done
    self
    echo "$m" 2>/dev/null >"$S/lock/by"
}

# Runs the post-hook unless it was run. 0: it was run and the pre-hook is over; 1: it failed, with $r; 2: the
# pre-hook goes on, so it has to be run again. Sets $o to who ran it.
finish() {
    o=own r=0
    if [ -n "$S" ]; then
        if [ -d "$S/ran" ] || ! lock || [ -d "$S/ran" ]; then
            o=watchdog
            return 0
        fi
    fi
    settle
    d=$?
    bounded
    r=$?
    if [ -n "$S" ]; then
        [ "$r$d" != 00 ] || mkdir "$S/ran"
        mv "$S/lock" "$S/broken.$$" 2>/dev/null
        rm -rf "$S/broken.$$" 2>/dev/null
    fi
    [ "$r" = 0 ] || return 1
    [ "$d" = 0 ] || return 2
}

case $2 in
pre)
    S=
    command -v sleep >/dev/null && command -v mkdir >/dev/null || { say nosleep; exit 1; }
    for d in $D "${TMPDIR:-/tmp}"; do
        if (umask 077 && mkdir "$d/.holdfast-$T") 2>/dev/null; then
            S=$d/.holdfast-$T
            break
        fi
    done
    v=$(command -v setsid)
    $v $H -c 'eval "$1"' holdfast "$1" watch "$S" </dev/null >/dev/null 2>&1 &
    w=$!
    i=0
    if [ -n "$S" ]; then
        until [ -s "$S/watch" ]; do
            nap
            i=$((i + 1))
            [ "$i" -lt 100 ] && kill -0 "$w" 2>/dev/null || { say nowatch; exit 1; }
        done
    else
        nap
        { read -r l <"/proc/$w/stat"; } 2>/dev/null && parse "$l" || { say nowatch; kill "$w"; exit 1; }
        x=$m
        say "watch $x"
    fi
    (
        self
        if [ -n "$S" ]; then
            echo "$m" >"$S/pre" || exit 125
            # Somebody has run the post-hook already: it is too late to freeze.
            [ ! -d "$S/lock" ] && [ ! -d "$S/ran" ] || exit 124
        else
            say "run $m"
        fi
        pre
    ) </dev/null
    r=$?
    if [ -n "$S" ]; then
        mkdir "$S/over" 2>/dev/null
        # It was run too early, while the pre-hook could not be ended.
        [ ! -d "$S/ran" ] || (bounded)
    else
        # Without a watchdog it was run already.
        alive "$x" || (bounded)
    fi
    say "pre $r"
    # Who waits here is the watchdog's parent: none is left behind for a container that does not look after it.
    wait "$w" 2>/dev/null
    ;;
watch)
    S=$3
    trap '' HUP INT QUIT PIPE
    z= t=
    trap 't=1; [ -z "$z" ] || kill "$z"' TERM
    self
    [ -z "$S" ] || echo "$m" >"$S/watch"
    sleep "$A" &
    z=$!
    [ -z "$t" ] || kill "$z"
    wait "$z"
    wait "$z"
    [ -z "$t" ] || exit 0
    # From here on it means that somebody else has succeeded meanwhile. It is not ignored: who is started here would
    # ignore it too.
    trap 't=1' TERM
    [ -d "$S" ] || S=
    n=0
    until finish || [ -n "$t" ]; do
        n=$((n + 1))
        [ "$n" -lt 10 ] || exit 1
        sleep 5
    done
    ;;
post)
    S=
    for d in $D "${TMPDIR:-/tmp}"; do
        [ ! -d "$d/.holdfast-$T" ] || { S=$d/.holdfast-$T; break; }
    done
    finish
    case $? in
    0)
        h=$W
        [ -z "$S" ] || hear "$S/watch"
        if alive "$h"; then kill "${h%%:*}" 2>/dev/null; fi
        [ -z "$S" ] || rm -rf "$S" 2>/dev/null
        say "post $o"
        ;;
    1) say "failed $r" ;;
    *) say "again" ;;
    esac
    ;;
esac
