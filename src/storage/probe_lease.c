/* probe_lease.c - see probe_lease.h. One process, one thread; runs until it is done or killed.
 *
 *     DIR/.virtvz-lease-NAME         the lease of DIR/NAME
 *     DIR/.virtvz-lease-NAME.HOST    a draft of the host with that UUID; becomes the lease by
 * renaming
 *
 * DIR and NAME are those of the real file, behind links, so that all hosts mean the same one. */
#include "storage/probe_lease.h"

#include "base/fd.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEASE_PREFIX         ".virtvz-lease-"
#define LEASE_BYTES_MAX      ((size_t)16 * 1024)
#define LEASE_GENERATION_MAX ((json_int_t)1 << 53) /* what every reader of JSON can count to */
#define LEASE_VERSION        1
#define LEASE_MODE           0644
/* How often a lease that appears while one is made is looked at again. */
#define TAKE_TRIES 2

typedef struct {
    const char *image;
    const json_t *request;
    char *directory, *file, *draft;
    struct stat owner; /* of the image */
    bool absent;
    char *damage;  /* why what is there is no lease; NULL: it is one, or nothing */
    json_t *found; /* NULL: absent or damaged */
    bool written;
    const char *doing; /* what failed, for the error */
} lease;

/* 0 or an errno. May be called a second time, as the image's owner. */
typedef int (*lease_op)(lease *l);

static const char *wanted(const lease *l, const char *key)
{
    return json_string_value(json_object_get(l->request, key));
}

static bool is_text(const json_t *object, const char *key, const char *text)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value && text && strcmp(value, text) == 0;
}

/* ---- reading ---- */

static bool has_uuid(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    uint8_t uuid[VZ_UUID_BYTES];
    return text && vz_uuid_parse(text, uuid);
}

/* NULL: it is a lease; else why not. */
static const char *fault_of(const json_t *object)
{
    json_int_t generation = json_integer_value(json_object_get(object, "generation"));
    if (!json_is_object(object))
        return "it is not a JSON object";
    /* A later version keeps what is looked at here: a host that ignored its leases would start what
     * runs elsewhere. */
    if (json_integer_value(json_object_get(object, "version")) < 1)
        return "it has no version";
    if (!has_uuid(object, "host_uuid") || !has_uuid(object, "domain_uuid"))
        return "it does not name a host and a domain by UUID";
    if (generation < 0 || generation >= LEASE_GENERATION_MAX)
        return "its generation is out of range";
    return NULL;
}

static void parse(lease *l, const char *text, size_t bytes)
{
    json_t *object = json_loadb(text, bytes, 0, NULL);
    const char *fault = bytes > LEASE_BYTES_MAX ? "it is too large" : fault_of(object);
    if (!fault)
        l->found = json_incref(object);
    l->damage = g_strdup(fault);
    json_decref(object);
}

static int read_lease(lease *l)
{
    char text[LEASE_BYTES_MAX + 1];
    struct stat status;
    json_decref(l->found);
    l->found = NULL;
    g_clear_pointer(&l->damage, g_free);
    l->absent = false;
    l->doing = "read";
    vz_autofd fd = open(l->file, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        l->absent = true;
        return 0;
    }
    if ((fd < 0 && errno == ELOOP) ||
        (fd >= 0 && fstat(fd, &status) == 0 && !S_ISREG(status.st_mode))) {
        l->damage = g_strdup("it is not a file");
        return 0;
    }
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (n < 0)
        return errno;
    parse(l, text, (size_t)n);
    return 0;
}

static bool is_ours(const lease *l)
{
    return is_text(l->found, "host_uuid", wanted(l, "host_uuid"));
}

static bool may_take(const lease *l)
{
    return !l->found || is_ours(l) || json_is_true(json_object_get(l->request, "force"));
}

/* ---- writing ---- */

static json_int_t next_generation(const lease *l)
{
    return json_integer_value(json_object_get(l->found, "generation")) + 1;
}

/* Who gets the lease if what it is prepared for does not come about: NULL for nobody, which is what
 * a lease of this host was, as the guest was not here. */
static json_t *last_holder(const lease *l)
{
    if (!l->found || is_ours(l))
        return json_null();
    return json_pack("{sO sO?}", "host_uuid", json_object_get(l->found, "host_uuid"), "host_name",
                     json_object_get(l->found, "host_name"));
}

static json_t *compose(const lease *l)
{
    json_t *object =
        json_pack("{si ss sI ss ss? ss ss? ss?}", "version", LEASE_VERSION, "image", l->image,
                  "generation", next_generation(l), "host_uuid", wanted(l, "host_uuid"),
                  "host_name", wanted(l, "host_name"), "domain_uuid", wanted(l, "domain_uuid"),
                  "domain_name", wanted(l, "domain_name"), "time", wanted(l, "time"));
    const char *job = wanted(l, "job");
    if (job) {
        json_object_set_new(object, "job", json_string(job));
        json_object_set_new(object, "from", last_holder(l));
    }
    return object;
}

static int write_draft(lease *l, const json_t *object)
{
    l->doing = "write";
    if (unlink(l->draft) < 0 && errno != ENOENT)
        return errno;
    vz_autofd fd = open(l->draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, LEASE_MODE);
    if (fd < 0)
        return errno;
    /* Another umask would hide it from a host whose root is nobody here. */
    (void)!fchmod(fd, LEASE_MODE);
    char *text = json_dumps(object, JSON_INDENT(1));
    g_autofree char *line = g_strdup_printf("%s\n", text ? text : "");
    ssize_t bytes = (ssize_t)strlen(line);
    ssize_t n = write(fd, line, (size_t)bytes);
    int errnum = n < 0 || (n == bytes && fsync(fd) < 0) ? errno : n == bytes ? 0 : ENOSPC;
    free(text);
    if (errnum)
        unlink(l->draft);
    return errnum;
}

