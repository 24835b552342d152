/* tests/cuda_host/runtime.cpp - the CUDA runtime on the host, as asynchronous as the real one may be: what is put on a
 * stream runs when somebody waits for it. Device memory cannot be touched by host code: it is only mapped readable and
 * writable while a stream's work runs. Copies from and to pageable memory do what CUDA promises for them, nothing more.
 */
#include "cuda_runtime.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "stand_in.h"

typedef std::function<void()> work;
struct CUstream_st {
    std::deque<work> queue;
    size_t put = 0, begun = 0; /* works so far */
    CUgraph_st *capture = nullptr;
    bool broken = false; /* the capture */
};
struct CUgraph_st {
    std::vector<work> nodes;
};
struct CUgraphExec_st {
    std::vector<work> nodes;
};
struct CUevent_st {
    cudaStream_t stream = nullptr;
    size_t after = 0; /* so many works of it */
};

namespace {
enum : size_t { PAGE = 4096, ALIGN = 256, REGION = (size_t)16 << 30 };

struct machine {
    std::recursive_mutex lock;
    unsigned char *base = nullptr, *top = nullptr; /* device memory: addresses are not used twice */
    int open = 0;                                  /* how many streams' work runs right now */
    std::map<void *, size_t> device, pinned;
    size_t objects = 0, works = 0, graphs = 0;
    cudaError_t last = cudaSuccess, late = cudaSuccess, sticky = cudaSuccess;
    std::string fail_name;
    int fail_after = 0;
    cudaError_t fail_with = cudaSuccess;
    int devices = 2;

    machine() {
        const char *env = getenv("CUDA_HOST_FAIL");
        const char *colon = env ? strchr(env, ':') : nullptr;
        if (colon) {
            fail_name.assign(env, colon);
            fail_after = atoi(colon + 1);
            fail_with = fail_name == "cudaMalloc" || fail_name == "cudaMallocHost" ? cudaErrorMemoryAllocation
                                                                                   : cudaErrorInvalidValue;
        }
        if (getenv("CUDA_HOST_DEVICES")) devices = atoi(getenv("CUDA_HOST_DEVICES"));
    }
};

machine &m() {
    static machine *one = new machine; /* outlives every test's statics */
    return *one;
}
typedef std::lock_guard<std::recursive_mutex> guard;

cudaError_t told(cudaError_t e) {
    if (e) m().last = e;
    return e;
}

/* Device memory for as long as work runs. */
struct access {
    access() {
        if (m().open++ == 0 && m().top > m().base) mprotect(m().base, m().top - m().base, PROT_READ | PROT_WRITE);
    }
    ~access() {
        if (--m().open == 0 && m().top > m().base) mprotect(m().base, m().top - m().base, PROT_NONE);
    }
};

void put(cudaStream_t s, work w) {
    s->queue.push_back(std::move(w));
    s->put++;
}

/* The first `upto` works of a stream, as counted since it was made. */
void flush(cudaStream_t s, size_t upto = SIZE_MAX) {
    if (s->queue.empty()) return;
    access a;
    while (!s->queue.empty() && s->begun < upto) {
        work w = std::move(s->queue.front());
        s->queue.pop_front();
        s->begun++;
        if (m().sticky) continue;
        w();
    }
}

bool capturing_breaks(cudaStream_t s) {
    if (!s || !s->capture) return false;
    s->broken = true;
    return true;
}

std::vector<cudaStream_t> &streams() {
    static std::vector<cudaStream_t> *all = new std::vector<cudaStream_t>;
    return *all;
}

bool in_range(const std::map<void *, size_t> &all, const void *p, size_t bytes) {
    auto i = all.upper_bound(const_cast<void *>(p));
    if (i == all.begin()) return false;
    --i;
    return (const char *)p + bytes <= (const char *)i->first + i->second;
}
} // namespace

