/* table.c - see table.h. A pthread mutex and not GLib's, since ThreadSanitizer knows only the
 * former.
 */
#include "channel/carrier/table.h"

#include "base/fd.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

struct vz_channel {
    vz_channel_info info;
    vz_counters counters;
    uint64_t reported; /* sum of the counters when last taken */
    bool news;
    bool aborted;
    int local_fd; /* set before the thread starts, closed by vz_table_end */
    int owner_fd;
    int tcp_fd;
};

struct vz_table {
    pthread_mutex_t lock;
    int wake_fd;
    unsigned n;
    unsigned next_news; /* take turns, so that busy channels do not hide others */
    vz_channel *channels[VZ_CARRIER_CHANNELS_MAX];
};

vz_table *vz_table_new(int wake_fd)
{
    vz_table *table = g_new0(vz_table, 1);
    pthread_mutex_init(&table->lock, NULL);
    table->wake_fd = wake_fd;
    return table;
}

static vz_channel *find(vz_table *table, vz_purpose purpose, uint16_t index)
{
    for (unsigned i = 0; i < table->n; i++) {
        vz_channel *c = table->channels[i];
        if (c->info.purpose == purpose && c->info.index == index)
            return c;
    }
    return NULL;
}

static void tell(vz_table *table, vz_channel *channel)
{
    channel->news = true;
    uint64_t one = 1;
    ssize_t n = write(table->wake_fd, &one, sizeof(one));
    (void)n; /* full means that it is awake already */
}

/* Closing with a zero linger makes TCP send a reset; AF_UNIX has no reset and ignores it. */
static void close_fd(int *fd, bool reset)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (*fd >= 0 && reset)
        setsockopt(*fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    vz_fd_clear(fd);
}

static void end_locked(vz_table *table, vz_channel *channel, const GError *why)
{
    close_fd(&channel->local_fd, why != NULL);
    close_fd(&channel->tcp_fd, why != NULL);
    vz_fd_clear(&channel->owner_fd);
    channel->info.state = why ? VZ_CHANNEL_FAILED : VZ_CHANNEL_FINISHED;
    if (channel->aborted) {
        channel->info.reason_code = VZ_ERR_OPERATION_ABORTED;
        g_strlcpy(channel->info.reason, "aborted on this side", sizeof(channel->info.reason));
    } else if (why) {
        channel->info.reason_code = (int)vz_error_number(why);
        g_strlcpy(channel->info.reason, why->message, sizeof(channel->info.reason));
    }
    tell(table, channel);
}

/* A slot for the pair: a new one, or that of a channel which never was open. */
static vz_channel *slot_for(vz_table *table, vz_purpose purpose, uint16_t index, GError **err)
{
    vz_channel *channel = find(table, purpose, index);
    if (channel && channel->info.state == VZ_CHANNEL_FAILED && channel->info.connect_us == 0)
        return channel;
    if (channel) {
        vz_fail(err, VZ_ERR_OPERATION_INVALID, "channel %s %u was used before",
                vz_purpose_name(purpose), index);
        return NULL;
    }
    if (table->n == VZ_CARRIER_CHANNELS_MAX) {
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "a job has at most %d channels",
                VZ_CARRIER_CHANNELS_MAX);
        return NULL;
    }
    channel = g_new0(vz_channel, 1);
    table->channels[table->n++] = channel;
    return channel;
}

vz_channel *vz_table_add(vz_table *table, vz_purpose purpose, uint16_t index,
                         vz_channel_state state, const int take_fds[2], GError **err)
{
    vz_autofd local_fd = take_fds[0];
    vz_autofd owner_fd = take_fds[1];
    pthread_mutex_lock(&table->lock);
    vz_channel *channel = slot_for(table, purpose, index, err);
    if (channel) {
        *channel = (vz_channel){
            .info = {.purpose = purpose, .index = index, .state = state},
            .local_fd = vz_steal_fd(&local_fd),
            .owner_fd = vz_steal_fd(&owner_fd),
            .tcp_fd = -1,
        };
        tell(table, channel);
    }
    pthread_mutex_unlock(&table->lock);
    return channel;
}

