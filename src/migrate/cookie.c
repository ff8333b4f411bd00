/* cookie.c - see cookie.h. */
#include "migrate/cookie.h"

#include <string.h>

typedef enum { TEXT, UUID, NUMBER, PORT, TRUTH, TREE } member_type;

typedef struct {
    const char *name;
    member_type type;
    size_t offset;
    bool required;
} member;

#define MEMBER(name, type, required)                                                               \
    {                                                                                              \
#name, type, offsetof(vz_cookie, name), required                                           \
    }

static const member members[] = {
    MEMBER(job, UUID, true),           MEMBER(host_name, TEXT, true),
    MEMBER(host_uuid, UUID, true),     MEMBER(fingerprint, TEXT, false),
    MEMBER(release_hash, TEXT, false), MEMBER(release, TEXT, false),
    MEMBER(incarnation, TEXT, false),  MEMBER(port, PORT, false),
    MEMBER(disks, TREE, false),        MEMBER(config_xml, TEXT, false),
    MEMBER(running, TRUTH, false),     MEMBER(paused_us, NUMBER, false),
    MEMBER(reply_us, NUMBER, false),   MEMBER(stats, TREE, false),
    MEMBER(address, TEXT, false),      MEMBER(stream, TREE, false),
    MEMBER(invitation, TEXT, false),   MEMBER(facts, TREE, false),
    MEMBER(direct_port, PORT, false),
};

static void *at(const vz_cookie *cookie, const member *m)
{
    return (char *)(uintptr_t)cookie + m->offset;
}

void vz_cookie_clear(vz_cookie *cookie)
{
    for (size_t i = 0; i < G_N_ELEMENTS(members); i++) {
        if (members[i].type == TEXT)
            g_free(*(char **)at(cookie, &members[i]));
        else if (members[i].type == TREE)
            json_decref(*(json_t **)at(cookie, &members[i]));
    }
    memset(cookie, 0, sizeof(*cookie));
}

static json_t *pack(const vz_cookie *cookie, const member *m)
{
    char uuid[VZ_UUID_TEXT_BYTES];
    const void *value = at(cookie, m);
    switch (m->type) {
    case TEXT:
        return *(char *const *)value ? json_string(*(char *const *)value) : NULL;
    case UUID:
        vz_uuid_format(value, uuid);
        return json_string(uuid);
    case NUMBER:
        return json_integer((json_int_t) * (const uint64_t *)value);
    case PORT:
        return json_integer(*(const uint16_t *)value);
    case TRUTH:
        return json_boolean(*(const bool *)value);
    case TREE:
        return json_incref(*(json_t *const *)value);
    }
    g_assert_not_reached();
}

char *vz_cookie_format(const vz_cookie *cookie)
{
    json_t *object = json_object();
    json_object_set_new(object, "virtvz-migration", json_integer(VZ_COOKIE_VERSION));
    for (size_t i = 0; i < G_N_ELEMENTS(members); i++) {
        json_t *value = pack(cookie, &members[i]);
        if (value)
            json_object_set_new(object, members[i].name, value);
    }
    /* jansson allocates with malloc, the program frees with g_free: one allocator in glibc. */
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    return text;
}

static bool unpack(vz_cookie *cookie, const member *m, json_t *value)
{
    void *to = at(cookie, m);
    switch (m->type) {
    case TEXT:
        *(char **)to = g_strdup(json_string_value(value));
        return json_is_string(value);
    case UUID:
        return json_is_string(value) && vz_uuid_parse(json_string_value(value), to);
    case NUMBER:
        *(uint64_t *)to = (uint64_t)json_integer_value(value);
        return json_is_integer(value) && json_integer_value(value) >= 0;
    case PORT:
        *(uint16_t *)to = (uint16_t)json_integer_value(value);
        return json_is_integer(value) && json_integer_value(value) >= 0 &&
               json_integer_value(value) <= UINT16_MAX;
    case TRUTH:
        *(bool *)to = json_is_true(value);
        return json_is_boolean(value);
    case TREE:
        *(json_t **)to = json_incref(value);
        return json_is_array(value) || json_is_object(value);
    }
    g_assert_not_reached();
}

static bool unpack_all(vz_cookie *cookie, json_t *object, const char *phase, GError **err)
{
    json_int_t version = json_integer_value(json_object_get(object, "virtvz-migration"));
    if (version < 1)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "the %s cookie has no version of virtvz; do both hosts run virtvzd?", phase);
    if (version > VZ_COOKIE_VERSION)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "the %s cookie has version %" JSON_INTEGER_FORMAT
                       ", and this virtvzd reads 1 to %d; install one as new as the other host's",
                       phase, version, VZ_COOKIE_VERSION);
    for (size_t i = 0; i < G_N_ELEMENTS(members); i++) {
        json_t *value = json_object_get(object, members[i].name);
        if (!value && !members[i].required)
            continue;
        if (!value || !unpack(cookie, &members[i], value))
            return vz_fail(err, VZ_ERR_INVALID_ARG, "the %s cookie has no valid '%s'", phase,
                           members[i].name);
    }
    return true;
}

bool vz_cookie_parse(const void *data, size_t bytes, const char *phase, vz_cookie *ret_cookie,
                     GError **err)
{
    if (bytes == 0 || bytes > VZ_COOKIE_BYTES_MAX)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the %s cookie has %zu bytes", phase, bytes);
    json_t *object = json_loadb(data, bytes, JSON_REJECT_DUPLICATES, NULL);
    g_auto(vz_cookie) cookie = {0};
    bool ok = json_is_object(object)
                  ? unpack_all(&cookie, object, phase, err)
                  : vz_fail(err, VZ_ERR_INVALID_ARG, "the %s cookie is not virtvz's", phase);
    json_decref(object);
    if (!ok)
        return false;
    *ret_cookie = cookie;
    memset(&cookie, 0, sizeof(cookie));
    return true;
}

char *vz_release_generate(void)
{
    uint8_t bytes[VZ_RELEASE_BYTES];
    vz_uuid_generate(bytes);
    vz_uuid_generate(bytes + VZ_UUID_BYTES);
    return vz_hex(bytes, sizeof(bytes));
}

char *vz_release_hash(const char *release)
{
    return g_compute_checksum_for_string(G_CHECKSUM_SHA256, release, -1);
}
