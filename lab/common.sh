# shellcheck shell=bash
# common.sh: what every part of the lab uses: messages, names, locks, and telling a process that
# the lab started from a later one that has its number. Sourced by lab/lab.

LAB_CACHE=${VZ_LAB_CACHE:-/var/cache/virtvz-lab} # the Debian root, kept between labs
LAB_STATE=${VZ_LAB_STATE:-/var/lib/virtvz-lab}   # one directory per lab, while it is up
LAB_HOSTS_MAX=8     # hosta to hosth: what one machine can carry
LAB_LOCK_WAIT_S=300 # a lab's `up` takes seconds, its first root minutes

say()
{
    printf 'lab: %s\n' "$*" >&2
}

die()
{
    say "$*"
    exit "${LAB_DIE_CODE:-1}"
}

need_root()
{
    [ "$(id -u)" = 0 ] || die "this needs root: it makes namespaces and mounts"
}

# install_tools PROGRAM=PACKAGE...: installs what is absent, from the machine's own release only.
install_tools()
{
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    install_packages "${missing[@]}"
}

install_packages()
{
    command -v apt-get >/dev/null || die "needs these packages, and there is no apt-get: $*"
    say "installing from this machine's own Debian release: $*"
    local apt=(apt-get -q -y -o Dpkg::Use-Pty=0 --no-install-recommends install)
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" "$@" >/dev/null 2>&1 || {
        apt-get -q update >&2
        DEBIAN_FRONTEND=noninteractive "${apt[@]}" "$@" >&2
    }
}

# lock_dir FD DIRECTORY: takes an exclusive lock on a directory, made if absent. The directory may
# be removed by whoever held the lock before, so after the wait it must still be the same one.
lock_dir()
{
    local fd=$1 dir=$2
    while :; do
        mkdir -p "$dir" || die "cannot make $dir"
        eval "exec $fd<\"\$dir\"" 2>/dev/null || continue
        flock -n "$fd" || {
            say "waiting for another lab command to end"
            flock -w "$LAB_LOCK_WAIT_S" "$fd" || die "another lab command holds $dir for too long"
        }
        [ "$dir" -ef "/proc/self/fd/$fd" ] && return
    done
}

unlock_fd()
{
    eval "exec $1<&-"
}

# proc_start PID: sets REPLY to when the process started (clock ticks since boot), which with the
# number and the boot tells processes apart; empty when it is gone or a zombie.
proc_start()
{
    local stat fields
    REPLY=
    [ -n "${1:-}" ] || return 0
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    read -r -a fields <<<"${stat##*) }"
    [ "${fields[0]}" = Z ] || REPLY=${fields[19]}
}

# pid_record FILE PID: writes which process it is.
pid_record()
{
    proc_start "$2"
    [ -n "$REPLY" ] || return 1
    echo "$2 $REPLY $(</proc/sys/kernel/random/boot_id)" >"$1"
}

# pid_live FILE: sets REPLY to the process recorded there, and fails if that runs no more.
pid_live()
{
    local pid='' start='' boot=''
    REPLY=
    { read -r pid start boot <"$1"; } 2>/dev/null || return 1
    proc_start "$pid"
    if [ -z "$REPLY" ] || [ "$REPLY" != "$start" ] ||
        [ "$boot" != "$(</proc/sys/kernel/random/boot_id)" ]; then
        REPLY=
        return 1
    fi
    REPLY=$pid
}

# pid_wait_gone FILE: waits for a recorded process that was killed; fails if it will not go.
pid_wait_gone()
{
    local tries=0
    while pid_live "$1"; do
        [ $((tries += 1)) -le 500 ] || return 1
        sleep 0.01
    done
}
