/* json.h - members of an object, as readers want them. Any thread. */
#pragma once

#include <jansson.h>

/* Borrowed; NULL: there is no such member, or it is no text. */
static inline const char *vz_json_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}
