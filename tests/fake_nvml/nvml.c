/*
 * A stand-in for the driver's libnvidia-ml.so.1, which the real pynvml loads.
 *
 * All state lies in the file named by FAKE_NVML_STATE, mapped and shared: a test rewrites it while
 * readers run. Its layout is mirrored by tests/fake_nvml/__init__.py; change both together. Without the
 * variable nvmlInit answers "library not found", as if this library were not there.
 *
 * -DWITHOUT_ENERGY leaves out nvmlDeviceGetTotalEnergyConsumption, as an old driver does.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x4c4d564eu
#define MAX_GPUS 16
#define TEXT 96

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_FOUND = 6, INSUFFICIENT_SIZE, LIBRARY_NOT_FOUND = 12, GPU_IS_LOST = 15 };

/* Which call a return code or a call count belongs to. */
enum { HANDLE, GET_UUID, GET_NAME, ENERGY, POWER, POWER_LIMIT, MEMORY, UTILIZATION, MIG_PARENT, FUNCTIONS };

typedef struct {
    char uuid[TEXT];
    char name[TEXT];
    char mig_uuid[TEXT];          /* a MIG instance on this GPU, empty for none */
    uint64_t base_uj;             /* counter at base_ns, microjoules */
    uint64_t base_ns;             /* CLOCK_MONOTONIC at which power_mw began to hold */
    uint64_t origin_ns;           /* ticks of the counter lie at origin_ns + k * tick_ns */
    uint64_t tick_ns;
    uint64_t held_mj;             /* shown before the first tick after base_ns, and while not live */
    uint64_t memory_total, memory_used;
    uint32_t power_mw;            /* what nvmlDeviceGetPowerUsage tells */
    uint32_t drawn_mw;            /* what the counter integrates */
    uint32_t power_limit_mw;
    uint32_t utilization_gpu, utilization_memory;
    uint32_t live;                /* 1: the counter runs by the clock; 0: it shows held_mj */
    int32_t codes[FUNCTIONS];     /* nvmlReturn_t of each call, 0 for success */
    uint32_t generation;          /* raised: handles given out before are dead */
    uint64_t calls[FUNCTIONS];    /* written by this library */
} gpu_t;

typedef struct {
    uint32_t magic, gpu_count;
    uint64_t sequence;            /* odd while the test writes */
    int32_t init_code, count_code;
    uint64_t inits, shutdowns;    /* written by this library */
    char driver[TEXT];
    gpu_t gpus[MAX_GPUS];
} state_t;

static state_t *state;
static char mapped_path[4096];
static int users;

