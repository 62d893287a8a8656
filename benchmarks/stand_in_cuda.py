"""Libraries of CUDA in which every call succeeds and nothing is computed.

With them onnxruntime-gpu opens its sessions on a host without a GPU: which node runs where, which
options it takes and what can be captured as a CUDA graph are then told by onnxruntime itself.
Images are not: no kernel runs. Needs gcc, nm and readelf.
"""

import re
import subprocess
from pathlib import Path

# A GPU's memory is the host's; it is an A100 (sm80) of 80 GB. Whatever is created is one object
# whose methods do nothing. The offsets of cudaDeviceProp are those of CUDA 12 and 13.
_PRELUDE = r"""
#include <stdlib.h>
#include <string.h>
static void *methods[512];
static void *object[64] = {methods};
static int nothing() { return 0; }
__attribute__((constructor)) static void fill() {
  for (int i = 0; i < 512; ++i) methods[i] = nothing;
}
static int allocate(void **p, size_t n) {
  *p = aligned_alloc(256, (n + 511) / 256 * 256);
  return 0;
}
"""
_PROPERTIES = r"""(char *p, int device) {
  memset(p, 0, 900); strcpy(p, "stand-in");
  *(size_t *)(p + 288) = 80UL << 30; *(size_t *)(p + 296) = 49152; *(int *)(p + 304) = 65536;
  *(int *)(p + 308) = 32; *(int *)(p + 320) = 1024;
  int sizes[6] = {1024, 1024, 64, 2147483647, 65535, 65535}; memcpy(p + 324, sizes, 24);
  *(int *)(p + 360) = 8; *(int *)(p + 384) = *(int *)(p + 388) = 108;
  return 0; }"""
_BODIES = {
    "cudaGetDeviceCount": "int {}(int *n) {{ *n = 1; return 0; }}",
    "cudaGetDevice": "int {}(int *n) {{ *n = 0; return 0; }}",
    "cudaDriverGetVersion": "int {}(int *n) {{ *n = 13000; return 0; }}",
    "cudaRuntimeGetVersion": "int {}(int *n) {{ *n = 13000; return 0; }}",
    "cudaDeviceGetAttribute": "int {}(int *v, int a, int d)"
    " {{ *v = a == 75 ? 8 : a == 76 ? 0 : a == 16 ? 108 : a == 10 ? 32 : 1024; return 0; }}",
    "cudaMalloc": "int {}(void **p, size_t n) {{ return allocate(p, n); }}",
    "cudaMallocHost": "int {}(void **p, size_t n) {{ return allocate(p, n); }}",
    "cudaHostAlloc": "int {}(void **p, size_t n, int f) {{ return allocate(p, n); }}",
    "cudaFree": "int {}(void *p) {{ free(p); return 0; }}",
    "cudaFreeHost": "int {}(void *p) {{ free(p); return 0; }}",
    "cudaMemcpy": "int {}(void *d, void *s, size_t n, int k) {{ memcpy(d, s, n); return 0; }}",
    "cudaMemcpyAsync": "int {}(void *d, void *s, size_t n, int k, void *stream)"
    " {{ memcpy(d, s, n); return 0; }}",
    "cudaMemset": "int {}(void *d, int v, size_t n) {{ memset(d, v, n); return 0; }}",
    "cudaMemsetAsync": "int {}(void *d, int v, size_t n, void *stream)"
    " {{ memset(d, v, n); return 0; }}",
    "cudaMemGetInfo": "int {}(size_t *a, size_t *b) {{ *a = *b = 80UL << 30; return 0; }}",
    "cudaFuncGetAttributes": "int {}(char *p, void *f) {{ memset(p, 0, 64); return 0; }}",
    "cudnnGetVersion": "size_t {}() {{ return 91000; }}",
    "cudnnGetCudartVersion": "size_t {}() {{ return 13000; }}",
    "__cudaRegisterFatBinary": "void *{}(void *p) {{ return object; }}",
}
_CREATES = re.compile(
    r"cuda(Stream|Event)Create|cublas(Lt)?Create|cudnnCreate|cublasLt\w+Create$|cuda\w+EndCapture"
)

