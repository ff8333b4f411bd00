# shellcheck shell=bash
# host.sh: the life of a lab and of its hosts. Sourced by lab/lab.
#
#   $LAB = $LAB_STATE/<lab name>
#     root names subnet hosts shape daemon kvm   what the lab is: one fact a file
#     layer/ shared/                             the installed build; the directory all hosts share
#     complete                                   there once `up` has ended well
#     <host|switch|observer>/pid init            its processes (common.sh: pid_record)
#     <host|switch|observer>/ready log           its set-up: done; what it said
#     <host>/upper work mnt local                its disk; survives a crash of the host
#
# Every mount and interface lives in namespaces that end with the processes recorded here. So taking
# a lab down is: kill these, remove the directory.

HOST_READY_TRIES=1000 # times 10 ms

need_lab()
{
    need_root
    [ -e "$LAB/complete" ] || die "lab '$LAB_NAME' is not up: 'lab up' makes it"
}

# need_host NAME: the lab is up and has this host, crashed or not.
need_host()
{
    need_lab
    [[ " $(<"$LAB/names") " == *" $1 "* ]] ||
        die "lab '$LAB_NAME' has no host '$1', only $(<"$LAB/names")"
}

# namespace_start NAME PROPAGATION INIT [ARGUMENT...]: starts a holder; namespace_wait waits until
# it is set up. PROPAGATION is slave for what stays on the machine's root, lest it keep there what
# the machine unmounts.
namespace_start()
{
    local name=$1
    shift
    rm -f "$LAB/$name"/{pid,init,ready}
    env -i PATH="$PATH" setsid --fork "$LAB_DIR/hold" "$LAB/$name" "$@" \
        </dev/null >"$LAB/$name/log" 2>&1 8<&- 9<&-
}

namespace_wait()
{
    local dir=$LAB/$1 tries=0 init
    until [ -s "$dir/ready" ]; do
        if [ $((tries += 1)) -gt $HOST_READY_TRIES ] ||
            { [ -s "$dir/pid" ] && ! pid_live "$dir/pid"; }; then
            cat "$dir/log" >&2
            die "$1 did not come up: see above"
        fi
        sleep 0.01
    done
    pid_live "$dir/pid" || die "$1 ended at once"
    read -r init <"/proc/$REPLY/task/$REPLY/children" || :
    pid_record "$dir/init" "${init%% *}" || die "$1 ended at once"
}

# namespace_kill DIRECTORY: ends all that runs in one host, at once.
namespace_kill()
{
    pid_live "$1/pid" || return 0
    kill_namespace_parent "$REPLY"
    pid_wait_gone "$1/pid" || die "$1: process $REPLY does not end"
}

# host_disk NAME: a new host's own files.
host_disk()
{
    local upper=$LAB/$1/upper id
    # Without -p, which would make it anew after a `down`.
    mkdir "$LAB/$1"/{work,mnt,local} "$upper" "$upper"/etc{,/virtvz}
    read -r id </proc/sys/kernel/random/uuid
    echo "$id" >"$upper/etc/virtvz/host-uuid"
    read -r id </proc/sys/kernel/random/uuid
    echo "${id//-/}" >"$upper/etc/machine-id"
    echo "$1" >"$upper/etc/hostname"
    cp "$LAB/hosts" "$upper/etc/hosts"
}

# hosts_boot HOST...: from their disks to a running network and daemon, all at the same time.
hosts_boot()
{
    local host
    for host in "$@"; do
        namespace_start "$host" private "$LAB_DIR/host-init" "$LAB" "$host" "$(<"$LAB/kvm")"
    done
    for host in "$@"; do
        namespace_wait "$host"
        net_host_up "$host"
    done
    [ -e "$LAB/daemon" ] || return 0
    for host in "$@"; do
        daemon_spawn "$host"
    done
    for host in "$@"; do
        daemon_wait "$host"
    done
}

