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
#define MAX_INSTANCES 7
#define TEXT 96

enum { SUCCESS, UNINITIALIZED, INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 6, INSUFFICIENT_SIZE, LIBRARY_NOT_FOUND = 12, GPU_IS_LOST = 15 };

/* Which call a return code or a call count belongs to. */
enum {
    HANDLE, GET_UUID, GET_NAME, ENERGY, POWER, POWER_LIMIT, MEMORY, UTILIZATION, MIG_PARENT, FIELDS, SAMPLES,
    CLOCK, REASONS, TEMPERATURE, GPM, ARCHITECTURE, PERSISTENCE, VIRTUALIZATION, MIG_MODE, MIG_GPM, MIG_SIZE,
    MIG_LIST, FUNCTIONS
};

/* The GPM metrics that are known here: their numbers in NVML, in the order of gpu_t.gpm. */
static const unsigned GPM_METRICS[] = {1, 2, 3, 5, 10, 20, 21, 60, 61};
#define GPM_COUNT (sizeof GPM_METRICS / sizeof *GPM_METRICS)

/* Fields of nvmlDeviceGetFieldValues, and the scopes of the two of power. */
enum { FI_ENERGY = 83, FI_POWER_AVERAGE = 185, FI_POWER_INSTANT = 186 };
enum { SCOPE_GPU, SCOPE_MODULE, SCOPE_MEMORY };

/* How often a sample of power is put into the driver's own buffer, and how many it holds. */
#define SAMPLE_TICK_NS 20000000ull
#define SAMPLE_DEPTH 100

/* A MIG device: a compute instance in a GPU instance, which has the performance counters. */
typedef struct {
    char uuid[TEXT];              /* empty: there is none in this place */
    double gpm[GPM_COUNT];        /* of its GPU instance */
    uint64_t memory_mib;
    uint32_t gpu_instance, compute_instance, slices, compute_slices;
    uint32_t serial;              /* 1..255, another for each device that was ever in this place */
    int32_t gpm_code;             /* what nvmlGpmMigSampleGet answers for its GPU instance */
} instance_t;

typedef struct {
    char uuid[TEXT];
    char name[TEXT];
    instance_t instances[MAX_INSTANCES];
    uint64_t base_uj;             /* counter at base_ns, microjoules */
    uint64_t base_ns;             /* CLOCK_MONOTONIC at which power_mw began to hold */
    uint64_t origin_ns;           /* ticks of the counter lie at origin_ns + k * tick_ns */
    uint64_t tick_ns;
    uint64_t held_mj;             /* shown before the first tick after base_ns, and while not live */
    uint64_t memory_total, memory_used;
    uint64_t wave_period_ns;      /* beside drawn_mw it draws wave_mw for the first wave_high_ns of each */
    uint64_t wave_high_ns;        /* period since base_ns; 0: no wave */
    uint64_t power_tick_ns;       /* refresh and window of nvmlDeviceGetPowerUsage; window 0: it tells power_mw */
    uint64_t power_window_ns;
    uint64_t instant_window_ns;   /* of the field POWER_INSTANT, refreshed with the former; 0: power_mw */
    uint64_t reasons;             /* what holds the clocks back */
    double gpm[GPM_COUNT];
    uint32_t wave_mw;
    uint32_t ramp_mw_per_s;       /* what is drawn grows by this much each second since base_ns */
    uint32_t power_mw;            /* what nvmlDeviceGetPowerUsage tells */
    uint32_t drawn_mw;            /* what the counter integrates */
    uint32_t module_mw, module_memory_mw; /* power of the other scopes; 0: not supported */
    uint32_t sm_mhz, memory_mhz, celsius;
    uint32_t architecture, persistence, virtualization, mig_mode, gpm_supported;
    uint32_t power_limit_mw;
    uint32_t utilization_gpu, utilization_memory;
    uint32_t slices;              /* how many MIG instances could be on it, 0 before Ampere */
    uint32_t live;                /* 1: the counter runs by the clock; 0: it shows held_mj */
    int32_t codes[FUNCTIONS];     /* nvmlReturn_t of each call, 0 for success */
    uint32_t generation;          /* raised: handles given out before are dead */
    uint64_t calls[FUNCTIONS];    /* written by this library */
} gpu_t;

