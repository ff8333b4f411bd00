/* def_codec.h - the values of a domain's XML that are more than a word, a number or a string. For
 * def_rows.c only; see def_rows.h for what a codec does. */
#pragma once

#include "domain/def_rows.h"

extern const vz_value_codec vz_codec_id, vz_codec_uuid, vz_codec_mac, vz_codec_vcpus;
extern const vz_node_codec vz_codec_memory, vz_codec_metadata;
