/*
 * A plugin of QEMU's user emulation that counts executed instructions, exactly, and writes the count so far whenever the
 * program asks for its parent's process id: kernels/benches/instructions.rs does that before and after each kernel, and
 * for nothing else. It is preloaded into QEMU, too: then it is the program's clock, a nanosecond is an instruction, and what
 * the program tells of its own time is a count. benches/emulated.py builds and uses it:
 *
 *     gcc -O2 -shared -fPIC -Wl,-z,lazy -DAPI=1 instruction-counter.c -o counter.so
 *     LD_PRELOAD=./counter.so QEMU_UNSET_ENV=LD_PRELOAD QEMU_PLUGIN=./counter.so,out=FILE qemu-aarch64 PROGRAM
 *
 * Debian ships no qemu-plugin.h for QEMU 7.2, so what is used of it is declared here: calls that are alike in every version
 * of the interface, API 1 (until QEMU 8) to 4 (from QEMU 10 on). A block of code is left at its end only, so its
 * instructions are counted when it is entered.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))
#define AARCH64_GETPPID 173
#define CALLBACK_READS_NO_REGISTERS 0

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_info_t;
typedef void (*translated)(plugin_id, struct qemu_plugin_tb *);
typedef void (*executed)(unsigned int cpu, void *data);
typedef void (*system_call)(plugin_id, unsigned int cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                            uint64_t, uint64_t, uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, translated);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed, int flags, void *data);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, system_call);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = API;

/* QEMU has a thread for each of the program's, which counts what that one executes. */
static __thread uint64_t count;
static FILE *out;

static void add(unsigned int cpu, void *instructions)
{
    count += (uintptr_t)instructions;
}

static void on_block(plugin_id id, struct qemu_plugin_tb *block)
{
    uintptr_t instructions = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, add, CALLBACK_READS_NO_REGISTERS, (void *)instructions);
}

static void on_system_call(plugin_id id, unsigned int cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                           uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (number == AARCH64_GETPPID)
        fprintf(out, "%lu\n", (unsigned long)count);
}

/* QEMU answers the program's question for the time, of whatever clock, with this in place of the C library's. */
EXPORT int clock_gettime(clockid_t clock, struct timespec *now)
{
    const uint64_t second = 1000000000;
    now->tv_sec = count / second;
    now->tv_nsec = count % second;
    return 0;
}

EXPORT int qemu_plugin_install(plugin_id id, const struct qemu_info_t *info, int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            out = fopen(argv[i] + 4, "w");
    if (!out)
        return 1;
    setlinebuf(out);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    return 0;
}