typedef struct {
    uint32_t magic, gpu_count;
    uint64_t sequence;            /* odd while the test writes */
    uint64_t clock_ns;            /* the time, if the test tells it; else CLOCK_MONOTONIC */
    uint64_t call_ns;             /* how far each call moves that time */
    uint64_t loads;               /* raised: whoever called nvmlInit before has to call it again */
    int32_t init_code, count_code;
    uint32_t confidential, confidential_code;
    uint64_t inits, shutdowns;    /* written by this library */
    int64_t gpm_samples;          /* allocated and not freed; written by this library */
    char driver[TEXT];
    gpu_t gpus[MAX_GPUS];
} state_t;

static state_t *state;
static char mapped_path[4096];
static int users;
static uint64_t loaded; /* state->loads at the last nvmlInit */

static int map_state(void) {
    const char *path = getenv("FAKE_NVML_STATE");
    if (!path)
        path = getenv("NVIDIA_FAKE_NVML_STATE"); /* for processes that inherit what is NVIDIA's only */
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

static int closed(void) { return users <= 0 || loaded != state->loads; }

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
 * A handle is the GPU's place in the table, counted from 1, then a MIG instance's serial number and its place
 * on the GPU, counted from 1, and the GPU's generation. It is never a pointer that could dangle.
 */
static void *make_handle(unsigned index) {
    return (void *)((uintptr_t)state->gpus[index].generation << 24 | (index + 1));
}

static void *make_instance(void *handle, const gpu_t *gpu, unsigned place) {
    return (void *)((uintptr_t)handle | (uintptr_t)gpu->instances[place].serial << 8 | (uintptr_t)(place + 1) << 16);
}

static unsigned place_of(void *handle) { return (uintptr_t)handle >> 16 & 0xff; }
static void *whole_of(void *handle) { return (void *)((uintptr_t)handle & ~(uintptr_t)0xffff00); }

static int begin(void *handle, int function, gpu_t *copy) {
    uintptr_t number = (uintptr_t)handle & 0xff;
    if (closed()) return UNINITIALIZED;
    if (place_of(handle)) return NOT_SUPPORTED;
    if (state->clock_ns) __atomic_fetch_add(&state->clock_ns, state->call_ns, __ATOMIC_RELAXED);
    if (number < 1 || number > state->gpu_count) return INVALID_ARGUMENT;
    gpu_t *gpu = &state->gpus[number - 1];
    __atomic_fetch_add(&gpu->calls[function], 1, __ATOMIC_RELAXED);
    snapshot(gpu, copy);
    return (uintptr_t)handle >> 24 == copy->generation ? copy->codes[function] : GPU_IS_LOST;
}

/* The instance that a handle is of; one that was destroyed is not found. */
static int begin_instance(void *handle, int function, instance_t *copy) {
    gpu_t gpu;
    unsigned place = place_of(handle);
    int code = place ? begin(whole_of(handle), function, &gpu) : INVALID_ARGUMENT;
    if (code) return code;
    *copy = gpu.instances[place - 1];
    return *copy->uuid && copy->serial == ((uintptr_t)handle >> 8 & 0xff) ? SUCCESS : NOT_FOUND;
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
    loaded = state->loads;
    return SUCCESS;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    if (users <= 0) return UNINITIALIZED;
    int code = closed() ? UNINITIALIZED : SUCCESS;
    users--;
    __atomic_fetch_add(&state->shutdowns, 1, __ATOMIC_RELAXED);
    return code;
}

const char *nvmlErrorString(int code) { (void)code; return "an error of the stand-in library"; }

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    return closed() ? UNINITIALIZED : put_text(state->driver, text, length);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (closed()) return UNINITIALIZED;
    *count = state->gpu_count;
    return state->count_code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    gpu_t gpu;
    if (closed() || index >= state->gpu_count) return closed() ? UNINITIALIZED : INVALID_ARGUMENT;
    *handle = make_handle(index);
    return begin(*handle, HANDLE, &gpu);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    if (closed()) return UNINITIALIZED;
    for (unsigned i = 0; i < state->gpu_count; i++) {
        if (!strcmp(uuid, state->gpus[i].uuid)) return nvmlDeviceGetHandleByIndex_v2(i, handle);
        for (unsigned place = 0; *uuid && place < MAX_INSTANCES; place++)
            if (!strcmp(uuid, state->gpus[i].instances[place].uuid)) {
                *handle = make_instance(make_handle(i), &state->gpus[i], place);
                return SUCCESS;
            }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *instance, void **parent) {
    instance_t found;
    *parent = whole_of(instance);
    return begin_instance(instance, MIG_PARENT, &found);
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned length) {
    gpu_t gpu;
    instance_t instance;
    int code = place_of(handle) ? begin_instance(handle, GET_UUID, &instance) : begin(handle, GET_UUID, &gpu);
    return code ? code : put_text(place_of(handle) ? instance.uuid : gpu.uuid, text, length);
}

int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    gpu_t gpu;
    int code = begin(handle, GET_NAME, &gpu);
    return code ? code : put_text(gpu.name, text, length);
}

