"""How memory that is full is told from other errors, and what nobody holds any longer is given back."""

import errno
import gc
import sys

# What torch and others say in errors of no class of their own.
MEMORY_SIGNS = (
    "DefaultCPUAllocator",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "cublasCreate",  # cuBLAS, which has no room to begin in
    "CUDNN_STATUS_ALLOC_FAILED",
    "out of memory",  # "CUDA", "CUDA error:", "HIP", "MPS backend" and others before it
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN, which has no room for a kernel
    "Cannot allocate memory",  # the kernel's ENOMEM, in whoever's words it comes
    "can't start new thread",  # Python, which has no room for a stack
    "Resource temporarily unavailable",  # autograd, which has none either
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the machine's or a GPU's, was full; told without importing torch."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(sign in str(error) for sign in MEMORY_SIGNS)
    )


def give_back() -> None:
    """Returns to the system, and to the GPU's other users, what nobody holds any longer."""
    gc.collect()
    if "torch" in sys.modules:
        from dbcli.diffusion.training.allocator import hand_back_freed_memory

        # The C library keeps it for this thread alone, where neither the next rung's threads nor the program's end have
        # any use of it.
        hand_back_freed_memory()
