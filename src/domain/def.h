/* def.h - what a domain is: its definition, as plain structs.
 *
 * A definition is built by vz_def_parse or vz_def_copy, filled in by its builder, and immutable
 * from the moment another thread may see it; its reference count is atomic, so threads share it
 * without locks. Everything inside is owned by it. In an enum 0 (..._NONE) means "not said"; after
 * vz_def_parse whatever needs a value has one. Words and their enums: defs/domain_enums.def;
 * elements and their members: defs/domain_xml.def. */
#pragma once

#include "base/error.h"
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

#define ENUM(type, PREFIX)      typedef enum { VZ_##PREFIX##_NONE = 0,
#define VALUE(PREFIX, ID, text) VZ_##PREFIX##_##ID,
#define END(type)                                                                                  \
    }                                                                                              \
    vz_##type;
#include "domain_enums.def"
#undef ENUM
#undef VALUE
#undef END

#define VZ_DEF_XML_BYTES_MAX  ((size_t)1024 * 1024) /* a larger document is refused unread */
#define VZ_DEF_XML_DEPTH_MAX  32                    /* nesting of elements */
#define VZ_DEF_XML_NODES_MAX  100000                /* elements, attributes and texts together */
#define VZ_DEF_DEVICES_MAX    1024                  /* of one kind */
#define VZ_DEF_NAME_BYTES_MAX 255

/* Names that start so are made by the daemon for one run: never kept in a configuration. */
#define VZ_DEF_TAP_PREFIX "vnet"
/* Aliases that start so were chosen by the user, and are kept. */
#define VZ_DEF_USER_ALIAS_PREFIX "ua-"

typedef struct {
    uint32_t domain, bus, slot, function;
    vz_onoff multifunction;
} vz_def_pci_address;

typedef struct {
    uint32_t controller, bus, target, unit;
} vz_def_drive_address;

typedef struct {
    uint32_t bus;
    char *port; /* "1", or "1.2" behind a hub */
} vz_def_usb_address;

typedef struct {
    uint32_t controller, bus, port;
} vz_def_virtio_serial_address;

/* Only the member that `type` names is meaningful. */
typedef struct {
    vz_address_type type;
    vz_def_pci_address pci;
    vz_def_drive_address drive;
    vz_def_usb_address usb;
    vz_def_virtio_serial_address virtio_serial;
} vz_def_address;

/* What every device has. */
typedef struct {
    char *alias;         /* live only; also QEMU's id */
    uint32_t boot_order; /* 1 is first; 0: not said */
    vz_def_address address;
} vz_def_info;

typedef struct {
    vz_def_info info;
    vz_disk_type type;
    vz_disk_device device;
    vz_disk_driver driver;
    vz_disk_format format;
    vz_disk_cache cache;
    vz_disk_error_policy error_policy, read_error_policy;
    vz_disk_io io;
    vz_disk_discard discard;
    vz_disk_detect_zeroes detect_zeroes;
    char *path; /* NULL: an empty cdrom drive */
    char *target;
    vz_disk_bus bus;
    bool readonly, shareable;
    char *serial;
} vz_def_disk;

typedef struct {
    vz_def_info info;
    vz_controller_type type;
    bool has_index; /* always after parse */
    uint32_t index;
    vz_controller_model model;
    bool has_ports, has_vectors;
    uint32_t ports, vectors;  /* usb xhci and virtio-serial */
    vz_pci_device pci_device; /* type pci, below the root */
    uint32_t chassis_nr;      /* pci-bridge; 0: not said */
    bool has_chassis, has_port, has_start_port;
    uint32_t chassis, port; /* pcie-root-port: the slot's number and the port's own */
    uint32_t start_port;    /* ich9 companions: <master startport=...> */
} vz_def_controller;

typedef struct {
    vz_def_info info;
    vz_interface_type type;
    uint8_t mac[6];
    bool has_mac; /* always after parse */
    char *bridge; /* type bridge */
    char *target; /* tap name; NULL: the daemon picks vnetN at start */
    vz_interface_model model;
    vz_link_state link;
    uint32_t mtu_bytes; /* 0: not said */
} vz_def_interface;

/* Where a character device ends on the host. */
typedef struct {
    vz_chardev_type type;
    char *path; /* pty: live only; unix, file: always, but channels, whose path the daemon picks */
    vz_chardev_mode mode; /* unix with a path */
    bool path_filled;     /* `path` was picked by the daemon, for this run only */
    vz_onoff append;      /* file */
} vz_def_chardev;

typedef struct {
    vz_def_info info;
    vz_def_chardev source;
    vz_serial_target target;
    bool has_port; /* always after parse */
    uint32_t port;
    char *model; /* "isa-serial" */
} vz_def_serial;

