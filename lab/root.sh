# shellcheck shell=bash
# root.sh: the Debian 13 root that all hosts of all labs share read-only. It is built once by
# mmdebstrap, into a temporary directory that is renamed when it is whole, under a name that holds
# the hash of its recipe. Sourced by lab/lab.
#
#   $LAB_CACHE/root-<hash>      a whole root
#   $LAB_CACHE/root-<hash>.used its time is when it was asked for last
#   $LAB_CACHE/building.XXXXXX  one being built, or what an interrupted build left

ROOT_SUITE=trixie
ROOT_KEEP_MIN=1440 # a root that another recipe has replaced, after its last use
ROOT_PROGRAM_PACKAGES=(mmdebstrap=mmdebstrap apt-get=apt flock=util-linux ip=iproute2 tc=iproute2)
ROOT_OPTIONS=(
    --mode=root --variant=minbase --format=directory
    '--dpkgopt=path-exclude=/usr/share/man/*' '--dpkgopt=path-exclude=/usr/share/doc/*'
    '--dpkgopt=path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io
)

root_packages()
{
    sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$LAB_DIR/packages"
}

# root_path: sets REPLY to where the root for this recipe is, or will be.
root_path()
{
    local hash
    hash=$({
        root_packages
        cat "$LAB_DIR/root-hook"
        echo "$ROOT_SUITE ${ROOT_OPTIONS[*]}"
    } | sha256sum)
    REPLY=$LAB_CACHE/root-${hash:0:16}
}

# root_keyring: sets REPLY to a keyring that verifies trixie; Debian 12 has it since 2023.3+deb12u1.
root_keyring()
{
    local file try
    for try in 1 2; do
        for file in /usr/share/keyrings/debian-archive-trixie-stable.{pgp,gpg}; do
            [ -e "$file" ] || continue
            for REPLY in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
                [ ! -e "$REPLY" ] || return 0
            done
        done
        [ "$try" = 2 ] || install_packages debian-archive-keyring
    done
    die "debian-archive-keyring of this machine does not know Debian 13's keys: upgrade it"
}

# root_mirror: sets REPLY to $VZ_LAB_MIRROR, else to the mirror this machine itself uses.
root_mirror()
{
    REPLY=${VZ_LAB_MIRROR:-}
    [ -z "$REPLY" ] || return 0
    REPLY=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null |
        sed -n '/\/debian\/*$/{s|/*$||;p;q}') || REPLY=
    [ -n "$REPLY" ] || REPLY=http://deb.debian.org/debian
}

# root_sweep: removes what interrupted builds left. Call with the cache locked.
root_sweep()
{
    rm -rf --one-file-system "$LAB_CACHE"/building.*
}

# root_sweep_if_idle: the same, if nobody is building.
root_sweep_if_idle()
{
    [ -d "$LAB_CACHE" ] || return 0
    exec 8<"$LAB_CACHE"
    ! flock -n 8 || root_sweep
    unlock_fd 8
    rmdir "$LAB_CACHE" 2>/dev/null || :
}

# root_used PATH: is it under a lab that exists?
root_used()
{
    local file
    for file in "$LAB_STATE"/*/root; do
        [ -e "$file" ] && [ "$(<"$file")" = "$1" ] && return 0
    done
    return 1
}

# root_forget_old: removes roots that no lab is on and nobody asked for lately. Not at once, since
# work on several branches may need several. Call with the cache locked.
root_forget_old()
{
    local old
    while IFS= read -r old; do
        root_used "${old%.used}" || rm -rf --one-file-system "${old%.used}" "$old"
    done < <(find "$LAB_CACHE" -maxdepth 1 -name 'root-*.used' -mmin +$ROOT_KEEP_MIN)
}

# root_debootstrap DIRECTORY: runs mmdebstrap. In a pid namespace that dies with this shell, however
# that ends; in a mount namespace, so that no mount of it can stay.
root_debootstrap()
{
    local keyring mirror include options=() line
    root_keyring
    keyring=$REPLY
    root_mirror
    mirror=$REPLY
    include=$(root_packages | paste -sd,)
    while IFS= read -r line; do
        options+=("--aptopt=$line")
    done < <(apt-config dump --format '%f "%v";%n' | grep -iE '^Acquire::.*::Proxy' || :)
    say "building the Debian 13 root from $mirror, once; this takes a minute or two"
    setpriv --pdeathsig KILL \
        unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
        mmdebstrap "${ROOT_OPTIONS[@]}" --quiet --keyring="$keyring" "${options[@]}" \
        --include="$include" --customize-hook="$LAB_DIR/root-hook" \
        "$ROOT_SUITE" "$1/root" "deb $mirror $ROOT_SUITE main" </dev/null >"$1/log" 2>&1 &
    LAB_CHILD=$!
    wait "$LAB_CHILD"
}

# root_ensure: sets REPLY to a whole root for this recipe, built now if there is none.
root_ensure()
{
    local path building old rc=0
    root_path
    path=$REPLY
    if [ -e "$path" ]; then
        touch "$path.used"
        return
    fi
    install_tools "${ROOT_PROGRAM_PACKAGES[@]}"
    lock_dir 8 "$LAB_CACHE"
    if [ ! -e "$path" ]; then
        root_sweep
        building=$(mktemp -d "$LAB_CACHE/building.XXXXXX")
        LAB_BUILDING=$building
        # Errors must be seen here: `set -e` is off in a function whose result is tested.
        root_debootstrap "$building" || rc=$?
        LAB_CHILD=
        if [ "$rc" != 0 ]; then
            tail -n 20 "$building/log" >&2 || :
            die "mmdebstrap failed (exit code $rc): see above; VZ_LAB_MIRROR names another mirror"
        fi
        sync -f "$building"
        mv "$building/root" "$path"
        rm -rf "$building"
        LAB_BUILDING=
        touch "$path.used"
        root_forget_old
    fi
    unlock_fd 8
    REPLY=$path
}

# root_abandon: what ends a build early, on every way out of this shell.
root_abandon()
{
    if [ -n "${LAB_CHILD:-}" ]; then
        kill_namespace_parent "$LAB_CHILD"
        wait "$LAB_CHILD" 2>/dev/null || :
    fi
    [ -z "${LAB_BUILDING:-}" ] || rm -rf --one-file-system "$LAB_BUILDING"
    rmdir "$LAB_CACHE" 2>/dev/null || :
}

# kill_namespace_parent PID: kills what an `unshare --fork --pid` runs, so that all of it is gone
# when that unshare is.
kill_namespace_parent()
{
    local child
    read -r child <"/proc/$1/task/$1/children" || child=
    kill -KILL "${child:-$1}" 2>/dev/null || :
} 2>/dev/null

cmd_root()
{
    need_root
    root_ensure
    printf '%s\n' "$REPLY"
}

cmd_kernel()
{
    local file
    root_path
    for file in "$REPLY"/boot/vmlinuz-*; do
        [ -e "$file" ] || die "there is no root yet: run 'lab root' first"
        printf '%s\n' "$file"
        return
    done
}

cmd_purge()
{
    local old
    need_root
    [ -d "$LAB_CACHE" ] || return 0
    lock_dir 8 "$LAB_CACHE"
    for old in "$LAB_CACHE"/root-*; do
        ! root_used "$old" || die "a lab is up on $old: take it down first"
    done
    rm -rf --one-file-system "$LAB_CACHE"/root-*
    root_sweep
    rmdir "$LAB_CACHE" 2>/dev/null || say "left in $LAB_CACHE what is not the lab's"
}
