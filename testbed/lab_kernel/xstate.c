/*
 * Lets User-mode Linux before 6.13 run on processors with AMX.  Loaded with LD_PRELOAD; knows nothing but ptrace.
 *
 * Such a kernel keeps the first 2696 octets of a process's extended registers: all up to and with PKRU.  The kernel
 * below insists on being given the whole area, which AMX makes 11 KiB, and answers EFAULT; the guest then dies with
 * "ptrace set fp regs failed".  Here the rest of the area (tile registers, which no guest can turn on) is put back as
 * it is.  Where the area is not larger, nothing changes.
 */
typedef unsigned long word;

struct area {
    void *at;
    word octets;
};

enum { GETREGSET = 0x4204, SETREGSET = 0x4205, NT_X86_XSTATE = 0x202, EFAULT = 14, LARGEST = 1 << 16 };

extern int *__errno_location(void);
extern void *dlsym(void *, const char *);

static char whole[LARGEST] __attribute__((aligned(64)));
static int given_is_short;

long ptrace(int request, int pid, word address, void *data)
{
    static long (*next)(int, int, word, void *);
    const struct area *given = data;
    struct area all = {whole, LARGEST};

    if (!next)
        next = (long (*)(int, int, word, void *))dlsym((void *)-1, "ptrace");
    if (request != SETREGSET || address != NT_X86_XSTATE)
        return next(request, pid, address, data);
    if (!given_is_short) {
        long result = next(request, pid, address, data);
        if (result == 0 || *__errno_location() != EFAULT)
            return result;
        given_is_short = 1;
    }
    if (next(GETREGSET, pid, address, &all) < 0)
        return -1;
    for (word i = 0; i < given->octets && i < all.octets; i++)
        ((volatile char *)all.at)[i] = ((const char *)given->at)[i];
    return next(SETREGSET, pid, address, &all);
}