/* File systems that cannot sync a directory say EINVAL; the name is then as durable as they make
 * it. */
static int sync_directory(lease *l)
{
    vz_autofd fd = open(l->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && (fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP))
        return 0;
    return errno;
}

/* Where there was no lease, only one of two hosts makes one: EEXIST for the other. A file system
 * without hard links has to do with a rename. */
static int publish(lease *l)
{
    l->doing = "write";
    if (l->absent && link(l->draft, l->file) == 0)
        unlink(l->draft);
    else if ((l->absent && errno == EEXIST) || rename(l->draft, l->file) < 0) {
        int errnum = errno;
        unlink(l->draft);
        return errnum;
    }
    l->written = true;
    return sync_directory(l);
}

static int remove_file(lease *l, const char *path)
{
    struct stat status;
    l->doing = "remove";
    /* First, for unlink of nothing on a read-only file system is EROFS. */
    if (lstat(path, &status) < 0 || unlink(path) < 0)
        return errno == ENOENT ? 0 : errno;
    return sync_directory(l);
}

/* ---- the commands ---- */

static int take(lease *l)
{
    for (int left = TAKE_TRIES;; left--) {
        int errnum = read_lease(l);
        if (errnum || !may_take(l))
            return errnum;
        json_t *object = compose(l);
        errnum = write_draft(l, object);
        json_decref(object);
        if (!errnum)
            errnum = publish(l);
        if (errnum != EEXIST || left == 1)
            return errnum;
    }
}

static int prepare(lease *l)
{
    int errnum = read_lease(l);
    if (errnum)
        return errnum;
    json_t *object = compose(l);
    errnum = write_draft(l, object);
    json_decref(object);
    l->written = errnum == 0;
    return errnum;
}

static int hand_over(lease *l)
{
    l->absent = false;
    return publish(l);
}

static int give_back(lease *l)
{
    int errnum = remove_file(l, l->draft);
    if (!errnum)
        errnum = read_lease(l);
    if (errnum || !is_ours(l) || !is_text(l->found, "job", wanted(l, "job")))
        return errnum;
    json_t *from = json_object_get(l->found, "from");
    if (!json_is_object(from))
        return remove_file(l, l->file);
    json_t *object = json_copy(l->found);
    json_object_del(object, "job");
    json_object_del(object, "from");
    json_object_update(object, from);
    json_object_set_new(object, "generation", json_integer(next_generation(l)));
    json_object_set(object, "time", json_object_get(l->request, "time"));
    errnum = write_draft(l, object);
    json_decref(object);
    return errnum ? errnum : publish(l);
}

static int release(lease *l)
{
    int errnum = read_lease(l);
    if (errnum || !is_ours(l) || !is_text(l->found, "domain_uuid", wanted(l, "domain_uuid")))
        return errnum;
    return remove_file(l, l->file);
}

static const struct {
    const char *name;
    lease_op op;
} commands[] = {{"read", read_lease},     {"take", take},           {"prepare", prepare},
                {"hand-over", hand_over}, {"give-back", give_back}, {"release", release}};

/* As root; where root may not (root_squash), as the image's owner. */
static int attempt(lease *l, lease_op op)
{
    errno = 0;
    int errnum = op(l);
    if ((errnum != EACCES && errnum != EPERM) || geteuid() != 0)
        return errnum;
    if (setegid(l->owner.st_gid) == 0 && seteuid(l->owner.st_uid) == 0)
        errnum = op(l);
    if (seteuid(0) < 0 || setegid(0) < 0)
        exit(EXIT_FAILURE);
    return errnum;
}

static int find(lease *l)
{
    char real[PATH_MAX];
    l->doing = "reach";
    if (!realpath(l->image, real) || stat(real, &l->owner) < 0)
        return errno;
    g_autofree char *name = g_path_get_basename(real);
    l->directory = g_path_get_dirname(real);
    l->file = g_strdup_printf("%s/" LEASE_PREFIX "%s", l->directory, name);
    l->draft = g_strdup_printf("%s.%s", l->file, wanted(l, "host_uuid"));
    return 0;
}

static json_t *report(const lease *l, int errnum)
{
    json_t *one =
        json_pack("{ss ss? sb}", "image", l->image, "file", l->file, "written", l->written);
    if (l->found)
        json_object_set(one, "lease", l->found);
    if (l->damage)
        json_object_set_new(one, "damaged", json_string(l->damage));
    if (errnum)
        json_object_set_new(one, "error",
                            json_sprintf("cannot %s '%s': %s", l->doing,
                                         l->file ? l->file : l->image, g_strerror(errnum)));
    return one;
}

json_t *vz_probe_leases(const char *command, const json_t *request, char *const *images)
{
    lease_op op = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        if (strcmp(commands[i].name, command) == 0)
            op = commands[i].op;
    if (!op || !has_uuid(request, "host_uuid"))
        return NULL;
    json_t *all = json_array();
    for (; *images; images++) {
        lease l = {.image = *images, .request = request};
        int errnum = find(&l);
        if (!errnum)
            errnum = attempt(&l, op);
        json_array_append_new(all, report(&l, errnum));
        json_decref(l.found);
        g_free(l.damage);
        g_free(l.directory);
        g_free(l.file);
        g_free(l.draft);
    }
    return all;
}
