// escape bait DIR COMMAND…   runs a command with things within its reach that it must not reach, and stays there as the one who would be reached
// escape outside DIR         makes every attempt without a sandbox
// escape inside              makes every attempt within one
// escape take WHAT           takes more of something than it may
// escape linger MARK         leaves processes behind that want to stay
// escape expose              offers a program that runs as its owner to everybody, and waits
// What came of the attempts is printed, one line each; within a sandbox, into /out/results.
#include "attempt.h"

#include <linux/keyctl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

char base[512];
pid_t victim;
int bait_port;
pid_t bait_pid;

const char *in(const char *path) {
    static char buffers[4][1024];
    static int next;
    char *buffer = buffers[next++ & 3];
    snprintf(buffer, sizeof buffers[0], "%s%s", base, path);
    return buffer;
}

static void die(const char *what) {
    perror(what);
    exit(99);
}

static int listening_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (fd < 0 || bind(fd, (void *)&address, sizeof address) || listen(fd, 64) || getsockname(fd, (void *)&address, &length)) die("tcp bait");
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return ntohs(address.sin_port);
}

static void listen_at(const char *name, size_t length) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, name, length);
    if (fd < 0 || bind(fd, (void *)&address, offsetof(struct sockaddr_un, sun_path) + length) || listen(fd, 64)) die("unix bait");
}

// A terminal of our own, so that there is one that could be typed into.
static void terminal(void) {
    setsid();
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), unlock = 0, number;
    if (master < 0) return;
    ioctl(master, TIOCSPTLCK, &unlock);
    if (ioctl(master, TIOCGPTN, &number)) return;
    char name[64];
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    int slave = open(name, O_RDWR);
    if (slave < 0) return;
    ioctl(slave, TIOCSCTTY, 0);
    dup2(slave, 0);
    if (slave > 2) close(slave);
}

static int bait(const char *dir, char **command) {
    char path[256];
    terminal();
    bait_port = listening_port();
    listen_at("\0slmops-bait", 12);
    snprintf(path, sizeof path, "%s/bait.sock", dir);
    unlink(path);
    listen_at(path, strlen(path) + 1);
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "slmops-bait-session");
    syscall(SYS_add_key, "user", BAIT_KEY, "secret", 6, KEY_SPEC_SESSION_KEYRING);
    syscall(SYS_add_key, "user", BAIT_KEY, "secret", 6, KEY_SPEC_USER_KEYRING);
    int segment = shmget(BAIT_IPC_KEY, 4096, IPC_CREAT | 0666), queue = msgget(BAIT_IPC_KEY, IPC_CREAT | 0666);
    int semaphore = semget(BAIT_IPC_KEY, 1, IPC_CREAT | 0666);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) die("socket bait");
    fcntl(pair[0], F_SETFD, FD_CLOEXEC);
    // All of these stay open in what is started.
    if (dup2(open("/", O_RDONLY | O_DIRECTORY), BAIT_ROOT_FD) < 0 || dup2(open("/etc/passwd", O_RDONLY), BAIT_FILE_FD) < 0
        || dup2(pair[1], BAIT_SOCKET_FD) < 0)
        die("open bait");
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    setenv("SLMOPS_BAIT", "secret", 1);
    // What the attempts must know of us, in a file: a sandbox has no environment of ours.
    snprintf(path, sizeof path, "%s/bait", dir);
    FILE *file = fopen(path, "w");
    if (!file || fprintf(file, "%d %d\n", bait_port, getpid()) < 0 || fclose(file)) die("bait file");
    pid_t child = fork();
    if (child == 0) {
        execvp(command[0], command);
        die("exec");
    }
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    shmctl(segment, IPC_RMID, NULL);
    msgctl(queue, IPC_RMID, NULL);
    semctl(semaphore, 0, IPC_RMID);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

// Each attempt has a process of its own, and ten seconds.
static void make(const struct attempt *attempt) {
    pid_t own_victim = 0;
    if (base[0]) {
        own_victim = fork();
        if (own_victim == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) pause();
        }
        victim = own_victim;
    }
    pid_t child = fork();
    if (child == 0) {
        alarm(10);
        // Outside, whatever is mounted goes with the attempt.
        if (base[0] && unshare(CLONE_NEWNS) == 0) mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
        errno = 0;
        enum result result = attempt->run();
        if (base[0] && result == HELD && errno == ENOSYS) result = ABSENT;
        _exit(result == HELD ? 10 + (errno & 127) : (int)result);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (own_victim) {
        kill(own_victim, SIGKILL);
        waitpid(own_victim, NULL, 0);
    }
    if (WIFSIGNALED(status)) printf("%s held signal %d\n", attempt->name, WTERMSIG(status));
    else if (WEXITSTATUS(status) >= 10) printf("%s held %s\n", attempt->name, strerror(WEXITSTATUS(status) - 10));
    else printf("%s %s\n", attempt->name, WEXITSTATUS(status) == THROUGH ? "through" : "absent");
    fflush(stdout);
}