_INFER, _PARSER = ("libnvinfer.", "libtensorrt_rtx."), ("libnvonnxparser", "libtensorrt_onnxparser")
_HOMES = {  # of symbols that do not carry their library's name
    "createNvOnnxParser": _PARSER,
    "getNvOnnxParser": _PARSER,
    "createInfer": _INFER,
    "getInfer": _INFER,
    "getPluginRegistry": _INFER,
    "getBuilderPluginRegistry": _INFER,
    "initLibNvInfer": "libnvinfer_plugin.",
    "cuTensor": "libcuda.",
}


def build(package: Path, folder: Path) -> None:
    """Write what the libraries of a package link with into a folder.

    Args:
        package: an unpacked wheel: onnxruntime-gpu 1.20 or newer, or TensorRT's bindings.
        folder: to be named in LD_LIBRARY_PATH.
    """
    names: dict[str, set[str]] = {}  # of each library
    versioned = set()  # libraries whose symbols carry their name
    for file in sorted(package.rglob("*.so")):
        libraries = _needed(file)
        for library in libraries:
            names.setdefault(library, set())
        for symbol in _output("nm", "-D", "--undefined-only", file).split():
            name, _, library = symbol.replace("@@", "@").partition("@")
            if library in names:
                versioned.add(library)
            else:
                library = _home(name, libraries)
            if library:
                names[library].add(name)
    # onnxruntime's CUDA finds some by their names, once they are needed.
    for cuda in package.rglob("libonnxruntime_providers_cuda.so"):
        for library, prefix in (("libcudnn.so.9", b"cudnn"), ("libcuda.so.1", b"cu")):
            found = re.findall(rb"\0(%s[A-Z]\w+)(?=\0)" % prefix, cuda.read_bytes())
            names.setdefault(library, set()).update(name.decode() for name in found)
    for library, symbols in names.items():
        _compile(folder / library, symbols, versioned=library in versioned)


def _needed(file: Path) -> list[str]:
    return re.findall(r"NEEDED.*\[(lib(?:cu|nv|tensorrt)[\w.]+)\]", _output("readelf", "-d", file))


def _home(name: str, libraries: list[str]) -> str | None:
    """The library of a symbol that carries no name of one."""
    for prefix, stems in _HOMES.items():
        if name.startswith(prefix):
            return next((library for library in libraries if library.startswith(stems)), None)
    return None


def _compile(file: Path, symbols: set[str], *, versioned: bool) -> None:
    source, script = file.with_suffix(".c"), file.with_suffix(".map")
    source.write_text(_PRELUDE + "\n".join(map(_function, sorted(symbols))) + "\n")
    script.write_text(f"{file.name} {{ global: *; }};\n")
    options = [f"-Wl,-soname,{file.name}", f"-Wl,--version-script={script}"][: 1 + versioned]
    _output("gcc", "-w", "-shared", "-fPIC", "-fno-builtin", *options, "-o", file, source)


def _function(name: str) -> str:
    if name.startswith("cudaGetDeviceProperties"):
        return f"int {name}{_PROPERTIES}"
    if name.endswith(("String", "ErrorName", "StatusName")):
        return f'const char *{name}(int status) {{ return "stand-in"; }}'
    if name.endswith(("_INTERNAL", "PluginRegistry")):
        return f"void *{name}() {{ return object; }}"
    if _CREATES.match(name):
        out = "void *x, void **p" if "EndCapture" in name or "Backend" in name else "void **p"
        return f"int {name}({out}) {{ *p = object; return 0; }}"
    return _BODIES.get(name, "int {}() {{ return 0; }}").format(name)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
