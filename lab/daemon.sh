# shellcheck shell=bash
# daemon.sh: the virtvzd of each host, from the build in $VZ_BUILD. Sourced by lab/lab.

DAEMON_SOCKET=/run/libvirt/virtvzd-sock
DAEMON_LOG=/var/log/virtvzd.log
DAEMON_PID=/run/virtvzd.lab.pid # the lab's own note; the number is the one inside the host
DAEMON_START_MS=10000           # sanitizer builds on a busy machine take seconds
DAEMON_STOP_MS=20000
DAEMON_POLL_MS=20

# daemon_install: puts the build into the lab's layer, for all hosts. Without a build that has
# virtvzd the lab comes up all the same, and says so.
daemon_install()
{
    local build=${VZ_BUILD:-$LAB_DIR/../build} dir layer=$LAB/layer
    if [ ! -e "$build/build.ninja" ]; then
        say "no build in $build (VZ_BUILD names another): the hosts have no virtvzd"
        return
    fi
    install_tools meson=meson
    # It must not outlive this shell, and then write where `down` has been.
    DESTDIR=$layer setpriv --pdeathsig KILL meson install -C "$build" --no-rebuild --quiet \
        >"$LAB/install.log" 2>&1 || {
        tail -n 5 "$LAB/install.log" >&2
        die "cannot install $build: has ninja built it? ('up --no-daemon' needs no build)"
    }
    # These are links into /usr in the root, which a directory would hide.
    for dir in bin sbin lib lib64; do
        [ ! -d "$layer/$dir" ] || {
            mkdir -p "$layer/usr"
            cp -a "$layer/$dir" "$layer/usr/"
            rm -r "${layer:?}/$dir"
        }
    done
    if [ ! -x "$layer/usr/sbin/virtvzd" ]; then
        [ -z "$(find "$layer" -name virtvzd -type f)" ] ||
            die "$build has another prefix: meson configure -Dprefix=/usr -Dsysconfdir=/etc"
        say "the build in $build has no virtvzd: the hosts have none"
        return
    fi
    mkdir -p "$layer/etc/virtvz"
    cp "$LAB_DIR/virtvzd.conf" "$layer/etc/virtvz/virtvzd.conf"
    : >"$LAB/daemon"
}

# daemon_pid HOST: prints the number of its virtvzd inside the host; fails if none runs.
daemon_pid()
{
    # shellcheck disable=SC2016
    in_host "$1" sh -c '
        read -r pid <"$1" && read -r name <"/proc/$pid/comm" && [ "$name" = virtvzd ] && echo "$pid"
    ' sh "$DAEMON_PID" 2>/dev/null
}

# daemon_spawn HOST: starts it as an init would: own session, no terminal, no signal ignored.
daemon_spawn()
{
    # shellcheck disable=SC2016
    in_host "$1" setsid --fork sh -c '
        echo $$ >"$1"
        exec /usr/sbin/virtvzd </dev/null >>"$2" 2>&1
    ' sh "$DAEMON_PID" "$DAEMON_LOG" </dev/null >/dev/null 2>&1
}

# daemon_wait HOST: until its socket answers.
daemon_wait()
{
    local waited_ms=0
    # shellcheck disable=SC2016
    until in_host "$1" socat -u OPEN:/dev/null "UNIX-CONNECT:$DAEMON_SOCKET" 2>/dev/null; do
        if [ $((waited_ms += DAEMON_POLL_MS)) -gt $DAEMON_START_MS ] ||
            { [ $waited_ms -gt 200 ] && ! daemon_pid "$1" >/dev/null; }; then
            in_host "$1" tail -n 20 "$DAEMON_LOG" >&2 || :
            die "virtvzd on $1 does not answer on $DAEMON_SOCKET: see above"
        fi
        sleep 0.0$DAEMON_POLL_MS
    done
}

# daemon_end HOST SIGNAL: sends it to virtvzd, if that runs, and waits until it is gone.
daemon_end()
{
    local pid
    pid=$(daemon_pid "$1") || return 0
    # shellcheck disable=SC2016
    in_host "$1" sh -c '
        pid=$1 left_ms=$3
        kill "-$2" "$pid" 2>/dev/null
        while read -r name <"/proc/$pid/comm" && [ "$name" = virtvzd ]; do
            [ $((left_ms -= 10)) -gt 0 ] || exit 1
            sleep 0.01
        done 2>/dev/null
        exit 0
    ' sh "$pid" "$2" "$DAEMON_STOP_MS" || die "virtvzd on $1 does not end"
}

cmd_daemon()
{
    [ $# = 2 ] || die "usage: lab daemon HOST start|stop|kill|restart"
    need_host "$1"
    [ -e "$LAB/daemon" ] || die "lab '$LAB_NAME' was made without a virtvzd"
    case $2 in
    start)
        ! daemon_pid "$1" >/dev/null || die "virtvzd runs on $1 already"
        ;;
    stop | restart) daemon_end "$1" TERM ;;
    kill) daemon_end "$1" KILL ;;
    *) die "usage: lab daemon HOST start|stop|kill|restart" ;;
    esac
    [ "$2" = start ] || [ "$2" = restart ] || return 0
    daemon_spawn "$1"
    daemon_wait "$1"
}
