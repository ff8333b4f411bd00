/* The test guest's process 1. It counts, and says the counter every few milliseconds on the serial
 * console and to the observer:
 *
 *   beat ID BOOT COUNTER MONOTONIC_US SINCE_LAST_US VERIFIED ERRORS
 *
 * The main thread runs with a real time priority, so that a beat is late only when the whole
 * guest was: what the observer measures is the host's doing. It never blocks: a line that does
 * not fit into the serial port's buffer is dropped and counted. */
#include "beat.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/input.h>
#include <linux/reboot.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define SERIAL_PATH        "/dev/ttyS0"
#define REAL_TIME_PRIORITY 50
#define EVENTS_MAX         8
#define INPUTS_MAX         16
#define STOP_DISKS_MS      3000
#define DRAIN_TRIES        50
#define DRAIN_DELAY_US     2000

vz_guest vz_the_guest;

static int say_fd = -1;
static int epoll_fd = -1;
static struct sockaddr_in observer;

static void say(const char *prefix, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static void say(const char *prefix, const char *format, va_list args)
{
    char line[VZ_LINE_MAX];
    int start = snprintf(line, sizeof line, "%s", prefix);
    vsnprintf(line + start, sizeof line - (size_t)start, format, args);
    /* The pipe keeps packets apart; a full one drops the line, as the contract says. */
    if (write(say_fd, line, strlen(line)) < 0)
        return;
}

void vz_guest_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say("", format, args);
    va_end(args);
}

void vz_guest_fail(const char *format, ...)
{
    va_list args;
    atomic_fetch_add(&vz_the_guest.errors, 1);
    va_start(args, format);
    say("error ", format, args);
    va_end(args);
}

void vz_guest_wake(void)
{
    /* A packet of one byte wakes the loop and is not a line. */
    if (write(say_fd, "", 1) < 0)
        return;
}

uint64_t vz_guest_errors(void)
{
    uint64_t errors = atomic_load(&vz_the_guest.errors) + atomic_load(&vz_the_guest.pages.errors);
    for (unsigned i = 0; i < vz_the_guest.store_count; i++)
        errors += atomic_load(&vz_the_guest.stores[i].errors);
    return errors;
}

void vz_guest_fields(char *line, size_t size)
{
    snprintf(line, size, "%s %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64,
             vz_the_guest.options.id, vz_the_guest.boot, vz_the_guest.counter, vz_the_guest.last_us,
             vz_the_guest.delta_us, atomic_load(&vz_the_guest.pages.verified), vz_guest_errors());
}

void vz_guest_serial(const char *line)
{
    static char rest[VZ_LINE_MAX + 2];
    static size_t length;

    /* What is left of a line goes first: the reader must never see two halves as one. */
    if (length == 0)
        length = (size_t)snprintf(rest, sizeof rest, "%.*s\r\n", VZ_LINE_MAX - 1, line);
    else
        vz_the_guest.serial_dropped++;
    ssize_t done = write(vz_the_guest.serial_fd, rest, length);
    if (done > 0) {
        length -= (size_t)done;
        memmove(rest, rest + done, length);
    }
}

static void send_udp(const char *line)
{
    if (observer.sin_port == 0 || vz_the_guest.udp_fd < 0 ||
        atomic_load(&vz_the_guest.options.quiet))
        return;
    if (sendto(vz_the_guest.udp_fd, line, strlen(line), MSG_DONTWAIT, (struct sockaddr *)&observer,
               sizeof observer) < 0)
        vz_the_guest.udp_failed++;
}

/* By the counter and not by the clock: a late beat must not cost the next one its line. */
static uint64_t serial_every(void)
{
    uint64_t every = vz_the_guest.options.serial_ms / vz_the_guest.options.beat_ms;
    return every > 0 ? every : 1;
}

static void beat(int timer_fd)
{
    char fields[VZ_LINE_MAX], line[VZ_LINE_MAX];
    uint64_t expirations = 0;

    if (read(timer_fd, &expirations, sizeof expirations) != sizeof expirations)
        return;
    uint64_t now_us = vz_now_us();
    vz_the_guest.counter++;
    vz_the_guest.delta_us = vz_the_guest.last_us ? now_us - vz_the_guest.last_us : 0;
    vz_the_guest.last_us = now_us;
    vz_guest_fields(fields, sizeof fields);
    snprintf(line, sizeof line, "beat %.*s", VZ_LINE_MAX - 8, fields);
    send_udp(line);
    if (vz_the_guest.options.serial_ms > 0 && vz_the_guest.counter % serial_every() == 0)
        vz_guest_serial(line);
}

static void pass_on(int fd)
{
    char text[VZ_LINE_MAX], line[VZ_LINE_MAX * 2];
    for (;;) {
        ssize_t length = read(fd, text, sizeof text - 1);
        if (length <= 0)
            break;
        text[length] = '\0';
        if (text[0] == '\0')
            continue;
        snprintf(line, sizeof line, "say %s %s %s", vz_the_guest.options.id, vz_the_guest.boot,
                 text);
        vz_guest_serial(line);
        send_udp(line);
    }
    vz_ask_finish();
}

/* Waits for the last line to leave, but not for a console that nobody reads. */
static void drain_serial(void)
{
    int left = 0;
    for (int i = 0; i < DRAIN_TRIES; i++) {
        if (ioctl(vz_the_guest.serial_fd, TIOCOUTQ, &left) != 0 || left == 0)
            break;
        usleep(DRAIN_DELAY_US);
    }
}

