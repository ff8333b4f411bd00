/* sick_dir.c - a directory on a disk that fails when it is told to.
 *
 *     sick_dir DIRECTORY CONTROL
 *
 * mounts itself (FUSE) over DIRECTORY and passes everything through to what was there, until the
 * file CONTROL exists. Then all that changes something fails with the error it names: EIO, which
 * syncs get, too, or EROFS. It runs in the foreground and ends with the mount. Lab tests run it in
 * a host, so it is linked with no libfuse of the machine's. */
#define FUSE_USE_VERSION 35
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int under = -1;      /* the directory that the mount hides */
static const char *control; /* outside of it */

/* What of a path is below the directory. */
static const char *below(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static int answer(int result)
{
    return result < 0 ? -errno : result;
}

/* 0, or the error that the disk has now. */
static int sickness(bool sync)
{
    char word[16] = "";
    FILE *file = fopen(control, "re");
    if (!file)
        return 0;
    bool read = fgets(word, sizeof(word), file) != NULL;
    fclose(file);
    if (read && strncmp(word, "EROFS", strlen("EROFS")) == 0)
        return sync ? 0 : -EROFS;
    return -EIO;
}

static void *start(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)connection;
    config->attr_timeout = 0;
    config->entry_timeout = 0;
    config->negative_timeout = 0;
    return NULL;
}

static int get_attributes(const char *path, struct stat *ret_stat, struct fuse_file_info *info)
{
    if (info)
        return answer(fstat((int)info->fh, ret_stat));
    return answer(fstatat(under, below(path), ret_stat, AT_SYMLINK_NOFOLLOW));
}

static int list(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
    (void)offset;
    (void)info;
    (void)flags;
    int fd = openat(under, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory)
        return -errno;
    for (struct dirent *entry; (entry = readdir(directory));)
        fill(buffer, entry->d_name, NULL, 0, 0);
    closedir(directory);
    return 0;
}

/* The kernel has made an append a write at the end. */
static int open_file(const char *path, struct fuse_file_info *info)
{
    int fd = openat(under, below(path), (info->flags & ~O_APPEND) | O_CLOEXEC);
    info->fh = (uint64_t)fd;
    return fd < 0 ? -errno : 0;
}

static int create_file(const char *path, mode_t mode, struct fuse_file_info *info)
{
    int sick = sickness(false);
    if (sick)
        return sick;
    int fd = openat(under, below(path), (info->flags & ~O_APPEND) | O_CREAT | O_CLOEXEC, mode);
    info->fh = (uint64_t)fd;
    return fd < 0 ? -errno : 0;
}

static int close_file(const char *path, struct fuse_file_info *info)
{
    (void)path;
    return answer(close((int)info->fh));
}

static int read_file(const char *path, char *ret_data, size_t bytes, off_t offset,
                     struct fuse_file_info *info)
{
    (void)path;
    return answer((int)pread((int)info->fh, ret_data, bytes, offset));
}

static int write_file(const char *path, const char *data, size_t bytes, off_t offset,
                      struct fuse_file_info *info)
{
    (void)path;
    int sick = sickness(false);
    return sick ? sick : answer((int)pwrite((int)info->fh, data, bytes, offset));
}

static int sync_file(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)path;
    int sick = sickness(true);
    return sick ? sick : answer(data_only ? fdatasync((int)info->fh) : fsync((int)info->fh));
}

static int sync_directory(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)path;
    (void)data_only;
    (void)info;
    int sick = sickness(true);
    return sick ? sick : answer(fsync(under));
}

static int cut(const char *path, off_t bytes, struct fuse_file_info *info)
{
    int sick = sickness(false);
    if (sick)
        return sick;
    if (info)
        return answer(ftruncate((int)info->fh, bytes));
    int fd = openat(under, below(path), O_WRONLY | O_CLOEXEC);
    int result = fd < 0 ? -errno : answer(ftruncate(fd, bytes));
    close(fd);
    return result;
}

static int allocate(const char *path, int mode, off_t offset, off_t bytes,
                    struct fuse_file_info *info)
{
    (void)path;
    int sick = sickness(false);
    return sick ? sick : answer(fallocate((int)info->fh, mode, offset, bytes));
}

static int set_mode(const char *path, mode_t mode, struct fuse_file_info *info)
{
    int sick = sickness(false);
    if (sick)
        return sick;
    return answer(info ? fchmod((int)info->fh, mode) : fchmodat(under, below(path), mode, 0));
}

static int set_owner(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *info)
{
    (void)info;
    int sick = sickness(false);
    return sick ? sick : answer(fchownat(under, below(path), uid, gid, AT_SYMLINK_NOFOLLOW));
}

static int move(const char *from, const char *to, unsigned flags)
{
    int sick = sickness(false);
    return sick ? sick : answer(renameat2(under, below(from), under, below(to), flags));
}

static int remove_file(const char *path)
{
    int sick = sickness(false);
    return sick ? sick : answer(unlinkat(under, below(path), 0));
}

int main(int argc, char **argv)
{
    static const struct fuse_operations operations = {
        .init = start,
        .getattr = get_attributes,
        .readdir = list,
        .open = open_file,
        .create = create_file,
        .release = close_file,
        .read = read_file,
        .write = write_file,
        .fsync = sync_file,
        .fsyncdir = sync_directory,
        .truncate = cut,
        .fallocate = allocate,
        .chmod = set_mode,
        .chown = set_owner,
        .rename = move,
        .unlink = remove_file,
    };
    if (argc != 3) {
        fprintf(stderr, "usage: sick_dir DIRECTORY CONTROL\n");
        return 2;
    }
    control = argv[2];
    under = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (under < 0) {
        perror(argv[1]);
        return 1;
    }
    char *words[] = {argv[0], (char[]){"-f"}, argv[1], NULL};
    return fuse_main(3, words, &operations, NULL);
}
