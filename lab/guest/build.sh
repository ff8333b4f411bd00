#!/bin/bash
# Makes the test guest: build.sh [OUT] writes OUT/vmlinuz, OUT/initrd.img and OUT/cmdline (the words
# that every guest's kernel command line begins with). OUT is build/guest unless given.
#
# The kernel, its modules and busybox come from the lab's Debian 13 root (lab/lab root), or from a
# directory of unpacked packages that VZ_GUEST_ROOT names; nothing is installed on this machine. Two
# builds from the same input are equal.
set -eu
umask 022

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
out=${1:-$here/../../build/guest}

# Modules by name, without what they depend on, which is found below. What a set needs that is not
# there as a module must be built in.
base_modules=(virtio_net virtio_balloon virtio_rng button evdev)
vd_modules=(virtio_blk)
sd_modules=(virtio_scsi ahci ata_piix sd_mod)

# A panic must stay visible: the guest does not reboot by itself. tsc=reliable, no_timer_check and
# nowatchdog keep the kernel from judging its clocks by a host that stopped it for a while. Leaving out
# the last two steps, which serve signed modules and keys, saves 0.15 s of 3.1 s under emulation
# (n=4); mitigations=off, init_on_alloc=0 and audit=0 were tried and save nothing.
cmdline='console=ttyS0 quiet loglevel=3 oops=panic panic=0 tsc=reliable no_timer_check nowatchdog'
cmdline+=' initcall_blacklist=load_system_certificate_list,jent_mod_init'

die()
{
    echo "build.sh: $*" >&2
    exit 1
}

# find_module NAME: sets REPLY to its file, or to nothing if it is built in. File names have - or _.
find_module()
{
    local pattern=${1//_/[-_]}
    REPLY=$(find "$modules/kernel" -name "$pattern.ko*" | head -n 1)
    [ -n "$REPLY" ] || grep -q "/$pattern\.ko$" "$modules/modules.builtin" ||
        die "the kernel $release has no module $1"
}

# unpack_module FILE NAME
unpack_module()
{
    case $1 in
    *.xz) xz -dc "$1" >"$2" ;;
    *.zst) zstd -qdc "$1" >"$2" ;;
    *) cp "$1" "$2" ;;
    esac
}

# add_module NAME: what it depends on, then itself, in $order and in the tree.
add_module()
{
    local name=${1//-/_} depends dependency
    case " ${order[*]} " in *" $name "*) return ;; esac
    find_module "$name"
    [ -n "$REPLY" ] || return 0
    unpack_module "$REPLY" "$tree/modules/$name.ko"
    depends=$(objcopy -O binary --only-section=.modinfo "$tree/modules/$name.ko" /dev/stdout |
        tr '\0' '\n' | sed -n 's/^depends=//p')
    for dependency in ${depends//,/ }; do
        add_module "$dependency"
    done
    order+=("$name")
}

# add_set NAME MODULE...
add_set()
{
    local set=$1 module
    shift
    order=()
    for module; do
        add_module "$module"
    done
    printf '%s\n' "${order[@]}" >"$tree/modules/$set"
}

for tool in cpio xz objcopy "${CC:-cc}"; do
    command -v "${tool%% *}" >/dev/null || die "needs $tool (packages cpio, xz-utils, binutils, gcc)"
done

root=${VZ_GUEST_ROOT:-$("$here/../lab" root)}
kernel=
for file in "$root"/boot/vmlinuz-*; do # the last is the newest
    [ ! -e "$file" ] || kernel=$file
done
[ -n "$kernel" ] || die "there is no kernel in $root/boot"
release=${kernel##*/vmlinuz-}
modules=$root/usr/lib/modules/$release

mkdir -p "$out"
work=$(mktemp -d "$out/new.XXXXXX") # two builds at once must not meet
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir -p "$tree"/{bin,dev,modules,proc,sys}
${CC:-cc} -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static -pthread -s \
    -o "$tree/init" "$here"/*.c
cp "$root/usr/bin/busybox" "$tree/bin/busybox"
ln -s busybox "$tree/bin/sh" # nothing needs it; rdinit=/bin/sh gives a shell
add_set base "${base_modules[@]}"
add_set vd "${vd_modules[@]}"
add_set sd "${sd_modules[@]}"

find "$tree" -exec touch -h -d @0 {} +
(cd "$tree" && find . -mindepth 1 | LC_ALL=C sort |
    cpio --quiet --reproducible -o -H newc -R 0:0) >"$work/initrd"
cp "$kernel" "$work/vmlinuz"
echo "$cmdline" >"$work/cmdline"
mv "$work/initrd" "$out/initrd.img"
mv "$work/vmlinuz" "$work/cmdline" "$out"