static int map_state(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    if (!path || strlen(path) >= sizeof mapped_path) return LIBRARY_NOT_FOUND;
    if (state && !strcmp(path, mapped_path)) return SUCCESS;
    int file = open(path, O_RDWR);
    if (file < 0) return LIBRARY_NOT_FOUND;
    void *map = mmap(NULL, sizeof(state_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map == MAP_FAILED || ((state_t *)map)->magic != MAGIC) return LIBRARY_NOT_FOUND;
    if (state) munmap(state, sizeof(state_t));
    state = map;
    strcpy(mapped_path, path);
    return SUCCESS;
}

/* A GPU's state as it was at one moment, never half rewritten. */
static void snapshot(const gpu_t *gpu, gpu_t *copy) {
    for (int attempt = 0; attempt < 100000; attempt++) {
        uint64_t before = __atomic_load_n(&state->sequence, __ATOMIC_ACQUIRE);
        memcpy(copy, gpu, sizeof *copy);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (!(before & 1) && before == __atomic_load_n(&state->sequence, __ATOMIC_RELAXED)) return;
        sched_yield();
    }
}

/*
 * A handle is the GPU's place in the table, counted from 1, below its generation; a MIG instance's is
 * MAX_GPUS more. It is never a pointer that could dangle.
 */
static void *make_handle(unsigned index) {
    return (void *)((uintptr_t)state->gpus[index].generation << 8 | (index + 1));
}

static int begin(void *handle, int function, gpu_t *copy) {
    uintptr_t number = (uintptr_t)handle & 0xff;
    if (users <= 0) return UNINITIALIZED;
    if (number < 1 || number > state->gpu_count) return INVALID_ARGUMENT;
    gpu_t *gpu = &state->gpus[number - 1];
    __atomic_fetch_add(&gpu->calls[function], 1, __ATOMIC_RELAXED);
    snapshot(gpu, copy);
    return (uintptr_t)handle >> 8 == copy->generation ? copy->codes[function] : GPU_IS_LOST;
}

static int put_text(const char *from, char *to, unsigned length) {
    if (strnlen(from, TEXT) >= length) return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int code = map_state();
    if (code) return code;
    if (state->init_code) return state->init_code;
    __atomic_fetch_add(&state->inits, 1, __ATOMIC_RELAXED);
    users++;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    if (users <= 0) return UNINITIALIZED;
    users--;
    __atomic_fetch_add(&state->shutdowns, 1, __ATOMIC_RELAXED);
    return SUCCESS;
}

const char *nvmlErrorString(int code) { (void)code; return "an error of the stand-in library"; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    return users > 0 ? put_text(state->driver, text, length) : UNINITIALIZED;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (users <= 0) return UNINITIALIZED;
    *count = state->gpu_count;
    return state->count_code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    gpu_t gpu;
    if (users <= 0 || index >= state->gpu_count) return users <= 0 ? UNINITIALIZED : INVALID_ARGUMENT;
    *handle = make_handle(index);
    return begin(*handle, HANDLE, &gpu);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    if (users <= 0) return UNINITIALIZED;
    for (unsigned i = 0; i < state->gpu_count; i++) {
        if (!strcmp(uuid, state->gpus[i].uuid)) return nvmlDeviceGetHandleByIndex_v2(i, handle);
        if (*uuid && !strcmp(uuid, state->gpus[i].mig_uuid)) {
            *handle = (void *)((uintptr_t)make_handle(i) + MAX_GPUS);
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *instance, void **parent) {
    gpu_t gpu;
    *parent = (void *)((uintptr_t)instance - MAX_GPUS);
    return begin(*parent, MIG_PARENT, &gpu);
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    gpu_t gpu;
    int code = begin(handle, GET_UUID, &gpu);
    return code ? code : put_text(gpu.uuid, text, length);
}

int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    gpu_t gpu;
    int code = begin(handle, GET_NAME, &gpu);
    return code ? code : put_text(gpu.name, text, length);
}

#ifndef WITHOUT_ENERGY
static uint64_t counter_mj(const gpu_t *gpu, uint64_t now_ns) {
    if (!gpu->live || now_ns < gpu->origin_ns) return gpu->held_mj;
    uint64_t seen_ns = now_ns - (now_ns - gpu->origin_ns) % gpu->tick_ns;
    if (seen_ns < gpu->base_ns) return gpu->held_mj;
    unsigned __int128 picojoules = (unsigned __int128)gpu->drawn_mw * (seen_ns - gpu->base_ns);
    return (gpu->base_uj + (uint64_t)(picojoules / 1000000)) / 1000;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy_mj) {
    gpu_t gpu;
    struct timespec now;
    /* Before the state is read: a counter frozen meanwhile is then never outrun. */
    clock_gettime(CLOCK_MONOTONIC, &now);
    int code = begin(handle, ENERGY, &gpu);
    *energy_mj = code ? 0 : counter_mj(&gpu, now.tv_sec * 1000000000ull + now.tv_nsec);
    return code;
}
#endif

int nvmlDeviceGetPowerUsage(void *handle, unsigned *power_mw) {
    gpu_t gpu;
    int code = begin(handle, POWER, &gpu);
    *power_mw = code ? 0 : gpu.power_mw;
    return code;
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *limit_mw) {
    gpu_t gpu;
    int code = begin(handle, POWER_LIMIT, &gpu);
    *limit_mw = code ? 0 : gpu.power_limit_mw;
    return code;
}

int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long memory[3]) {
    gpu_t gpu;
    int code = begin(handle, MEMORY, &gpu);
    memory[0] = gpu.memory_total;
    memory[1] = gpu.memory_total - gpu.memory_used;
    memory[2] = gpu.memory_used;
    return code;
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned percent[2]) {
    gpu_t gpu;
    int code = begin(handle, UTILIZATION, &gpu);
    percent[0] = gpu.utilization_gpu;
    percent[1] = gpu.utilization_memory;
    return code;
}