static uint64_t clock_ns(void) {
    struct timespec now;
    if (state->clock_ns) return state->clock_ns;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

/* Picojoules drawn from base_ns to then_ns. */
static unsigned __int128 drawn_pj(const gpu_t *gpu, uint64_t then_ns) {
    if (then_ns <= gpu->base_ns) return 0;
    uint64_t since_ns = then_ns - gpu->base_ns;
    unsigned __int128 picojoules = (unsigned __int128)gpu->drawn_mw * since_ns;
    picojoules += (unsigned __int128)gpu->ramp_mw_per_s * since_ns * since_ns / 2000000000ull;
    if (gpu->wave_period_ns) {
        uint64_t rest_ns = since_ns % gpu->wave_period_ns;
        if (rest_ns > gpu->wave_high_ns) rest_ns = gpu->wave_high_ns;
        uint64_t high_ns = since_ns / gpu->wave_period_ns * gpu->wave_high_ns + rest_ns;
        picojoules += (unsigned __int128)gpu->wave_mw * high_ns;
    }
    return picojoules;
}

/* Mean power of the window before the last refresh, as much of it as the state tells of. */
static unsigned mean_mw(const gpu_t *gpu, uint64_t now_ns, uint64_t tick_ns, uint64_t window_ns) {
    uint64_t seen_ns = now_ns, from_ns;
    if (!window_ns) return gpu->power_mw;
    if (tick_ns && now_ns > gpu->origin_ns) seen_ns -= (now_ns - gpu->origin_ns) % tick_ns;
    from_ns = seen_ns > gpu->base_ns + window_ns ? seen_ns - window_ns : gpu->base_ns;
    if (from_ns >= seen_ns) return gpu->power_mw;
    return (unsigned)((drawn_pj(gpu, seen_ns) - drawn_pj(gpu, from_ns)) / (seen_ns - from_ns));
}

static uint64_t counter_mj(const gpu_t *gpu, uint64_t now_ns) {
    if (!gpu->live || now_ns < gpu->origin_ns) return gpu->held_mj;
    uint64_t seen_ns = now_ns - (now_ns - gpu->origin_ns) % gpu->tick_ns;
    if (seen_ns < gpu->base_ns) return gpu->held_mj;
    return (gpu->base_uj + (uint64_t)(drawn_pj(gpu, seen_ns) / 1000000)) / 1000;
}

#ifndef WITHOUT_ENERGY
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy_mj) {
    gpu_t gpu;
    /* Before the state is read: a counter frozen meanwhile is then never outrun. */
    uint64_t now_ns = users > 0 ? clock_ns() : 0;
    int code = begin(handle, ENERGY, &gpu);
    *energy_mj = code ? 0 : counter_mj(&gpu, now_ns);
    return code;
}
#endif

int nvmlDeviceGetPowerUsage(void *handle, unsigned *power_mw) {
    gpu_t gpu;
    int code = begin(handle, POWER, &gpu);
    *power_mw = code ? 0 : mean_mw(&gpu, clock_ns(), gpu.power_tick_ns, gpu.power_window_ns);
    return code;
}

typedef struct {
    uint32_t field, scope;
    int64_t timestamp_us, latency_us;
    int32_t type, code;
    union { double real; uint32_t number; uint64_t large; } value;
} field_t;

static void tell_field(const gpu_t *gpu, field_t *field) {
    uint64_t now_ns = clock_ns();
    int is_power = field->field == FI_POWER_AVERAGE || field->field == FI_POWER_INSTANT;
    unsigned other_mw = field->scope == SCOPE_MODULE ? gpu->module_mw : gpu->module_memory_mw;
    field->timestamp_us = now_ns / 1000;
    field->code = SUCCESS;
    field->value.large = 0;
    if (field->field == FI_ENERGY && field->scope == SCOPE_GPU) {
        field->type = 3;
        field->value.large = counter_mj(gpu, now_ns);
    } else if (is_power && (field->scope == SCOPE_GPU || other_mw)) {
        uint64_t window_ns = field->field == FI_POWER_INSTANT ? gpu->instant_window_ns : gpu->power_window_ns;
        field->type = 1;
        field->value.number = field->scope ? other_mw : mean_mw(gpu, now_ns, gpu->power_tick_ns, window_ns);
    } else {
        field->code = NOT_SUPPORTED;
    }
}

