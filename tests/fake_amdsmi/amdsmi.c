/*
 * A stand-in for ROCm's libamd_smi.so, loaded by the real Python package amdsmi in tests. It implements
 * the calls that joulescope uses, for GPUs whose state is a file that a test maps and rewrites
 * (tests/fake_amdsmi/__init__.py); FAKE_AMDSMI_STATE names it. The package binds every symbol when it is
 * imported: the others are weak stubs in a second file, made from the package, that say "not supported".
 *
 * Structures are those of amdsmi.h in ROCm 7.0. The same file also serves as librocm-core.so.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SUCCESS = 0, INVAL = 1, NOT_SUPPORTED = 2, NOT_INIT = 32, DRIVER_NOT_LOADED = 34 };
enum { BDF, ASIC, KFD, DRIVER, ENERGY, POWER, CAP, MEMORY_TOTAL, MEMORY_USED, ACTIVITY, FUNCTIONS };
enum { MAX_GPUS = 16, TEXT = 64, MAGIC = 0x49534D41 };

typedef struct {
    char serial[TEXT], name[TEXT];
    uint64_t bdf;                 /* function:3, device:5, bus:8, domain:48 from the lowest bit */
    uint64_t energy;              /* the accumulator, in counter units */
    uint64_t cap_uw, memory_total, memory_used;
    uint32_t socket, partition;
    uint32_t current_w, average_w, busy_percent;
    float resolution;             /* microjoules in a counter unit, as the library tells it */
    int32_t codes[FUNCTIONS];     /* amdsmi_status_t of each call, 0 for success */
    uint64_t calls[FUNCTIONS];    /* written by this library */
} gpu_t;

typedef struct {
    uint32_t magic, gpu_count;
    int32_t init_code, list_code;
    uint64_t inits, shutdowns;    /* written by this library */
    uint32_t library_major, library_minor, rocm_major, rocm_minor;
    char driver[TEXT];
    gpu_t gpus[MAX_GPUS];
} state_t;

static state_t *state;
static char mapped_path[4096];
static int users;