void vz_guest_leave(bool again)
{
    for (unsigned i = 0; i < vz_the_guest.store_count; i++)
        vz_request_stop(&vz_the_guest.stores[i].request, STOP_DISKS_MS);
    vz_guest_serial(again ? "say reboot" : "say power off");
    drain_serial();
    sync();
    reboot(again ? (int)LINUX_REBOOT_CMD_RESTART : (int)LINUX_REBOOT_CMD_POWER_OFF);
    for (;;)
        pause();
}

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd >= 0)
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* Anything that is neither timer, pipe, port nor console is an input device. */
static void read_input(int fd)
{
    struct input_event event;
    while (read(fd, &event, sizeof event) == sizeof event)
        if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
            vz_guest_leave(false);
    if (errno != EAGAIN)
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static void watch_inputs(void)
{
    for (int i = 0; i < INPUTS_MAX; i++) {
        char path[VZ_NAME_MAX];
        snprintf(path, sizeof path, "/dev/input/event%d", i);
        watch(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    }
}

static void open_serial(void)
{
    struct termios settings;
    vz_the_guest.serial_fd = open(SERIAL_PATH, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (vz_the_guest.serial_fd < 0 || tcgetattr(vz_the_guest.serial_fd, &settings) != 0)
        return;
    cfmakeraw(&settings);
    cfsetspeed(&settings, B115200);
    tcsetattr(vz_the_guest.serial_fd, TCSANOW, &settings);
}

/* The random pool of a guest without a source of entropy may be the same in every boot, so the
 * clocks go in too. */
static void make_boot_id(void)
{
    uint64_t random = 0;
    struct timespec wall;
    if (vz_the_guest.options.boot[0] != '\0') {
        snprintf(vz_the_guest.boot, sizeof vz_the_guest.boot, "%s", vz_the_guest.options.boot);
        return;
    }
    if (getrandom(&random, sizeof random, GRND_INSECURE) < 0)
        random = 0;
    clock_gettime(CLOCK_REALTIME, &wall);
    random = vz_mix(random ^ __builtin_ia32_rdtsc(),
                    (uint64_t)wall.tv_sec * 1000000000 + (uint64_t)wall.tv_nsec);
    snprintf(vz_the_guest.boot, sizeof vz_the_guest.boot, "%08" PRIx32, (uint32_t)random);
}

static void find_observer(void)
{
    char address[VZ_NAME_MAX];
    snprintf(address, sizeof address, "%s", vz_the_guest.options.to);
    char *port = strchr(address, ':');
    if (address[0] == '\0')
        return;
    if (port)
        *port++ = '\0';
    if (!port || inet_pton(AF_INET, address, &observer.sin_addr) != 1) {
        vz_guest_fail("vz.to: '%s' is not ADDRESS:PORT", vz_the_guest.options.to);
        return;
    }
    observer.sin_family = AF_INET;
    observer.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
}

static void start_disks(void)
{
    char *rest = NULL;
    for (char *path = strtok_r(vz_the_guest.options.disk, ",", &rest);
         path && vz_the_guest.store_count < VZ_DISKS_MAX; path = strtok_r(NULL, ",", &rest))
        if (vz_store_start(&vz_the_guest.stores[vz_the_guest.store_count], path))
            vz_the_guest.store_count++;
}

static int start_timer(void)
{
    uint64_t beat_ms = vz_the_guest.options.beat_ms;
    struct timespec each = {.tv_sec = (time_t)(beat_ms / 1000),
                            .tv_nsec = (long)(beat_ms % 1000 * 1000000)};
    struct itimerspec timer = {.it_interval = each, .it_value = each};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    timerfd_settime(fd, 0, &timer, NULL);
    return fd;
}

static void loop(int timer_fd, int pass_fd)
{
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == timer_fd)
                beat(timer_fd);
            else if (fd == pass_fd)
                pass_on(pass_fd);
            else if (fd == vz_the_guest.udp_fd)
                vz_ask_udp();
            else if (fd == vz_the_guest.serial_fd)
                vz_ask_serial();
            else
                read_input(fd);
        }
    }
}

int main(void)
{
    int pipe_fd[2];
    struct sched_param priority = {.sched_priority = REAL_TIME_PRIORITY};

    vz_setup_mounts();
    open_serial();
    if (pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK | O_DIRECT) != 0)
        return 1;
    say_fd = pipe_fd[1];
    vz_options_read(&vz_the_guest.options);
    vz_setup_modules();
    make_boot_id();
    vz_setup_network();
    find_observer();
    if (!vz_ask_open())
        vz_guest_fail("no socket for questions: %s", strerror(errno));
    vz_guest_say("hello mem=%" PRIu64 " hot=%" PRIu64 " dirty=%" PRIu64 " disk=%s",
                 vz_the_guest.options.mem_mib, vz_the_guest.options.hot_mib,
                 atomic_load(&vz_the_guest.options.dirty_mib_s), vz_the_guest.options.disk);
    if (!vz_pages_start(&vz_the_guest.pages))
        vz_guest_fail("%" PRIu64 " MiB to stamp are not there", vz_the_guest.options.mem_mib);
    start_disks();
    sched_setscheduler(0, SCHED_FIFO, &priority);

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer_fd = start_timer();
    watch(timer_fd);
    watch(pipe_fd[0]);
    watch(vz_the_guest.udp_fd);
    watch(vz_the_guest.serial_fd);
    watch_inputs();
    loop(timer_fd, pipe_fd[0]);
}