typedef struct {
    vz_def_info info;
    vz_def_chardev source; /* consoles[0] of target serial mirrors serials[0]: one device */
    vz_console_target target;
    bool has_port;
    uint32_t port;
    char *tty; /* live only: the pty's path once more, as old clients read it */
} vz_def_console;

typedef struct {
    vz_def_info info;
    vz_def_chardev source;
    vz_channel_target target;
    char *name;                   /* "org.qemu.guest_agent.0" */
    vz_guest_channel_state state; /* live only */
} vz_def_channel;

typedef struct {
    vz_def_info info;
    vz_input_type type;
    vz_input_bus bus;
} vz_def_input;

typedef struct {
    vz_def_info info;
    vz_graphics_type type;
    int32_t port; /* -1: picked at start */
    vz_yesno autoport;
    char *passwd; /* secret: formatted only with VZ_DEF_FORMAT_SECURE */
    char *keymap;
    char *listen;       /* NULL: the daemon's default */
    bool listen_filled; /* `listen` is the daemon's default, put into a live definition */
    vz_listen_type listen_type;
} vz_def_graphics;

typedef struct {
    vz_def_info info;
    vz_video_model model;
    uint32_t vram_kib; /* 0: not said */
    uint32_t heads;    /* 0: not said */
    vz_yesno primary;
} vz_def_video;

typedef struct {
    vz_def_info info;
    vz_watchdog_model model;
    vz_watchdog_action action;
} vz_def_watchdog;

typedef struct {
    vz_def_info info;
    vz_balloon_model model;
} vz_def_balloon;

typedef struct {
    vz_def_info info;
    vz_rng_model model;
    uint32_t rate_bytes, rate_period_ms; /* 0: no limit */
    vz_rng_backend backend;
    char *path;
} vz_def_rng;

typedef struct {
    vz_audio_type type;
    uint32_t id;
} vz_def_audio;

typedef struct {
    vz_cpu_policy policy;
    char *name;
} vz_def_cpu_feature;

typedef struct {
    bool present; /* <cpu> was there, or was filled in */
    vz_cpu_mode mode;
    vz_cpu_match match;
    vz_cpu_check check;
    vz_onoff migratable;
    char *model;
    vz_cpu_fallback fallback;
    bool has_topology;
    uint32_t sockets, dies, cores, threads; /* dies is 1 where it was not said */
    vz_def_cpu_feature *features;
    size_t n_features;
} vz_def_cpu;

typedef struct {
    vz_timer_name name;
    vz_timer_policy policy;
    vz_yesno present;
} vz_def_timer;

typedef struct {
    vz_boot_device device;
} vz_def_boot;

typedef struct {
    vz_os_type type;
    char *arch;
    char *machine; /* versioned: the alias is resolved at parse */
    char *kernel, *initrd, *cmdline;
    vz_def_boot *boots; /* <boot dev=...>, in order */
    size_t n_boots;
    vz_yesno boot_menu;
    bool has_boot_menu_timeout;
    uint32_t boot_menu_timeout_ms;
} vz_def_os;

typedef struct vz_def vz_def;
struct vz_def {
    gint references; /* def.c only */
    vz_def_type type;
    int32_t id; /* -1: not running */
    char *name;
    uint8_t uuid[VZ_UUID_BYTES];
    char *title, *description;
    char *metadata;                        /* the whole <metadata> element, verbatim */
    uint64_t ram_bytes, current_ram_bytes; /* multiples of 1 KiB; current <= ram */
    vz_vcpu_placement vcpu_placement;
    uint32_t vcpus_max, vcpus; /* vcpus: online at start; equal unless current= was said */
    vz_def_os os;
    struct {
        bool acpi, apic, pae;
        vz_onoff vmport;
    } features;
    vz_def_cpu cpu;
    vz_clock_offset clock;
    vz_def_timer *timers;
    size_t n_timers;
    vz_lifecycle on_poweroff, on_reboot, on_crash;
    vz_yesno pm_suspend_to_mem, pm_suspend_to_disk;
    char *emulator;
    vz_def_disk *disks;
    size_t n_disks;
    vz_def_controller *controllers;
    size_t n_controllers;
    vz_def_interface *interfaces;
    size_t n_interfaces;
    vz_def_serial *serials;
    size_t n_serials;
    vz_def_console *consoles;
    size_t n_consoles;
    vz_def_channel *channels;
    size_t n_channels;
    vz_def_input *inputs;
    size_t n_inputs;
    vz_def_graphics *graphics;
    size_t n_graphics;
    vz_def_audio *audios;
    size_t n_audios;
    vz_def_video *videos;
    size_t n_videos;
    vz_def_watchdog *watchdogs;
    size_t n_watchdogs;
    vz_def_balloon
        *balloons; /* exactly one after parse; model ABSENT is <memballoon model='none'/> */
    size_t n_balloons;
    vz_def_rng *rngs;
    size_t n_rngs;
};