static int map_state(void) {
    const char *path = getenv("FAKE_AMDSMI_STATE");
    if (!path || strlen(path) >= sizeof mapped_path) return DRIVER_NOT_LOADED;
    if (state && !strcmp(path, mapped_path)) return SUCCESS;
    int file = open(path, O_RDWR);
    if (file < 0) return DRIVER_NOT_LOADED;
    void *map = mmap(NULL, sizeof(state_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (map == MAP_FAILED || ((state_t *)map)->magic != MAGIC) return DRIVER_NOT_LOADED;
    if (state) munmap(state, sizeof(state_t));
    state = map;
    strcpy(mapped_path, path);
    return SUCCESS;
}

int amdsmi_init(uint64_t flags) {
    (void)flags;
    int code = map_state();
    if (code) return code;
    if (state->init_code) return state->init_code;
    state->inits++;
    users++;
    return SUCCESS;
}

int amdsmi_shut_down(void) {
    if (users <= 0) return NOT_INIT;
    users--;
    state->shutdowns++;
    return SUCCESS;
}

typedef struct { uint32_t major, minor, release, padding; const char *build; } version_t;

int amdsmi_get_lib_version(version_t *version) {
    if (users <= 0) return NOT_INIT;
    version->major = state->library_major;
    version->minor = state->library_minor;
    version->release = 0;
    version->build = "fake";
    return SUCCESS;
}

uint32_t getROCmVersion(uint32_t *major, uint32_t *minor, uint32_t *patch) {
    if (map_state() || !state->rocm_major) return 1;
    *major = state->rocm_major;
    *minor = state->rocm_minor;
    *patch = 2;
    return 0;
}

/* Handles are places counted from 1; sockets likewise. */
static unsigned sockets(void) {
    unsigned most = 0;
    for (unsigned i = 0; i < state->gpu_count; i++)
        if (state->gpus[i].socket + 1 > most) most = state->gpus[i].socket + 1;
    return most;
}

int amdsmi_get_socket_handles(uint32_t *count, void **handles) {
    if (users <= 0) return NOT_INIT;
    if (state->list_code) return state->list_code;
    unsigned most = sockets();
    if (handles)
        for (unsigned i = 0; i < *count && i < most; i++) handles[i] = (void *)(uintptr_t)(i + 1);
    *count = most;
    return SUCCESS;
}

int amdsmi_get_processor_handles(void *socket, uint32_t *count, void **handles) {
    if (users <= 0) return NOT_INIT;
    unsigned found = 0;
    for (unsigned i = 0; i < state->gpu_count; i++) {
        if (state->gpus[i].socket + 1 != (uintptr_t)socket) continue;
        if (handles && found < *count) handles[found] = (void *)(uintptr_t)(i + 1);
        found++;
    }
    *count = found;
    return SUCCESS;
}

static int begin(void *handle, int function, gpu_t **gpu) {
    if (users <= 0) return NOT_INIT;
    uintptr_t number = (uintptr_t)handle;
    if (number < 1 || number > state->gpu_count) return INVAL;
    *gpu = &state->gpus[number - 1];
    (*gpu)->calls[function]++;
    return (*gpu)->codes[function];
}

#define BEGIN(function)                          \
    gpu_t *gpu;                                  \
    int code = begin(handle, function, &gpu);    \
    if (code) return code

int amdsmi_get_gpu_device_bdf(void *handle, uint64_t *bdf) {
    BEGIN(BDF);
    *bdf = gpu->bdf;
    return SUCCESS;
}

typedef struct __attribute__((packed)) {
    char market_name[256];
    uint32_t vendor_id;
    char vendor_name[256];
    uint32_t subvendor_id;
    uint64_t device_id;
    uint32_t rev_id;
    char asic_serial[256];
    uint32_t oam_id, num_of_compute_units, padding;
    uint64_t target_graphics_version;
    uint32_t subsystem_id, reserved[21];
} asic_t;

int amdsmi_get_gpu_asic_info(void *handle, asic_t *info) {
    BEGIN(ASIC);
    memset(info, 0, sizeof *info);
    strcpy(info->market_name, gpu->name);
    strcpy(info->vendor_name, "Advanced Micro Devices Inc. [AMD/ATI]");
    strcpy(info->asic_serial, gpu->serial);
    info->vendor_id = 0x1002;
    info->target_graphics_version = 0x942;
    return SUCCESS;
}

typedef struct { uint64_t kfd; uint32_t node, partition, reserved[12]; } kfd_t;

int amdsmi_get_gpu_kfd_info(void *handle, kfd_t *info) {
    BEGIN(KFD);
    info->partition = gpu->partition;
    return SUCCESS;
}

typedef struct { char version[256], date[256], name[256]; } driver_t;

int amdsmi_get_gpu_driver_info(void *handle, driver_t *info) {
    BEGIN(DRIVER);
    memset(info, 0, sizeof *info);
    strcpy(info->version, state->driver);
    strcpy(info->name, "amdgpu");
    return SUCCESS;
}

int amdsmi_get_energy_count(void *handle, uint64_t *count, float *resolution, uint64_t *timestamp) {
    BEGIN(ENERGY);
    *count = gpu->energy;
    *resolution = gpu->resolution;
    *timestamp = 0;
    return SUCCESS;
}

typedef struct {
    uint64_t socket_power;
    uint32_t current_socket_power, average_socket_power;
    uint64_t gfx_voltage, soc_voltage, mem_voltage;
    uint32_t power_limit, padding;
    uint64_t reserved[18];
} power_t;

int amdsmi_get_power_info(void *handle, power_t *info) {
    BEGIN(POWER);
    memset(info, 0, sizeof *info);
    info->current_socket_power = gpu->current_w;
    info->average_socket_power = gpu->average_w;
    info->socket_power = gpu->current_w;
    return SUCCESS;
}

typedef struct {
    uint64_t power_cap, default_power_cap, dpm_cap, min_power_cap, max_power_cap, reserved[3];
} cap_t;

int amdsmi_get_power_cap_info(void *handle, uint32_t sensor, cap_t *info) {
    (void)sensor;
    BEGIN(CAP);
    memset(info, 0, sizeof *info);
    info->power_cap = info->default_power_cap = info->max_power_cap = gpu->cap_uw;
    return SUCCESS;
}

int amdsmi_get_gpu_memory_total(void *handle, uint32_t kind, uint64_t *bytes) {
    BEGIN(MEMORY_TOTAL);
    *bytes = kind == 0 ? gpu->memory_total : 0;
    return SUCCESS;
}

int amdsmi_get_gpu_memory_usage(void *handle, uint32_t kind, uint64_t *bytes) {
    BEGIN(MEMORY_USED);
    *bytes = kind == 0 ? gpu->memory_used : 0;
    return SUCCESS;
}

typedef struct { uint32_t gfx, umc, mm, reserved[13]; } activity_t;

int amdsmi_get_gpu_activity(void *handle, activity_t *info) {
    BEGIN(ACTIVITY);
    info->gfx = gpu->busy_percent;
    info->umc = info->mm = 0xffff;
    return SUCCESS;
}