# lab_facts COUNT KVM: writes what the lab is.
lab_facts()
{
    local letters=({a..z}) names=() i
    root_ensure
    mkdir "$LAB"
    echo "$REPLY" >"$LAB/root"
    [ -d "$REPLY" ] || die "$REPLY was removed meanwhile: try again"
    for ((i = 0; i < $1; i++)); do
        names+=("host${letters[i]}")
    done
    echo "${names[*]}" >"$LAB/names"
    echo "$2" >"$LAB/kvm"
    net_subnet
    echo "$REPLY" >"$LAB/subnet"
    {
        echo "127.0.0.1 localhost"
        for i in "${names[@]}" observer; do
            net_address "$i"
            echo "$REPLY $i"
        done
    } >"$LAB/hosts"
    mkdir "$LAB"/{layer,shared,switch,observer} "${names[@]/#/$LAB/}"
}

cmd_up()
{
    local count=2 daemon=yes kvm=yes host
    for host in "$@"; do
        case $host in
        --no-daemon) daemon=no ;;
        --no-kvm) kvm=no ;;
        [1-9]) count=$host ;;
        *) die "'$host' is neither a number of hosts nor an option of 'up': see 'lab help'" ;;
        esac
    done
    [ "$count" -le $LAB_HOSTS_MAX ] || die "a lab has at most $LAB_HOSTS_MAX hosts"
    need_root
    [[ $LAB_STATE =~ ^[-_./A-Za-z0-9]+$ ]] || die "'$LAB_STATE' cannot be named to overlayfs"
    install_tools ip=iproute2 tc=iproute2 nsenter=util-linux flock=util-linux
    root_ensure
    lock_dir 9 "$LAB_STATE"
    [ ! -e "$LAB/complete" ] || die "lab '$LAB_NAME' is up already: 'lab down' ends it"
    lab_remove
    LAB_HALF_MADE=yes
    lab_facts "$count" "$kvm"
    namespace_start switch slave "$LAB_DIR/net-init" "$LAB" switch
    namespace_start observer slave "$LAB_DIR/net-init" "$LAB" observer
    [ "$daemon" = no ] || daemon_install
    for host in $(<"$LAB/names"); do
        host_disk "$host"
    done
    namespace_wait switch
    net_switch_up
    namespace_wait observer
    net_observer_up
    # shellcheck disable=SC2046 # a list of words
    hosts_boot $(<"$LAB/names")
    : >"$LAB/complete"
    LAB_HALF_MADE=
    unlock_fd 9
    say "lab '$LAB_NAME' is up: $(<"$LAB/names"); 'lab host hosta' enters one, 'lab down' ends it"
}

# lab_remove: ends all of a lab, whole or half made. Call with $LAB_STATE locked.
lab_remove()
{
    local dying=$LAB_STATE/.$LAB_NAME.down dir
    # A holder that is just being started then finds its directory gone, or has written in it which
    # process it is.
    if [ -e "$LAB" ]; then
        [ ! -e "$dying" ] || lab_end "$dying"
        mv "$LAB" "$dying"
    fi
    [ ! -e "$dying" ] || lab_end "$dying"
}

