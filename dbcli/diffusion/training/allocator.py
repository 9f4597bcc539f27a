"""What is kept of memory that was freed: by the C library, where it is glibc, and by torch on a GPU."""

import torch

# Of an activation: from here on tensors are too large for the gaps that others leave in a heap.
LARGE = 4 << 20


def keep_freed_memory(activation_bytes: int) -> None:
    """Returns what was freed until now, and settles what the C library keeps from here on.

    A step frees its gradients and activations and takes as much again: returning pages in between and having them
    cleared anew took an eighth of a small model's CPU time, so up to a gigabyte is kept. Where the first layer's
    `activation_bytes` are `LARGE`, tensors are mapped one by one and returned instead: gaps between them took 1.8 GB of
    the 8.0 GB of a LoRA step of Stable Diffusion v1.4 at 512 px. Such steps are so long that clearing pages is no more
    than they differ by.
    """
    if leaves_gaps(activation_bytes):
        _set(mapped_from=LARGE, kept=64 << 20)
    else:
        _set(mapped_from=32 << 20, kept=1 << 30)


def leaves_gaps(activation_bytes: int) -> bool:
    """Whether a step's tensors are mapped one by one, since in a heap they would leave gaps."""
    return activation_bytes >= LARGE


def hand_back_freed_memory() -> None:
    """Returns to the system what was freed and kept, of the GPU and of the C library, and keeps none from now on.

    A limit for the process counts address space, of which a heap with gaps returns none: so tensors are allocated
    outside of it.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    _set(mapped_from=128 << 10, kept=128 << 10)


def _set(*, mapped_from: int, kept: int) -> None:
    """From which size on glibc maps memory and returns it at once, and how much of the rest it keeps."""
    import ctypes

    trim_threshold, mmap_threshold = -1, -3
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        library.mallopt(mmap_threshold, mapped_from)
        library.mallopt(trim_threshold, kept)
    except (OSError, AttributeError, TypeError):
        return  # another C library, another allocator
