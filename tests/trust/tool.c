// The command of the tiny project's exec step. Static, so that the sandbox needs nothing else. Any trouble ends it with exit code 5.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int good, const char *what) {
    if (!good) {
        perror(what);
        _exit(5);
    }
}

static void write_file(const char *path, const char *text, int mode) {
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    check(file >= 0, path);
    check(write(file, text, strlen(text)) == (ssize_t)strlen(text), path);
    check(fchmod(file, mode) == 0, path);
    check(fsync(file) == 0, path);
    check(close(file) == 0, path);
}

static void copy_lines(const char *from, const char *to) {
    char buffer[4096];
    int input = open(from, O_RDONLY), output = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    check(input >= 0 && output >= 0, "open");
    ssize_t count;
    while ((count = read(input, buffer, sizeof buffer)) > 0) check(write(output, buffer, count) == count, "write");
    check(count == 0, "read");
    check(close(input) == 0 && close(output) == 0, "close");
}

// Everything that a step's command may do to its output: folders, modes, renames, a second process.
static void fill(void) {
    check(mkdir("/out/extra/inner", 0755) == 0, "mkdir");
    write_file("/out/extra/inner/program", "#!/bin/sh\n", 0755);
    write_file("/out/extra/draft", "kept\n", 0600);
    check(rename("/out/extra/draft", "/out/extra/kept") == 0, "rename");
    write_file("/out/extra/gone", "", 0600);
    check(unlink("/out/extra/gone") == 0, "unlink");
    write_file("/tmp/scratch", "scratch", 0600);
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        write_file("/out/extra/child", "written by the child\n", 0644);
        _exit(0);
    }
    int status;
    check(waitpid(child, &status, 0) == child && status == 0, "child");
    copy_lines("/in/text", "/out/data/data.jsonl");
    check(puts("filled") >= 0 && fflush(stdout) == 0, "stdout");
}

// Processes that would outlive a careless end: a child, and one in a session of its own whose parent is gone.
static void linger(void) {
    write_file("/out/data/data.jsonl", "{\"text\": \"never read\"}\n", 0644);
    if (fork() == 0) {
        setsid();
        if (fork() != 0) _exit(0);
    } else {
        fork();
    }
    // Silent: writing into a pipe that nobody reads any more would end it.
    sleep(120);
}

int main(int count, char **arguments) {
    if (count > 1 && strcmp(arguments[1], "linger") == 0) linger();
    fill();
    return 0;
}