int nvmlDeviceGetFieldValues(void *handle, int count, field_t *fields) {
    gpu_t gpu;
    int code = begin(handle, FIELDS, &gpu);
    for (int i = 0; !code && i < count; i++) tell_field(&gpu, &fields[i]);
    return code;
}

typedef struct { unsigned long long timestamp_us; union { double real; uint32_t number; uint64_t large; } value; } sample_t;

/* The first call has no room and asks how many there are. */
int nvmlDeviceGetSamples(void *handle, int kind, unsigned long long after_us, int *type, unsigned *count, sample_t *samples) {
    gpu_t gpu;
    int code = begin(handle, SAMPLES, &gpu);
    uint64_t last = clock_ns() / SAMPLE_TICK_NS, first = last > SAMPLE_DEPTH ? last - SAMPLE_DEPTH : 0;
    if (code) return code;
    if (kind != 0) return NOT_SUPPORTED;
    while ((first + 1) * SAMPLE_TICK_NS / 1000 <= after_us && first < last) first++;
    *type = 1;
    if (samples && *count < last - first) return INSUFFICIENT_SIZE;
    *count = last - first;
    if (!*count) return NOT_FOUND;
    for (uint64_t k = first; samples && k < last; k++) {
        samples[k - first].timestamp_us = (k + 1) * SAMPLE_TICK_NS / 1000;
        samples[k - first].value.large = 0;
        samples[k - first].value.number = mean_mw(&gpu, (k + 1) * SAMPLE_TICK_NS, 0, SAMPLE_TICK_NS);
    }
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *mhz) {
    gpu_t gpu;
    int code = begin(handle, CLOCK, &gpu);
    *mhz = kind == 2 ? gpu.memory_mhz : gpu.sm_mhz;
    return code;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    gpu_t gpu;
    int code = begin(handle, REASONS, &gpu);
    *reasons = gpu.reasons;
    return code;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *reasons) {
    return nvmlDeviceGetCurrentClocksEventReasons(handle, reasons);
}

#define TELL(name, function, member, type)        \
    int name(void *handle, type *value) {         \
        gpu_t gpu;                                \
        int code = begin(handle, function, &gpu); \
        *value = (type)gpu.member;                \
        return code;                              \
    }
TELL(nvmlDeviceGetArchitecture, ARCHITECTURE, architecture, unsigned)
TELL(nvmlDeviceGetPersistenceMode, PERSISTENCE, persistence, int)
TELL(nvmlDeviceGetVirtualizationMode, VIRTUALIZATION, virtualization, int)

int nvmlDeviceGetTemperature(void *handle, int where, unsigned *celsius) {
    gpu_t gpu;
    int code = begin(handle, TEMPERATURE, &gpu);
    (void)where;
    *celsius = gpu.celsius;
    return code;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    gpu_t gpu;
    int code = begin(handle, MIG_MODE, &gpu);
    *current = *pending = gpu.mig_mode;
    return code;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    gpu_t gpu;
    int code = begin(handle, MIG_MODE, &gpu);
    *count = gpu.slices;
    return code;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance) {
    gpu_t gpu;
    int code = begin(handle, MIG_MODE, &gpu);
    if (!code && (index >= MAX_INSTANCES || !*gpu.instances[index].uuid)) return NOT_FOUND;
    if (!code) *instance = make_instance(handle, &gpu, index);
    return code;
}

/* Profiles are numbered by their slices, from 0; the driver lists GPU instances to the privileged only. */
typedef struct { unsigned version, id, p2p, slices, instances; } profile_t;

int nvmlDeviceGetGpuInstanceProfileInfoV(void *handle, unsigned profile, profile_t *told) {
    gpu_t gpu;
    int code = begin(handle, MIG_MODE, &gpu);
    if (code || profile >= gpu.slices) return code ? code : NOT_SUPPORTED;
    told->id = profile;
    told->slices = profile + 1;
    told->instances = gpu.slices / (profile + 1);
    return SUCCESS;
}

int nvmlDeviceGetGpuInstances(void *handle, unsigned profile, void **instances, unsigned *count) {
    gpu_t gpu;
    int code = begin(handle, MIG_LIST, &gpu);
    *count = 0;
    for (unsigned place = 0; !code && place < MAX_INSTANCES; place++)
        if (*gpu.instances[place].uuid && gpu.instances[place].slices == profile + 1)
            instances[(*count)++] = make_instance(handle, &gpu, place);
    return code;
}

