/* settings.h - /etc/virtvz/vz.conf: what vz does when the command line does not say.
 *
 * Lines "key = value", "#" comments; an unknown key is an error, so that a typo is noticed. */
#pragma once

#include "base/error.h"

typedef struct {
    char *transport; /* how a source's daemon reaches a bare HOST */
    char *connect;   /* the daemon to talk to */
} vz_settings;

void vz_settings_clear(vz_settings *settings);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_settings, vz_settings_clear)

/* Defaults where the file is missing or silent. SYSTEM_ERROR if it cannot be read, INVALID_ARG
 * naming file, line and key. */
bool vz_settings_load(const char *path, vz_settings *ret_settings, GError **err);

/* The URI by which the source's daemon opens the destination: `host` itself if it is a URI, else
 * one made of it and the transport. INVALID_ARG for what cannot be one. Caller frees. */
char *vz_settings_destination(const char *host, const char *transport, GError **err);
/* The host name in such a URI, for people; the URI if it has none. Caller frees. */
char *vz_settings_host_of(const char *uri);
