/* probe_volume.h - virtvz-probe's part in making images (volume.h). */
#pragma once

#include <jansson.h>
#include <stdbool.h>

/* Does `command` as `request` says and adds to the reply, also an "error". false: no such command.
 *
 *   look       path, format                             what is there, and the room beside it
 *   create     path, name, bytes, needs, uid, gid, mode an empty file of that name beside path
 *   settle     path, name, device, inode, born_ns       renames it to path, if that is free
 *   remove     path, name, device, inode, born_ns       removes it, under either name
 *   put-aside  path, suffix, inode                      renames what it leads to, if it is that
 */
bool vz_probe_volume(const char *command, const json_t *request, json_t *reply);