static void make_all(void) {
    const struct attempt *lists[] = {file_attempts, kernel_attempts, process_attempts, socket_attempts};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        for (const struct attempt *attempt = lists[i]; attempt->name; attempt++) make(attempt);
}

static char block[1 << 20];

static int write_file(const char *path, int megabytes, int unlinked) {
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    if (fd < 0) die(path);
    if (unlinked) unlink(path);
    while (megabytes--)
        if (write(fd, block, sizeof block) < 0) return 1;
    return 0;
}

static int create_files(const char *folder, int count) {
    char path[64];
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%d", folder, i);
        if (mknod(path, S_IFREG | 0644, 0)) return 1;
    }
    return 0;
}

// Whatever goes wrong on the way, it looks as if nothing had happened: a limit that only made the command fail would not be noticed.
static int take(const char *what) {
    memset(block, 1, sizeof block);
    if (!strcmp(what, "memory")) {
        pid_t child = fork();
        for (int i = 0; child == 0 && i < 400; i++) {
            char *memory = malloc(sizeof block);
            if (memory) memcpy(memory, block, sizeof block);
        }
        if (child == 0) pause();
    } else if (!strcmp(what, "memory-files")) {
        int fd = memfd_create("hidden", 0);
        for (int i = 0; i < 400; i++)
            if (write(fd, block, sizeof block) < 0) break;
    } else if (!strcmp(what, "processes")) {
        for (int i = 0; i < 200; i++)
            if (fork() == 0) pause();
    } else if (!strcmp(what, "output")) {
        write_file("/out/large", 100, 0);
    } else if (!strcmp(what, "scratch")) {
        write_file("/tmp/large", 100, 0);
    } else if (!strcmp(what, "files")) {
        create_files("/out", 3000);
    } else if (!strcmp(what, "scratch-files")) {
        create_files("/tmp", 3000);
    } else if (!strcmp(what, "holes")) {
        int fd = open("/out/holes", O_WRONLY | O_CREAT, 0644);
        return ftruncate(fd, 2ll << 40);
    }
    create_files("/out", 1);
    sleep(20);
    return 0;
}

static int linger(void) {
    for (int i = 0; i < 3; i++) {
        if (fork()) continue;
        setsid();
        for (int signal_ = 1; signal_ < 65; signal_++) signal(signal_, SIG_IGN);
        if (fork()) pause();
        for (;;) pause();
    }
    puts("ready");
    fflush(stdout);
    sleep(60);
    return 0;
}

static int expose_at(const char *folder, const char *path) {
    int from = open("/tools/escape", O_RDONLY), to = open(path, O_WRONLY | O_CREAT, 0755);
    char buffer[65536];
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;)
        if (write(to, buffer, n) != n) return 1;
    return fchmod(to, 06755) || close(to) || chmod(folder, 0777);
}

static int expose(void) {
    if (expose_at("/out", "/out/setuid-out") || expose_at("/tmp", "/tmp/setuid-tmp")) return 1;
    sleep(5);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "take")) return take(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "linger")) return linger();
    if (argc == 2 && !strcmp(argv[1], "expose")) return expose();
    if (argc > 3 && !strcmp(argv[1], "bait")) return bait(argv[2], argv + 3);
    if (argc == 3 && !strcmp(argv[1], "outside")) {
        snprintf(base, sizeof base, "%s", argv[2]);
    } else if (argc == 2 && !strcmp(argv[1], "inside")) {
        victim = 1;
        if (!freopen("/out/results", "w", stdout)) die("results");
    } else {
        fprintf(stderr, "escape bait DIR COMMAND… | outside DIR | inside | take WHAT | linger MARK | expose\n");
        return 2;
    }
    FILE *file = fopen(in("/in/bait"), "r");
    if (!file || fscanf(file, "%d %d", &bait_port, &bait_pid) != 2) die("bait");
    fclose(file);
    make_all();
    return 0;
}
