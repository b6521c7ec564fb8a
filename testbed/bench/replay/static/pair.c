/* The exchange of `testbed bench replay` in C: `pair client|server FLOWS PER_SECOND THINK_NS REQUEST RESPONSE
 * EXCHANGES FIRST_PORT SOURCE TARGET PORT START_NS` plays one side of all flows with one epoll and one heap of due
 * times. Writes the lateness of every scheduled event to standard output, native int64 nanoseconds, and to standard
 * error how many flows came to their end and when the last did, ns after START_NS; complains and exits 1 when it
 * cannot go on. It reads no file and knows no namespace. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORTS_AN_ADDRESS = 50000, AT_ONCE = 64, LINGER_S = 3 };

struct flow {
    int fd;
    int connected;
    long wanted; /* octets still to come before it is this side's turn */
    int spoken;
};
struct due {
    int64_t at;
    long flow;
};

static struct flow *flows;
static struct due *heap;
static long heaped, finished, noted;
static int64_t *lateness;
static char *payload;
static char scratch[262144];

static void fail(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void push(int64_t at, long flow) {
    long i = heaped++;
    while (i && heap[(i - 1) / 2].at > at) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = (struct due){at, flow};
}

static struct due pop(void) {
    struct due top = heap[0], last = heap[--heaped];
    long i = 0;
    for (;;) {
        long child = 2 * i + 1;
        if (child >= heaped) break;
        if (child + 1 < heaped && heap[child + 1].at < heap[child].at) child++;
        if (heap[child].at >= last.at) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* Half to one and a half times the mean, the same in every run. */
static int64_t spread(int64_t place) { return place * 2654435761LL % 4294967296LL; }
static int64_t thinks(int64_t mean, long flow, int turn, int exchanges) {
    return mean / 2 + (int64_t)((double)spread(flow * 2 * exchanges + turn) / 4294967296.0 * mean);
}

static void say(struct flow *f, int octets) {
    if (send(f->fd, payload, octets, MSG_NOSIGNAL) != octets) {
        close(f->fd);
        f->fd = -1;
        finished++;
    }
    f->spoken++;
}

static void leave(struct flow *f) {
    close(f->fd);
    f->fd = -1;
    finished++;
}

int main(int argc, char **argv) {
    if (argc != 13) {
        fprintf(stderr, "expected 12 arguments\n");
        return 1;
    }
    int client = !strcmp(argv[1], "client");
    long count = atol(argv[2]), started = 0;
    double per_second = atof(argv[3]);
    int64_t think = atoll(argv[4]), start = atoll(argv[12]);
    int request = atoi(argv[5]), response = atoi(argv[6]), exchanges = atoi(argv[7]), first_port = atoi(argv[8]);
    uint32_t source = ntohl(inet_addr(argv[9]));
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[11]))};
    target.sin_addr.s_addr = inet_addr(argv[10]);
    int ours = client ? request : response, theirs = client ? response : request, one = 1;
    payload = calloc(1, ours + 1);
    flows = calloc(count + 1, sizeof *flows);
    heap = calloc(count + 1, sizeof *heap);
    lateness = calloc(count * (exchanges + 1) + 1, sizeof *lateness);
    int poll = epoll_create1(0), listener = -1;
    if (!payload || !flows || !heap || !lateness || poll < 0) fail("begin");
    if (!client) {
        listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        target.sin_addr.s_addr = INADDR_ANY;
        if (bind(listener, (void *)&target, sizeof target) || listen(listener, 4096)) fail("listen");
        struct epoll_event e = {.events = EPOLLIN, .data.u64 = count};
        epoll_ctl(poll, EPOLL_CTL_ADD, listener, &e);
    }
    int64_t end = start + (int64_t)(count / per_second * 1e9) + 2 * exchanges * think + LINGER_S * 1000000000LL;
    while (finished < count && now() < end) {
        int64_t at = now(), next = end;
        while (client && started < count) {
            int64_t due = start + (int64_t)((started + spread(started) / 4294967296.0) * 1e9 / per_second);
            if (due > at) {
                next = due;
                break;
            }
            struct flow *f = &flows[started];
            struct sockaddr_in from = {.sin_family = AF_INET};
            from.sin_port = htons(first_port + started % PORTS_AN_ADDRESS);
            from.sin_addr.s_addr = htonl(source + started / PORTS_AN_ADDRESS);
            f->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
            setsockopt(f->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
            setsockopt(f->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            if (f->fd < 0 || bind(f->fd, (void *)&from, sizeof from)) fail("bind");
            lateness[noted++] = now() - due;
            if (connect(f->fd, (void *)&target, sizeof target) && errno != EINPROGRESS) fail("connect");
            struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = started};
            epoll_ctl(poll, EPOLL_CTL_ADD, f->fd, &e);
            started++;
        }
        while (heaped && heap[0].at <= at) {
            struct due due = pop();
            struct flow *f = &flows[due.flow];
            if (f->fd < 0) continue;
            lateness[noted++] = now() - due.at;
            say(f, ours);
        }
        if (heaped && heap[0].at < next) next = heap[0].at;
        int64_t wait = next - now();
        if (wait < 0) wait = 0;
        struct timespec limit = {wait / 1000000000LL, wait % 1000000000LL};
        struct epoll_event events[AT_ONCE];
        int found = epoll_pwait2(poll, events, AT_ONCE, &limit, NULL);
        for (int i = 0; i < found; i++) {
            if ((long)events[i].data.u64 == count) {
                int fd;
                while (started < count && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    flows[started] = (struct flow){fd, 1, request, 0};
                    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.u64 = started++};
                    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e);
                }
                continue;
            }
            struct flow *f = &flows[events[i].data.u64];
            if (f->fd < 0) continue;
            if (!f->connected && events[i].events & EPOLLOUT) {
                f->connected = 1;
                f->wanted = response;
                say(f, ours);
                if (f->fd < 0) continue;
            }
            for (;;) {
                long got = recv(f->fd, scratch, sizeof scratch, 0);
                if (got < 0 && errno == EAGAIN) break;
                if (got <= 0) {
                    leave(f);
                    break;
                }
                f->wanted -= got;
                if (f->wanted > 0) continue;
                f->wanted += theirs;
                if (client && f->spoken == exchanges) {
                    leave(f);
                    break;
                }
                push(now() + thinks(think, events[i].data.u64, f->spoken, exchanges), (long)events[i].data.u64);
            }
        }
    }
    fprintf(stderr, "%ld %lld\n", finished, (long long)(now() - start));
    return fwrite(lateness, sizeof *lateness, noted, stdout) == (size_t)noted ? 0 : 1;
}
