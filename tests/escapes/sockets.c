// The network, and everything else that a socket can reach.
#include "attempt.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

static enum result family(int domain, int type, int protocol) {
    int fd = socket(domain, type, protocol);
    if (fd < 0 && base[0] && (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT)) return ABSENT;
    return call(fd);
}

static enum result connects(const void *address, socklen_t length, int domain) {
    int fd = socket(domain, SOCK_STREAM, 0);
    return fd < 0 ? HELD : call(connect(fd, address, length));
}

static enum result tcp_to_machine(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(bait_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connects(&address, sizeof address, AF_INET);
}
static enum result udp_to_machine(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(bait_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    return fd < 0 ? HELD : call(sendto(fd, "x", 1, 0, (void *)&address, sizeof address));
}
static enum result tcp_listen(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 || bind(fd, (void *)&address, sizeof address) ? HELD : call(listen(fd, 1));
}
static enum result unix_by_name(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0slmops-bait"};
    return connects(&address, offsetof(struct sockaddr_un, sun_path) + 12, AF_UNIX);
}
static enum result unix_by_path(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", in("/in/bait.sock"));
    return connects(&address, sizeof address, AF_UNIX);
}

static enum result inet(void) { return family(AF_INET, SOCK_STREAM, 0); }
static enum result inet6(void) { return family(AF_INET6, SOCK_STREAM, 0); }
static enum result raw(void) { return family(AF_INET, SOCK_RAW, IPPROTO_ICMP); }
static enum result ping(void) { return family(AF_INET, SOCK_DGRAM, IPPROTO_ICMP); }
static enum result packet(void) { return family(AF_PACKET, SOCK_RAW, 0); }
static enum result netlink_route(void) { return family(AF_NETLINK, SOCK_RAW, 0); }
static enum result netlink_audit(void) { return family(AF_NETLINK, SOCK_RAW, 9); }
static enum result netlink_events(void) { return family(AF_NETLINK, SOCK_RAW, 15); }
static enum result vsock(void) { return family(40, SOCK_STREAM, 0); }
static enum result kernel_crypto(void) { return family(38, SOCK_SEQPACKET, 0); }
static enum result bluetooth(void) { return family(31, SOCK_RAW, 1); }
static enum result can(void) { return family(29, SOCK_RAW, 1); }
static enum result tipc(void) { return family(30, SOCK_RDM, 0); }
static enum result rds(void) { return family(21, SOCK_SEQPACKET, 0); }
static enum result nfc(void) { return family(39, SOCK_SEQPACKET, 1); }
static enum result kcm(void) { return family(41, SOCK_DGRAM, 0); }
static enum result qipcrtr(void) { return family(42, SOCK_DGRAM, 0); }
static enum result smc(void) { return family(43, SOCK_STREAM, 0); }
static enum result xdp(void) { return family(44, SOCK_RAW, 0); }
static enum result mctp(void) { return family(45, SOCK_DGRAM, 0); }
static enum result key(void) { return family(15, SOCK_RAW, 2); }

// The kernel looks at 32 bits only; a filter that looked at 64 would be passed by this one.
static enum result inet_in_disguise(void) { return call(syscall(SYS_socket, (1ul << 32) | AF_INET, SOCK_STREAM, 0)); }

const struct attempt socket_attempts[] = {
    {"tcp-to-machine", tcp_to_machine},
    {"udp-to-machine", udp_to_machine},
    {"tcp-listen", tcp_listen},
    {"unix-by-name", unix_by_name},
    {"unix-by-path", unix_by_path},
    {"socket-inet", inet},
    {"socket-inet6", inet6},
    {"socket-raw", raw},
    {"socket-ping", ping},
    {"socket-packet", packet},
    {"socket-netlink-route", netlink_route},
    {"socket-netlink-audit", netlink_audit},
    {"socket-netlink-events", netlink_events},
    {"socket-vsock", vsock},
    {"socket-kernel-crypto", kernel_crypto},
    {"socket-bluetooth", bluetooth},
    {"socket-can", can},
    {"socket-tipc", tipc},
    {"socket-rds", rds},
    {"socket-nfc", nfc},
    {"socket-kcm", kcm},
    {"socket-qipcrtr", qipcrtr},
    {"socket-smc", smc},
    {"socket-xdp", xdp},
    {"socket-mctp", mctp},
    {"socket-key", key},

    {"socket-inet-in-disguise", inet_in_disguise},
    {0},
};
