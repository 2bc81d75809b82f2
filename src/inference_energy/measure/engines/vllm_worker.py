"""What runs inside vLLM's workers: weights drawn at random, and answers about the GPU.

vLLM imports this module by its name, in every process that holds a part of the model (``worker_extension_cls``), and
that import registers how weights are drawn, and lets a worker end with the process that started it.
"""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

from inference_energy.measure.lifeline import end_with

LOAD_FORMAT = "inference_energy_random"

#: SOURCE: transformers' LlamaConfig: initializer_range
WEIGHTS_SD = 0.02
#: A format's largest value is put at this many standard deviations, about where the largest of a row falls.
_RANGE_SD = 4.0
_LARGEST = {"torch.int8": 127, "torch.float8_e4m3fn": 448}
_LARGEST_INT4 = 7


def register_random_loader() -> None:
    """Teach vLLM a way to load: weights distributed as transformers draws them for a new model, in any format.

    vLLM's own ``dummy`` weights lie within a thousandth of 0, those of norms too, so that products of activations
    vanish in float16, and packed integers stay as the memory was. Multiplying zeros takes less power.
    """
    import torch
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

    class RandomModelLoader(DummyModelLoader):  # type: ignore[misc]
        """Lets vLLM quantise what it quantises while loading, then fills all that was loaded."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            super().load_weights(model, model_config)
            generators: dict[Any, Any] = {}
            with torch.no_grad():
                for module in model.modules():
                    for name, weights in module.named_parameters(recurse=False):
                        device = weights.device
                        if device not in generators:
                            generators[device] = torch.Generator(device).manual_seed(model_config.seed)
                        fill(name, weights.data, module, generators[device])

    register_model_loader(LOAD_FORMAT)(RandomModelLoader)


def fill(name: str, weights: Any, module: Any, generator: Any) -> None:
    """Draw one parameter of a layer.

    Parameters
    ----------
    name : str
        The parameter's name in its layer: what it is for.
    weights : Tensor
        Filled in place.
    module : Module
        The layer.
    generator : Generator
        On the device of `weights`.
    """
    dtype = str(weights.dtype)
    if name in ("weight_scale", "weight_scale_inv"):
        packed = hasattr(module, "weight_packed")
        weights.fill_(_RANGE_SD * WEIGHTS_SD / (_LARGEST_INT4 if packed else _LARGEST[str(module.weight.dtype)]))
    elif name == "weight_packed":
        weights.copy_(_packed(weights, generator))
    elif name == "bias":
        weights.zero_()
    elif name != "weight":  # shapes, and scales of a cache that is not quantised
        return
    elif dtype in _LARGEST:
        drawn = _normal(weights, _LARGEST[dtype], generator)
        weights.copy_(drawn.round_() if dtype == "torch.int8" else drawn)
    elif weights.dim() == 1:  # of a norm
        weights.fill_(1)
    else:
        weights.normal_(0, WEIGHTS_SD, generator=generator)


def _normal(like: Any, largest: int, generator: Any) -> Any:
    """Float32 of the same shape, between minus and plus `largest`."""
    import torch

    drawn = torch.empty(like.shape, dtype=torch.float32, device=like.device)
    return drawn.normal_(0, largest / _RANGE_SD, generator=generator).clamp_(-largest, largest)


def _packed(like: Any, generator: Any) -> Any:
    """Eight weights of 4 bits in each int32: value + 8, the first in the lowest bits."""
    import torch

    packed = torch.zeros_like(like)
    for place in range(8):
        packed |= (_normal(like, _LARGEST_INT4, generator).round_().to(torch.int32) + 8) << (4 * place)
    return packed


class WorkerExtension:
    """Methods that every worker gets, asked for by ``collective_rpc``; their names are apart from vLLM's."""

    vllm_config: Any

    def study_device_uuid(self) -> str | None:
        """UUID of this worker's GPU; None on a CPU."""
        import torch

        if not torch.cuda.is_available():
            return None
        return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"

    def study_memory_peak_bytes(self) -> int | None:
        """Peak of PyTorch's allocator; None on a CPU."""
        import torch

        return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None

    def study_attention_backend(self) -> str | None:
        """Name of the code that computes attention."""
        for layer in self.vllm_config.compilation_config.static_forward_context.values():
            if hasattr(layer, "get_attn_backend"):
                return str(layer.get_attn_backend().get_name())
        return None


def end_with_starter() -> None:
    """Let a worker end with the process that started it, even if that is killed while the workers wait for each other.

    This comes before they look for each other; vLLM watches over workers only once they work.
    """
    starter = multiprocessing.parent_process()
    if starter is not None and starter.pid is not None:
        end_with(starter.pid)


if "vllm" in sys.modules:  # not where a test imports every module there is
    register_random_loader()
    end_with_starter()
