/* offline.h - how the two hosts of an offline move meet, where a client drives it.
 *
 * libvirt's clients leave Perform out for a domain that is shut off, so the source never hears of
 * the destination before Confirm. The destination asks for what Perform would have given it:
 *
 *     source                                          destination
 *     Begin: cookie with an invitation ──(client)──►  Prepare
 *                                                     Finish: fetch-proof
 *     Perform's steps, the release   ◄──"let-go"────    invitation, own cookie and address
 *     the proof                      ──────────────►    or "wait", then it asks again
 *
 * The invitation is a secret of this job that only the client has carried: whoever shows it first
 * is the destination, with the key that it has shown to TLS. Peer to peer the source has all this
 * already, and calls its Perform itself (docs/decisions/0060-offline.md). */
#pragma once

#include "migrate/question.h"

typedef struct vz_let_go vz_let_go;
void vz_let_go_free(vz_let_go *let_go);

/* The destination's actor, in Finish: makes the source let the domain go; its proof is then
 * `proof`. Serves the inbox. */
bool vz_offline_fetch_proof(vz_migration *migration, GError **err);

/* See question.h. The source's answer, also to a stranger. */
json_t *vz_offline_reply_let_go(const vz_asked *asked, GError **err);