/* What the parser must know of this host; borrowed for the call. */
typedef struct {
    const char *arch;            /* "x86_64" */
    const char *emulator;        /* default of <emulator> */
    const char *default_machine; /* where <type> has no machine=: "pc" */
    const char *default_cpu;     /* model of a domain without <cpu>: "qemu64"; NULL: leave it out */
    /* The versioned name of a machine or of its alias (static or as long-lived as the host struct);
     * NULL: QEMU has no such machine. A NULL function takes every name as it is. */
    const char *(*canonical_machine)(const char *name, void *user);
    void *user;
} vz_def_host;

enum {
    /* Drop what belongs to one run (id, aliases, pty paths, generated tap names, picked ports):
     * for define, create and arrivals. Without it those are kept: for the status file. */
    VZ_DEF_PARSE_INACTIVE = 1u << 0,
};

/* A new definition (one reference) from one domain document, with libvirt's defaults filled in.
 * Bounded in size, depth and nodes; no network, no entities. Whatever it does not implement is
 * refused by name and path (CONFIG_UNSUPPORTED); malformed is XML_ERROR with the line. Any thread.
 */
vz_def *vz_def_parse(const char *xml, unsigned flags, const vz_def_host *host, GError **err);

/* libvirt's bits of domainGetXMLDesc (facts 3.3), so that they can be passed through. */
enum {
    VZ_DEF_FORMAT_SECURE = 1u << 0,     /* with passwords */
    VZ_DEF_FORMAT_INACTIVE = 1u << 1,   /* without what belongs to one run */
    VZ_DEF_FORMAT_UPDATE_CPU = 1u << 2, /* accepted: the CPU is shown as it is run */
    VZ_DEF_FORMAT_MIGRATABLE = 1u << 3, /* for another host: secure, and it parses back there */
    VZ_DEF_FORMAT_STATUS = 1u << 16,    /* ours, for the status file: everything */
};

/* The document, as dumpxml shows it. STATUS, parsed without INACTIVE, gives the same definition.
 * Caller frees. Never fails. Any thread. */
char *vz_def_format(const vz_def *def, unsigned flags);

/* For another host that is to run or to keep it. */
#define VZ_DEF_FORMAT_TRAVELLING                                                                   \
    (VZ_DEF_FORMAT_MIGRATABLE | VZ_DEF_FORMAT_INACTIVE | VZ_DEF_FORMAT_SECURE)

/* A deep copy with one reference, for its caller alone to change until it is shared. */
vz_def *vz_def_copy(const vz_def *def);
/* The same definition under another name; def itself where `name` or `def` is NULL. Takes the
 * reference. */
vz_def *vz_def_renamed(vz_def *take_def, const char *name);

vz_def *vz_def_ref(vz_def *def);
void vz_def_unref(vz_def *def); /* NULL is fine */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_def, vz_def_unref)

/* Gives every device its alias, as libvirt names them (virtio-disk0, net0, serial0 ...), for a
 * live definition that is still the caller's alone. */
void vz_def_assign_aliases(vz_def *def);

/* A console on the first serial port is that port: makes it show the same source and alias, and
 * fills in `tty`. For whoever has just learnt the ptys of a live definition. */
void vz_def_sync_consoles(vz_def *def);

/* false: the guest would notice that `target` was put in place of `source`; the first element that
 * differs is named in libvirt's words (CONFIG_UNSUPPORTED). Names, paths, and what else only the
 * host sees may differ. */
bool vz_def_same_abi(const vz_def *source, const vz_def *target, GError **err);

/* false: `target` has another name or UUID, which CONFIG_UNSUPPORTED names. */
bool vz_def_same_domain(const vz_def *source, const vz_def *target, GError **err);

/* The XML word of an enum's value: vz_disk_bus_word(VZ_DISK_BUS_SATA) is "sata"; "" for _NONE. */
#define ENUM(type, PREFIX) const char *vz_##type##_word(vz_##type value);
#define VALUE(PREFIX, ID, text)
#define END(type)
#include "domain_enums.def"
#undef ENUM
#undef VALUE
#undef END

/* The disk of that target ("vda"), or NULL, also for none. */
const vz_def_disk *vz_def_disk_find(const vz_def *def, const char *target);
/* The controller that an address names, or NULL. */
const vz_def_controller *vz_def_controller_find(const vz_def *def, vz_controller_type type,
                                                uint32_t index);
