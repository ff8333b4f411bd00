/* record_wire.c - prints what this build says on a channel and to a carrier, as bytes in hex: what
 * record.py cannot hear, since it is said inside TLS or on a socket of one host.
 *
 *     NAME HEX            one line each; what the numbers in it mean, test_recorded.c says */
#include "channel/control.h"
#include "channel/preface.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const uint8_t job[VZ_UUID_BYTES] = {0x57, 0x36, 0x42, 0x67, 0x8c, 0xa8, 0x44, 0x9a,
                                           0xbf, 0xff, 0x8e, 0x7e, 0xfa, 0x4d, 0x95, 0x56};

static void print(const char *what, const char *name, const void *data, size_t bytes)
{
    g_autofree char *hex = vz_hex(data, bytes);
    printf("%s-%s %s\n", what, name, hex);
}

static void print_prologue(const char *name, vz_door door)
{
    vz_prologue prologue = {.door = door};
    uint8_t bytes[VZ_PROLOGUE_BYTES];
    memcpy(prologue.job, job, VZ_UUID_BYTES);
    vz_prologue_encode(&prologue, bytes);
    print("prologue", name, bytes, sizeof(bytes));
}

static void print_preface(vz_purpose purpose)
{
    vz_preface preface = {.version = VZ_CHANNEL_VERSION, .purpose = purpose, .index = 3};
    uint8_t bytes[VZ_PREFACE_BYTES];
    memcpy(preface.job, job, VZ_UUID_BYTES);
    vz_preface_encode(&preface, bytes);
    print("preface", vz_purpose_name(purpose), bytes, sizeof(bytes));
}

static void print_answer(const char *name, vz_answer answer)
{
    uint8_t bytes[VZ_ANSWER_MAX_BYTES];
    print("answer", name, bytes, vz_answer_encode(answer, bytes));
}

/* As it goes over the socket. */
static void print_control(const char *name, const vz_control_message *message)
{
    g_autoptr(GError) err = NULL;
    int pair[2];
    char bytes[2 * sizeof(*message)];
    if (!vz_control_pair(pair, &err) || !vz_control_send(pair[0], message, NULL, 0, &err))
        g_error("%s", err ? err->message : "it cannot be sent");
    print("control", name, bytes, (size_t)recv(pair[1], bytes, sizeof(bytes), 0));
    vz_fd_clear(&pair[0]);
    vz_fd_clear(&pair[1]);
}

int main(void)
{
    vz_control_message ready = {.type = VZ_CONTROL_READY, .pid = 4242, .start_time = 123456789};
    const vz_channel_info info = {.purpose = VZ_PURPOSE_MEMORY,
                                  .index = 3,
                                  .state = VZ_CHANNEL_FAILED,
                                  .reason_code = VZ_ERR_OPERATION_FAILED,
                                  .sent_bytes = 1000,
                                  .received_bytes = 2000,
                                  .wire_sent_bytes = 3000,
                                  .wire_received_bytes = 4000,
                                  .connect_us = 5000,
                                  .cipher = "a cipher",
                                  .reason = "a reason"};
    vz_control_message channel;
    print_prologue("carrier", VZ_DOOR_CARRIER);
    print_prologue("ask", VZ_DOOR_ASK);
#define PURPOSE(id, number, name) print_preface(VZ_PURPOSE_##id);
#include "purposes.def"
#undef PURPOSE
    print_answer("accepted", VZ_ANSWER_ACCEPTED);
    print_answer("used", VZ_ANSWER_USED);
    print_answer("version", VZ_ANSWER_VERSION);
    memcpy(ready.job, job, VZ_UUID_BYTES);
    print_control("ready", &ready);
    vz_control_from_info(&info, &channel);
    print_control("channel", &channel);
    return 0;
}
