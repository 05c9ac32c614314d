// QEMU plugin for scripts/bench: counts instructions, and TLB invalidations at EL2, and prints both at marks:
//   `hint #64` to `hint #95`       "count: mark N INSTRUCTIONS INVALIDATIONS", N from 0: what tests/scenarios/dom0's scripts set
//   the first word of an arm64 Image with EFI's "MZ", executed     "count: kernel INSTRUCTIONS INVALIDATIONS"
// One CPU. A block of code that an exception leaves half-way counts as a whole.
// Debian packages no header for plugins: these are the prototypes of QEMU 10.0 (interface version 4).
#include <stdint.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct tb;
struct insn;
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct tb *, void (*)(unsigned, void *), int flags, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct insn *, void (*)(unsigned, void *), int flags, void *);
size_t qemu_plugin_tb_n_insns(const struct tb *);
struct insn *qemu_plugin_tb_get_insn(const struct tb *, size_t);
size_t qemu_plugin_insn_data(const struct insn *, void *, size_t);

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

static uint64_t instructions, invalidations;

static void on_block(unsigned cpu, void *length) { instructions += (uintptr_t)length; }
static void on_invalidation(unsigned cpu, void *unused) { invalidations++; }

static void on_mark(unsigned cpu, void *number)
{
    fprintf(stderr, "count: mark %lu %lu %lu\n", (uintptr_t)number, instructions, invalidations);
}

static void on_kernel(unsigned cpu, void *unused)
{
    fprintf(stderr, "count: kernel %lu %lu\n", instructions, invalidations);
}

static void on_translation(plugin_id id, struct tb *block)
{
    size_t count = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_block, 0, (void *)count);
    for (size_t i = 0; i < count; i++) {
        struct insn *insn = qemu_plugin_tb_get_insn(block, i);
        uint32_t word = 0;
        qemu_plugin_insn_data(insn, &word, sizeof word);
        if ((word & 0xfffff000) == 0xd50c8000) // SYS #4, C8: TLBI of EL2
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_invalidation, 0, 0);
        else if ((word & 0xfffffc1f) == 0xd503281f) // HINT #64 to #95
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, 0, (void *)(uintptr_t)(word >> 5 & 31));
        else if (word == 0xfa405a4d) // CCMP X18, #0, #13, PL: "MZ" and two bytes
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_kernel, 0, 0);
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    return 0;
}