typedef struct {
    unsigned multiprocessors, shared_engines[5], slices, compute_slices;
    unsigned long long memory_mib;
} attributes_t;

int nvmlDeviceGetAttributes_v2(void *handle, attributes_t *attributes) {
    instance_t instance;
    int code = begin_instance(handle, MIG_SIZE, &instance);
    memset(attributes, 0, sizeof *attributes);
    if (code) return code;
    attributes->slices = instance.slices;
    attributes->compute_slices = instance.compute_slices;
    attributes->memory_mib = instance.memory_mib;
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *number) {
    instance_t instance;
    int code = begin_instance(handle, MIG_SIZE, &instance);
    *number = code ? 0 : instance.gpu_instance;
    return code;
}

int nvmlDeviceGetComputeInstanceId(void *handle, unsigned *number) {
    instance_t instance;
    int code = begin_instance(handle, MIG_SIZE, &instance);
    *number = code ? 0 : instance.compute_instance;
    return code;
}

int nvmlSystemGetConfComputeState(unsigned told[3]) {
    if (closed()) return UNINITIALIZED;
    told[0] = told[2] = 0;
    told[1] = state->confidential;
    return state->confidential_code;
}

/*
 * GPM: a sample is when it was taken and of which GPU or GPU instance, by the serial number of what was in its place;
 * a metric is what the state says at the later one.
 */
typedef struct { uint64_t taken_ns; void *handle; } gpm_sample_t;
typedef struct { unsigned number; int code; double value; const char *info[3]; } gpm_metric_t;
typedef struct { unsigned version, count; gpm_sample_t *first, *second; gpm_metric_t metrics[]; } gpm_query_t;

int nvmlGpmQueryDeviceSupport(void *handle, unsigned support[2]) {
    gpu_t gpu;
    int code = begin(handle, GPM, &gpu);
    support[1] = gpu.gpm_supported;
    return code;
}

int nvmlGpmSampleAlloc(gpm_sample_t **sample) {
    *sample = calloc(1, sizeof **sample);
    if (*sample) __atomic_fetch_add(&state->gpm_samples, 1, __ATOMIC_RELAXED);
    return *sample ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlGpmSampleFree(gpm_sample_t *sample) {
    free(sample);
    __atomic_fetch_sub(&state->gpm_samples, 1, __ATOMIC_RELAXED);
    return closed() ? UNINITIALIZED : SUCCESS;
}

int nvmlGpmSampleGet(void *handle, gpm_sample_t *sample) {
    gpu_t gpu;
    int code = begin(handle, GPM, &gpu);
    if (!code && !gpu.gpm_supported) return NOT_SUPPORTED;
    sample->taken_ns = clock_ns();
    sample->handle = handle;
    return code;
}

int nvmlGpmMigSampleGet(void *handle, unsigned gpu_instance, gpm_sample_t *sample) {
    gpu_t gpu;
    int code = begin(handle, MIG_GPM, &gpu);
    if (!code && !gpu.gpm_supported) return NOT_SUPPORTED;
    for (unsigned place = 0; !code && place < MAX_INSTANCES; place++)
        if (*gpu.instances[place].uuid && gpu.instances[place].gpu_instance == gpu_instance) {
            sample->taken_ns = clock_ns();
            sample->handle = make_instance(handle, &gpu, place);
            return gpu.instances[place].gpm_code;
        }
    return code ? code : NOT_FOUND;
}

int nvmlGpmMetricsGet(gpm_query_t *query) {
    gpu_t gpu;
    if (query->version != 1 || !query->second->handle || query->first->handle != query->second->handle)
        return INVALID_ARGUMENT;
    unsigned place = place_of(query->second->handle);
    int code = begin(whole_of(query->second->handle), place ? MIG_GPM : GPM, &gpu);
    const double *gpm = place ? gpu.instances[place - 1].gpm : gpu.gpm;
    for (unsigned i = 0; !code && i < query->count; i++) {
        gpm_metric_t *metric = &query->metrics[i];
        metric->code = NOT_SUPPORTED;
        for (unsigned k = 0; k < GPM_COUNT; k++)
            if (GPM_METRICS[k] == metric->number && gpm[k] >= 0) {
                /* Samples too near to each other tell nothing. */
                metric->code = query->second->taken_ns >= query->first->taken_ns + 100000000 ? SUCCESS : INVALID_ARGUMENT;
                metric->value = gpm[k];
            }
    }
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
