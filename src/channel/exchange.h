/* exchange.h - handshake, preface and answer on a new TLS session; for carriers and `ask`. Blocks
 * as `io` says. */
#pragma once

#include "channel/preface.h"
#include "channel/tls.h"

/* Opener: handshake, sends the preface (its version is filled in), reads the answer. true:
 * accepted. Errors as in tls.h and vz_answer_check. */
bool vz_exchange_open(vz_tls *tls, const vz_io *io, const vz_preface *preface, GError **err);

/* Acceptor: handshake, reads the preface. true: *ret_answer is ACCEPTED and *ret_preface is well-
 * formed and of this job, or *ret_answer says what to refuse it with. false: TLS failed. */
bool vz_exchange_read_preface(vz_tls *tls, const vz_io *io, const uint8_t job[VZ_UUID_BYTES],
                              vz_preface *ret_preface, vz_answer *ret_answer, GError **err);
bool vz_exchange_accept(vz_tls *tls, const vz_io *io, GError **err);
/* Says why, and ends the session so that the reason arrives. */
void vz_exchange_refuse(vz_tls *tls, const vz_io *io, vz_answer answer);
