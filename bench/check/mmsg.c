/*
 * The `mmsg` rival as plain C: what the one in Rust must keep up with.
 *
 * usage: mmsg LISTEN_IP PORT TO_IP TO_PORT FLOWS
 * cc -O2 -o mmsg mmsg.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, DATAGRAM_BYTES = 2048, RECEIVE_BYTES = 8 << 20, SEND_BYTES = 4 << 20 };

static unsigned char buffers[BATCH][DATAGRAM_BYTES];
static struct iovec whole[BATCH], parts[BATCH];
static struct mmsghdr in[BATCH], out[BATCH];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* The kernel doubles what is asked, to account for its bookkeeping. */
static void size_buffer(int fd, int force, int ask, int bytes)
{
    int half = bytes / 2;
    if (setsockopt(fd, SOL_SOCKET, force, &half, sizeof half) < 0 &&
        setsockopt(fd, SOL_SOCKET, ask, &half, sizeof half) < 0)
        die("setsockopt");
}

static struct sockaddr_in address(const char *ip, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, ip, &address.sin_addr) != 1) {
        fprintf(stderr, "%s is no address\n", ip);
        exit(1);
    }
    return address;
}

int main(int count, char **arguments)
{
    if (count != 6) {
        fprintf(stderr, "usage: mmsg LISTEN_IP PORT TO_IP TO_PORT FLOWS\n");
        return 2;
    }
    struct sockaddr_in listen = address(arguments[1], atoi(arguments[2]));
    int to_port = atoi(arguments[4]), flows = atoi(arguments[5]);
    if (flows < 1 || to_port < 1 || to_port + flows - 1 > 65535) {
        fprintf(stderr, "%d flows to ports from %d on\n", flows, to_port);
        return 2;
    }
    struct sockaddr_in *to = calloc((size_t)flows, sizeof *to);
    if (!to)
        die("calloc");
    for (int flow = 0; flow < flows; flow++)
        to[flow] = address(arguments[3], to_port + flow);

    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0)
        die("socket");
    if (bind(fd, (struct sockaddr *)&listen, sizeof listen) < 0)
        die("bind");
    size_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, RECEIVE_BYTES);
    size_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, SEND_BYTES);

    for (int i = 0; i < BATCH; i++) {
        whole[i].iov_base = buffers[i];
        whole[i].iov_len = DATAGRAM_BYTES;
        in[i].msg_hdr.msg_iov = &whole[i];
        in[i].msg_hdr.msg_iovlen = 1;
        out[i].msg_hdr.msg_iov = &parts[i];
        out[i].msg_hdr.msg_iovlen = 1;
        out[i].msg_hdr.msg_namelen = sizeof *to;
    }
    puts("ready");
    fflush(stdout);

    for (;;) {
        int received = recvmmsg(fd, in, BATCH, MSG_WAITFORONE, NULL);
        if (received < 0) {
            if (errno == EINTR)
                continue;
            die("recvmmsg");
        }
        int queued = 0;
        for (int i = 0; i < received; i++) {
            uint32_t flow;
            if (in[i].msg_len < 8 || in[i].msg_hdr.msg_flags & MSG_TRUNC)
                continue;
            memcpy(&flow, buffers[i] + 4, sizeof flow);
            flow = ntohl(flow);
            if (flow >= (uint32_t)flows)
                continue;
            parts[queued].iov_base = buffers[i];
            parts[queued].iov_len = in[i].msg_len;
            out[queued].msg_hdr.msg_name = &to[flow];
            queued++;
        }
        for (int done = 0; done < queued;) {
            int sent = sendmmsg(fd, out + done, (unsigned)(queued - done), 0);
            if (sent >= 0)
                done += sent;
            else if (errno != EINTR)
                done++; /* the first of them failed: it is lost */
        }
    }
}