lab_end()
{
    local dir
    for dir in "$1"/*/; do
        namespace_kill "${dir%/}"
    done
    rm -rf --one-file-system "$1"
}

cmd_down()
{
    need_root
    if [ -d "$LAB_STATE" ]; then
        lock_dir 9 "$LAB_STATE"
        lab_remove
        rmdir "$LAB_STATE" 2>/dev/null || :
        unlock_fd 9
    fi
    root_sweep_if_idle
}

cmd_crash()
{
    [ $# = 1 ] || die "usage: lab crash HOST"
    need_host "$1"
    lock_dir 9 "$LAB_STATE"
    namespace_kill "$LAB/$1"
    in_net switch ip link del "$1" 2>/dev/null || :
}

cmd_boot()
{
    [ $# = 1 ] || die "usage: lab boot HOST"
    need_host "$1"
    ! pid_live "$LAB/$1/init" || die "$1 is up"
    lock_dir 9 "$LAB_STATE"
    namespace_kill "$LAB/$1"
    hosts_boot "$1"
}

# host_environment: sets HOST_ENV to what of the caller's environment goes into a host: what steers
# our own programs and their sanitizers, and the terminal.
host_environment()
{
    local name
    HOST_ENV=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8)
    for name in TERM G_MESSAGES_DEBUG ${!VZ_*} ${!GCOV_*} \
        ${!ASAN_*} ${!LSAN_*} ${!UBSAN_*} ${!TSAN_*}; do
        [[ $name == VZ_LAB* || $name == VZ_BUILD || -z ${!name:-} ]] ||
            HOST_ENV+=("$name=${!name}")
    done
}

# in_host HOST COMMAND...: in all the namespaces of a host.
in_host()
{
    pid_live "$LAB/$1/init" || die "$1 is not up: 'lab boot $1' starts it"
    shift
    host_environment
    nsenter --target "$REPLY" --mount --uts --ipc --net --pid --root --wd -- \
        env -i "${HOST_ENV[@]}" "$@" 8<&- 9<&-
}

cmd_host()
{
    LAB_DIE_CODE=125 # told apart from the command's own exit code
    [ $# -ge 1 ] || die "usage: lab host NAME [COMMAND...]"
    need_host "$1"
    pid_live "$LAB/$1/init" || die "$1 is not up: 'lab boot $1' starts it"
    shift
    [ $# -ge 1 ] || set -- bash
    host_environment
    enter_namespaces "$REPLY" -i "${HOST_ENV[@]}" "$@"
}

# enter_namespaces PID ENV_ARGUMENT... COMMAND...: becomes the command, as far as the caller can
# tell: the command has the terminal, stdin, and its exit code; Ctrl-C is for it alone, and it dies
# with the process that the caller knows.
enter_namespaces()
{
    local pid=$1 signals=()
    shift
    [[ $(trap -p INT) == *"''"* ]] || {
        trap '' INT QUIT
        signals=("--default-signal=INT,QUIT")
    }
    exec nsenter --target "$pid" --mount --uts --ipc --net --pid --root --wd -- \
        setpriv --pdeathsig KILL env "${signals[@]}" "$@"
}

cmd_enter()
{
    cmd_host "${1:-hosta}"
}

cmd_observer()
{
    LAB_DIE_CODE=125
    need_lab
    pid_live "$LAB/observer/init" || die "the observer of lab '$LAB_NAME' is not up"
    [ $# -ge 1 ] || set -- bash
    # Entering a mount namespace loses the working directory.
    enter_namespaces "$REPLY" --chdir="$PWD" "$@"
}

cmd_list()
{
    local dir state
    for dir in "$LAB_STATE"/*/; do
        [ -e "$dir/names" ] || continue
        state=up
        [ -e "$dir/complete" ] || state='half made'
        printf '%s\t%s\t%s\n' "$(basename "$dir")" "$state" "$(<"$dir/names")"
    done
}

cmd_status()
{
    local host state link daemon
    need_lab
    link=unshaped
    [ ! -e "$LAB/shape" ] || link=$(<"$LAB/shape")
    echo "lab $LAB_NAME: network $(<"$LAB/subnet").0/24, links $link"
    for host in $(<"$LAB/names"); do
        state=down link=- daemon=-
        if pid_live "$LAB/$host/init"; then
            state=up link=down
            [ -z "$(in_net switch ip link show "$host" up)" ] || link=up
            daemon=$(daemon_pid "$host") || daemon=none
        fi
        net_address "$host"
        printf '%s  %-4s  address %s  uuid %s  link %s  virtvzd %s\n' "$host" "$state" "$REPLY" \
            "$(<"$LAB/$host/upper/etc/virtvz/host-uuid")" "$link" "$daemon"
    done
    net_address observer
    echo "observer   address $REPLY"
}
