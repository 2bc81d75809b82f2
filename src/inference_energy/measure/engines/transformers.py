"""Hugging Face transformers' ``generate`` in one process, on one GPU (or its share of several) or on the CPU."""

from __future__ import annotations

import time
from typing import Any

from inference_energy.config import ModelFacts, Setting
from inference_energy.measure.engines import Generated, OutOfDeviceMemory
from inference_energy.measure.traffic import Traffic, period_batches
from inference_energy.measure.workload import Prompts


def import_everything() -> None:
    """Import all that a run needs, and touch no device: what a forking parent holds."""
    import torch
    import torch.nn.attention
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM  # noqa: F401
    from transformers.generation import utils  # noqa: F401

    if torch.cuda.is_initialized():  # a parent with a context cannot fork processes that use the GPU
        raise RuntimeError("importing the engine initialised CUDA")


class TransformersEngine:
    """One model, one setting, one process.

    Parameters
    ----------
    levels : Setting
        What to run.
    facts : ModelFacts
        The model's shape and pinned revision.
    prompts : Prompts
        Of one pass of this process.
    seed : int
        Of random weights and of sampling.
    device : {"cuda", "cpu"}
        Where to run; the current GPU where there are several.
    process : int
        Number of this process among those that generate; replicas sample and wait each in its own way.
    """

    def __init__(
        self, levels: Setting, facts: ModelFacts, prompts: Prompts, seed: int, device: str, process: int = 0
    ) -> None:
        self._levels, self._facts, self._prompts, self._seed = levels, facts, prompts, seed
        self._device = device
        # All processes of tensor parallelism are one model: they must draw the same tokens and wait together.
        self._stream = 0 if levels.parallelism == "tensor" else process
        self._traffic = Traffic(levels, seed, self._stream)
        self._model: Any = None
        self._batches: list[tuple[Any, Any]] = []
        self._n_generated = self._n_awaited = 0
        # Batches before the first that is awaited, whole passes or periods: traffic is under way.
        self._n_before = levels.n_batches_per_pass if levels.n_prompts else period_batches(levels)

    def load(self) -> None:
        """Build or fetch the model and put prompts beside it."""
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()
        with _out_of_memory_is_a_result():
            if self._device == "cpu":
                # Threads that spin for one another slow down twentyfold when anything else runs.
                torch.set_num_threads(1)
            torch.manual_seed(self._seed)
            torch.set_float32_matmul_precision("high" if self._levels.precision == "tf32" else "highest")
            torch.backends.cuda.enable_cudnn_sdp(self._levels.attention != "sdpa_no_cudnn")
            self._model = self._hub_model() if self._levels.weights == "hub" else self._random_model()
            self._model.eval()
            # `generate` fills what a call leaves open from here, and Llama's default ends at token 2.
            self._model.generation_config = self._generation(self._levels.n_output_tokens)
            ids = torch.from_numpy(self._prompts.token_ids).to(self._device)
            mask = torch.from_numpy(self._prompts.attention_mask).to(self._device)
            size = self._levels.batch_size
            self._batches = list(zip(ids.split(size), mask.split(size), strict=True))
            torch.manual_seed(self._seed + self._stream)
            self._synchronise()
            if self._device == "cuda":  # what is loaded may have been larger than what stays: weights to be quantised
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()

    def _dtype(self) -> Any:
        """Format of what is not quantised: embeddings, norms and the last layer."""
        import torch

        if self._levels.precision in ("float32", "tf32"):
            return torch.float32
        return torch.bfloat16 if self._levels.precision == "bfloat16" else torch.float16

    def _attention(self) -> str:
        return "eager" if self._levels.attention == "eager" else "sdpa"

    def _loading(self) -> dict[str, Any]:
        """Arguments of ``from_pretrained``, as users give them."""
        import torch
        from transformers import BitsAndBytesConfig

        arguments: dict[str, Any] = {"dtype": self._dtype(), "attn_implementation": self._attention()}
        if self._levels.parallelism == "tensor":
            return {**arguments, "tp_plan": "auto"}
        # A number names the current GPU alone: "cuda" would be GPU 0 for some of the loading code.
        arguments["device_map"] = {"": torch.cuda.current_device() if self._device == "cuda" else "cpu"}
        if self._levels.precision == "int8":
            arguments["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
        if self._levels.precision == "int4":
            # SOURCE: QLoRA (Dettmers et al. 2023): 4-bit NormalFloat, arithmetic in half precision
            arguments["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=self._dtype()
            )
        return arguments

    def _random_model(self) -> Any:
        """The exact shape with random weights; quantised or split by the code that loads real ones."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(**self._facts.shape, attn_implementation=self._attention())
        before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype())
        try:
            with torch.device(self._device):
                model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
        if self._levels.parallelism != "tensor" and self._levels.precision not in ("int8", "int4"):
            return model
        weights = dict(model.state_dict())
        del model
        return LlamaForCausalLM.from_pretrained(None, config=config, state_dict=weights, **self._loading())

    def _hub_model(self) -> Any:
        from transformers import AutoModelForCausalLM

        name, revision = self._facts.hub_identity()
        return AutoModelForCausalLM.from_pretrained(name, revision=revision, **self._loading())

    def _generation(self, n_output_tokens: int) -> Any:
        """Fixed length: no token ends a sequence, and padding has an id that no token can have."""
        from transformers import GenerationConfig

        levels = self._levels
        sampling: dict[str, Any] = {"do_sample": levels.decoding != "greedy"}
        if sampling["do_sample"]:
            sampling |= {
                "temperature": levels.sampling_temperature or 1.0,
                "top_k": levels.top_k or 0,
                "top_p": levels.top_p or 1.0,
            }
        return GenerationConfig(
            max_new_tokens=n_output_tokens,
            eos_token_id=None,
            bos_token_id=None,
            pad_token_id=self._facts.shape["vocab_size"],
            use_cache=True,
            **sampling,
        )

    def prime(self, n_tokens: int) -> None:
        """Generate `n_tokens` for each prompt of the first batch."""
        import torch

        ids, mask = self._batches[0]
        with torch.inference_mode(), _out_of_memory_is_a_result():
            self._model.generate(input_ids=ids, attention_mask=mask, generation_config=self._generation(n_tokens))
            self._synchronise()

    def forward_passes(self, n: int) -> None:
        """`n` forward passes over the first eight tokens of the first prompt."""
        import torch

        ids = self._batches[0][0][:1, :8]
        with torch.inference_mode(), _out_of_memory_is_a_result():
            for _ in range(n):
                self._model(input_ids=ids)
            self._synchronise()

    def iterate(self, *, waiting: bool) -> Generated:
        """Generate for the next batch, after its simulated waiting."""
        import torch

        waited_s = self._wait() if waiting else 0.0
        ids, mask = self._batches[self._n_generated % len(self._batches)]
        self._n_generated += 1
        with torch.inference_mode(), _out_of_memory_is_a_result():
            output = self._model.generate(input_ids=ids, attention_mask=mask)
            new = output[:, ids.shape[1] :]
            n_non_padding = int((new != self._facts.shape["vocab_size"]).sum())  # waits for the device
            self._synchronise()
        return Generated(new.numel(), n_non_padding, waited_s)

    def _wait(self) -> float:
        if self._n_awaited == 0:
            self._n_generated = 0
        wait_s = self._traffic.wait_s(self._n_before + self._n_awaited)
        self._n_awaited += 1
        time.sleep(wait_s)
        return wait_s

    def _synchronise(self) -> None:
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()

    def device_uuids(self) -> list[str]:
        """UUID of the current GPU."""
        if self._device != "cuda":
            return []
        import torch

        return [f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"]

    def memory_peak_bytes(self) -> list[int]:
        """Peak of PyTorch's allocator since the model was loaded."""
        if self._device != "cuda":
            return []
        import torch

        return [int(torch.cuda.max_memory_allocated())]

    def close(self) -> None:
        """Nothing: this process is the only one."""


class _out_of_memory_is_a_result:  # noqa: N801 - reads as a context
    """Turn PyTorch's out-of-memory error into ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise OutOfDeviceMemory(str(error).split(". ")[0]) from error