namespace cuda_host {
bool fails(const char *function, cudaError_t *with) {
    if (m().fail_name != function || --m().fail_after != 0) return false;
    *with = m().fail_with;
    return true;
}

void submit(cudaStream_t s, std::function<void()> w) {
    guard g(m().lock);
    work counted = [w] {
        cudaError_t e;
        m().works++;
        if (fails("launch", &e)) {
            m().sticky = cudaErrorLaunchFailure;
            return;
        }
        w();
    };
    if (!s) {
        access a;
        counted();
    } else if (s->capture) {
        s->capture->nodes.push_back(counted);
    } else {
        put(s, counted);
    }
}
void enqueue(cudaStream_t s, std::function<void()> w) { submit(s, w); }
/* The device would say so at the launch; a queued one is found out here, and its sync tells. */
void launch_refused() { m().last = m().late = cudaErrorInvalidConfiguration; }
} // namespace cuda_host

#define MAY_FAIL(name)                                                                                                 \
    guard g(m().lock);                                                                                                 \
    cudaError_t forced;                                                                                                \
    if (m().sticky) return told(m().sticky);                                                                           \
    if (cuda_host::fails(name, &forced)) return told(forced)

extern "C" {
void cuda_host_fail(const char *function, int n, cudaError_t with) {
    m().fail_name = function ? function : "";
    m().fail_after = n;
    m().fail_with = with;
    if (!function) m().sticky = m().last = cudaSuccess;
}
size_t cuda_host_live(void) { return m().objects; }
size_t cuda_host_works(void) { return m().works; }
size_t cuda_host_graphs(void) { return m().graphs; }

cudaError_t cudaPeekAtLastError(void) { return m().last; }
cudaError_t cudaGetLastError(void) {
    const cudaError_t e = m().last;
    m().last = m().sticky;
    return e;
}
const char *cudaGetErrorString(cudaError_t e) {
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int *count) {
    MAY_FAIL("cudaGetDeviceCount");
    *count = m().devices;
    return m().devices ? cudaSuccess : told(cudaErrorNoDevice);
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    MAY_FAIL("cudaGetDeviceProperties");
    if (device < 0 || device >= m().devices) return told(cudaErrorInvalidDevice);
    *p = {};
    snprintf(p->name, sizeof p->name, "host threads in place of a GPU");
    p->major = 9;
    p->multiProcessorCount = 132;
    p->totalGlobalMem = REGION;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    MAY_FAIL("cudaSetDevice");
    return device >= 0 && device < m().devices ? cudaSuccess : told(cudaErrorInvalidDevice);
}

cudaError_t cudaMalloc(void **p, size_t bytes) {
    MAY_FAIL("cudaMalloc");
    *p = nullptr;
    for (cudaStream_t s : streams())
        if (capturing_breaks(s)) return told(cudaErrorStreamCaptureUnsupported);
    if (!m().base) {
        void *all = mmap(nullptr, REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED) return told(cudaErrorMemoryAllocation);
        m().base = m().top = (unsigned char *)all;
    }
    if (bytes == 0) return cudaSuccess;
    const size_t room = REGION - (size_t)(m().top - m().base);
    if (bytes > room || (bytes + PAGE - 1) / PAGE * PAGE > room) return told(cudaErrorMemoryAllocation);
    const size_t pages = (bytes + PAGE - 1) / PAGE * PAGE;
    *p = m().top + pages - (bytes + ALIGN - 1) / ALIGN * ALIGN; /* ends with its pages */
    {
        m().top += pages;
        access a;
        memset(*p, 0x7f, bytes); /* large numbers: nobody may count on zeros */
    }
    m().device[*p] = bytes;
    m().objects++;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p) {
    MAY_FAIL("cudaFree");
    if (!p) return cudaSuccess;
    if (!m().device.count(p)) return told(cudaErrorInvalidValue);
    for (cudaStream_t s : streams()) flush(s);
    unsigned char *first = (unsigned char *)((uintptr_t)p / PAGE * PAGE);
    madvise(first, ((unsigned char *)p + m().device[p] - first + PAGE - 1) / PAGE * PAGE, MADV_DONTNEED);
    m().device.erase(p);
    m().objects--;
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **p, size_t bytes) {
    MAY_FAIL("cudaMallocHost");
    *p = malloc(bytes ? bytes : 1);
    if (!*p) return told(cudaErrorMemoryAllocation);
    m().pinned[*p] = bytes;
    m().objects++;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void *p) {
    guard g(m().lock);
    if (!p) return cudaSuccess;
    if (!m().pinned.erase(p)) return told(cudaErrorInvalidValue);
    free(p);
    m().objects--;
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t s) {
    MAY_FAIL("cudaMemcpyAsync");
    const void *host = kind == cudaMemcpyHostToDevice ? src : dst;
    const void *device = kind == cudaMemcpyHostToDevice ? dst : src;
    if (!in_range(m().device, device, bytes)) return told(cudaErrorInvalidValue);
    if (in_range(m().pinned, host, bytes)) {
        const work copy = [=] { memcpy(dst, src, bytes); };
        if (s->capture)
            s->capture->nodes.push_back(copy);
        else
            put(s, copy);
        return cudaSuccess;
    }
    if (capturing_breaks(s)) return told(cudaErrorStreamCaptureUnsupported);
    flush(s); /* pageable memory: the call returns when it is copied */
    access a;
    memcpy(dst, src, bytes);
    return m().sticky ? told(m().sticky) : cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s) {
    MAY_FAIL("cudaMemsetAsync");
    if (!in_range(m().device, p, bytes)) return told(cudaErrorInvalidValue);
    const work fill = [=] { memset(p, value, bytes); };
    if (s->capture)
        s->capture->nodes.push_back(fill);
    else
        put(s, fill);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    MAY_FAIL("cudaStreamCreateWithFlags");
    *s = new CUstream_st;
    streams().push_back(*s);
    m().objects++;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    guard g(m().lock);
    flush(s);
    for (size_t i = 0; i < streams().size(); i++)
        if (streams()[i] == s) streams().erase(streams().begin() + (long)i);
    delete s->capture;
    delete s;
    m().objects--;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) {
    MAY_FAIL("cudaStreamSynchronize");
    if (capturing_breaks(s)) return told(cudaErrorStreamCaptureUnsupported);
    flush(s);
    const cudaError_t late = m().late;
    m().late = cudaSuccess;
    return told(m().sticky ? m().sticky : late);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    MAY_FAIL("cudaStreamBeginCapture");
    if (s->capture) return told(cudaErrorInvalidValue);
    s->capture = new CUgraph_st;
    s->broken = false;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
    guard g(m().lock);
    cudaError_t forced;
    const bool fail = cuda_host::fails("cudaStreamEndCapture", &forced);
    *graph = nullptr;
    if (!s->capture) return told(cudaErrorInvalidValue);
    cudaGraph_t made = s->capture;
    s->capture = nullptr;
    if (s->broken || fail) {
        delete made;
        return told(cudaErrorStreamCaptureInvalidated);
    }
    m().objects++;
    *graph = made;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t graph, unsigned long long) {
    MAY_FAIL("cudaGraphInstantiate");
    *e = new CUgraphExec_st{graph->nodes};
    m().objects++;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s) {
    MAY_FAIL("cudaGraphLaunch");
    m().graphs++;
    for (const work &w : e->nodes) put(s, w);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    guard g(m().lock);
    delete graph;
    m().objects--;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {
    guard g(m().lock);
    delete e;
    m().objects--;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    MAY_FAIL("cudaEventCreateWithFlags");
    *e = new CUevent_st;
    m().objects++;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    MAY_FAIL("cudaEventRecord");
    e->stream = s;
    e->after = s->put;
    return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    MAY_FAIL("cudaStreamWaitEvent");
    const cudaStream_t other = e->stream;
    const size_t after = e->after;
    if (!other || other == s) return cudaSuccess;
    put(s, [=] {
        for (cudaStream_t t : streams())
            if (t == other) return flush(other, after);
    });
    return cudaSuccess;
}
/* Not ready at first, as work takes time; what is asked for twice has run. */
cudaError_t cudaEventQuery(cudaEvent_t e) {
    MAY_FAIL("cudaEventQuery");
    if (!e->stream || e->stream->begun >= e->after) return m().sticky ? told(m().sticky) : cudaSuccess;
    flush(e->stream, e->after);
    return m().sticky ? told(m().sticky) : cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    MAY_FAIL("cudaEventSynchronize");
    if (e->stream) flush(e->stream); /* a little more than was recorded: allowed */
    return m().sticky ? told(m().sticky) : cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    guard g(m().lock);
    delete e;
    m().objects--;
    return cudaSuccess;
}
}