vz_channel *vz_table_claim(vz_table *table, vz_purpose purpose, uint16_t index,
                           vz_answer *ret_answer)
{
    pthread_mutex_lock(&table->lock);
    vz_channel *channel = find(table, purpose, index);
    bool claimed = channel && channel->info.state == VZ_CHANNEL_EXPECTED;
    if (claimed) {
        channel->info.state = VZ_CHANNEL_CONNECTING;
        tell(table, channel);
    } else {
        *ret_answer = channel ? VZ_ANSWER_USED : VZ_ANSWER_NOT_EXPECTED;
    }
    pthread_mutex_unlock(&table->lock);
    return claimed ? channel : NULL;
}

bool vz_table_attach(vz_table *table, vz_channel *channel, int take_tcp_fd)
{
    pthread_mutex_lock(&table->lock);
    channel->tcp_fd = take_tcp_fd;
    bool aborted = channel->aborted;
    pthread_mutex_unlock(&table->lock);
    return !aborted;
}

void vz_table_open(vz_table *table, vz_channel *channel, const char *cipher, int64_t connect_us)
{
    pthread_mutex_lock(&table->lock);
    channel->info.state = VZ_CHANNEL_OPEN;
    channel->info.connect_us = MAX(connect_us, 1);
    g_strlcpy(channel->info.cipher, cipher, sizeof(channel->info.cipher));
    tell(table, channel);
    pthread_mutex_unlock(&table->lock);
}

void vz_table_end(vz_table *table, vz_channel *channel, const GError *why)
{
    pthread_mutex_lock(&table->lock);
    end_locked(table, channel, why);
    pthread_mutex_unlock(&table->lock);
}

void vz_table_abort(vz_table *table, vz_purpose purpose, uint16_t index)
{
    pthread_mutex_lock(&table->lock);
    vz_channel *channel = find(table, purpose, index);
    if (channel && channel->info.state < VZ_CHANNEL_FINISHED) {
        channel->aborted = true;
        g_autoptr(GError) why = g_error_new_literal(VZ_ERROR, VZ_ERR_OPERATION_ABORTED, "aborted");
        if (channel->info.state == VZ_CHANNEL_EXPECTED)
            end_locked(table, channel, why);
        else if (channel->tcp_fd >= 0)
            shutdown(channel->tcp_fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&table->lock);
}

bool vz_table_living(vz_table *table)
{
    bool living = false;
    pthread_mutex_lock(&table->lock);
    for (unsigned i = 0; i < table->n && !living; i++) {
        vz_channel_state state = table->channels[i]->info.state;
        living = state == VZ_CHANNEL_CONNECTING || state == VZ_CHANNEL_OPEN;
    }
    pthread_mutex_unlock(&table->lock);
    return living;
}

static uint64_t fill_counters(vz_channel *channel)
{
    vz_channel_info *info = &channel->info;
    info->sent_bytes = vz_counter_get(&channel->counters.sent);
    info->received_bytes = vz_counter_get(&channel->counters.received);
    info->wire_sent_bytes = vz_counter_get(&channel->counters.wire_sent);
    info->wire_received_bytes = vz_counter_get(&channel->counters.wire_received);
    return info->wire_sent_bytes + info->wire_received_bytes;
}

bool vz_table_take_news(vz_table *table, vz_channel_info *ret_info)
{
    bool found = false;
    pthread_mutex_lock(&table->lock);
    for (unsigned i = 0; i < table->n && !found; i++) {
        vz_channel *c = table->channels[(table->next_news + i) % table->n];
        if (!c->news)
            continue;
        found = true;
        table->next_news = (table->next_news + i + 1) % table->n;
        c->news = false;
        c->reported = fill_counters(c);
        *ret_info = c->info;
    }
    pthread_mutex_unlock(&table->lock);
    return found;
}

void vz_table_mark(vz_table *table, bool all)
{
    pthread_mutex_lock(&table->lock);
    for (unsigned i = 0; i < table->n; i++) {
        vz_channel *c = table->channels[i];
        if (all || fill_counters(c) != c->reported)
            c->news = true;
    }
    pthread_mutex_unlock(&table->lock);
}

vz_counters *vz_channel_counters(vz_channel *channel)
{
    return &channel->counters;
}

int vz_channel_local_fd(const vz_channel *channel)
{
    return channel->local_fd;
}

int vz_channel_owner_fd(const vz_channel *channel)
{
    return channel->owner_fd;
}
