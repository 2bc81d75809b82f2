"""Hugging Face transformers' ``generate`` in one process, on one GPU (or its share of several) or on the CPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_energy.config import ModelFacts, Setting
from inference_energy.measure.engines import Generated, OutOfDeviceMemory
from inference_energy.measure.traffic import Traffic, period_batches
from inference_energy.measure.workload import Prompts, batches, warm_up_batch


def import_everything() -> None:
    """Import all that a run needs, and touch no device: what a forking parent holds."""
    import torch
    import torch.nn.attention
    from transformers import (  # noqa: F401
        AutoModelForCausalLM,
        GenerationConfig,
        LlamaForCausalLM,
        MistralForCausalLM,
        Qwen2ForCausalLM,
    )
    from transformers.generation import utils  # noqa: F401
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING  # noqa: F401

    if torch.cuda.is_initialized():  # a parent with a context cannot fork processes that use the GPU
        raise RuntimeError("importing the engine initialised CUDA")


@dataclass(frozen=True)
class _Batch:
    """Prompts that are generated for together, on the device.

    Attributes
    ----------
    ids, mask : int64 tensors, prompts x longest input of the batch
        Padded on the left; the mask is 1 for tokens.
    is_asked : bool tensor, prompts x longest output of the batch
        Which of the generated tokens were asked for: all prompts are answered until the longest answer ends.
    generation : transformers.GenerationConfig
        Until the longest answer ends.
    """

    ids: Any
    mask: Any
    is_asked: Any
    generation: Any


class TransformersEngine:
    """One model, one setting, one process.

    A batch is static: its prompts are padded to the longest and answered until the longest answer ends. Tokens that
    nobody asked for are generated and counted as such, but not among those that are no padding.

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
        self._batches: list[_Batch] = []
        self._repeated: int | None = None
        self._first_token = _FirstToken(device)
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
            self._batches = [self._batch(indices) for indices in batches(self._levels, self._prompts)]
            self._repeated = warm_up_batch(self._levels, self._prompts)
            torch.manual_seed(self._seed + self._stream)
            self._synchronise()
            if self._device == "cuda":  # what is loaded may have been larger than what stays: weights to be quantised
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()

    def _batch(self, indices: npt.NDArray[np.int64]) -> _Batch:
        import torch

        prompts, n_output = self._prompts, self._prompts.n_output_tokens[indices]
        # Where all are given one length, texts that are shorter stay padded to it.
        n_input = prompts.n_input_tokens[indices].max() if self._levels.input_length_cv else prompts.token_ids.shape[1]
        return _Batch(
            torch.from_numpy(prompts.token_ids[indices, -n_input:]).to(self._device),
            torch.from_numpy(prompts.attention_mask[indices, -n_input:]).to(self._device),
            torch.from_numpy(np.arange(n_output.max()) < n_output[:, None]).to(self._device),
            self._generation(int(n_output.max())),
        )

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
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        facts = self._facts
        config = AutoConfig.for_model(facts.model_type, **facts.shape, attn_implementation=self._attention())
        model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype())
        try:
            with torch.device(self._device):
                model = model_class(config)
        finally:
            torch.set_default_dtype(before)
        if self._levels.parallelism != "tensor" and self._levels.precision not in ("int8", "int4"):
            return model
        weights = dict(model.state_dict())
        del model
        return model_class.from_pretrained(None, config=config, state_dict=weights, **self._loading())

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

        with torch.inference_mode(), _out_of_memory_is_a_result():
            self._generate(self._batches[0], self._generation(n_tokens))
            self._synchronise()

    def forward_passes(self, n: int) -> None:
        """`n` forward passes over the first eight tokens of the first prompt."""
        import torch

        ids = self._batches[0].ids[:1, :8]
        with torch.inference_mode(), _out_of_memory_is_a_result():
            for _ in range(n):
                self._model(input_ids=ids)
            self._synchronise()

    def iterate(self, *, waiting: bool) -> Generated:
        """Generate for the next batch, after its simulated waiting."""
        import torch

        waited_s = self._wait() if waiting else 0.0
        repeated = None if waiting else self._repeated
        batch = self._batches[self._n_generated % len(self._batches) if repeated is None else repeated]
        self._n_generated += 1
        with torch.inference_mode(), _out_of_memory_is_a_result():
            self._first_token.await_next(self._model)
            new = self._generate(batch, batch.generation)
            is_token = new != self._facts.shape["vocab_size"]
            # A batch that ends early has fewer columns than were asked for; the audit sees it.
            n_non_padding = int((is_token & batch.is_asked[:, : new.shape[1]]).sum())  # waits for the device
            self._synchronise()
        return Generated(new.numel(), n_non_padding, waited_s, self._first_token.elapsed_s())

    def _generate(self, batch: _Batch, generation: Any) -> Any:
        output = self._model.generate(input_ids=batch.ids, attention_mask=batch.mask, generation_config=generation)
        return output[:, batch.ids.shape[1] :]

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


class _FirstToken:
    """Times the first token of a batch: the end of the forward pass over the prompts.

    A hook on the model notes the end of its first call and takes itself away, so that no later step is slower; on a
    GPU it notes it in the stream of work, and nothing waits. Choosing the token from the logits comes after.
    """

    def __init__(self, device: str) -> None:
        self._on_gpu = device == "cuda"
        self._marks: list[Any] = []

    def await_next(self, model: Any) -> None:
        """Begin to wait for the first token of the batch that comes next; the device has nothing to do."""
        self._marks = [self._mark()]

        def note(*_: Any) -> None:
            hook.remove()
            self._marks.append(self._mark())

        hook = model.register_forward_hook(note)

    def elapsed_s(self) -> float:
        """From :meth:`await_next` to the first token; the device is synchronised."""
        begun, ended = self._marks
        return float(begun.elapsed_time(ended) / 1000 if self._on_gpu else ended - begun)

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class _out_of_memory_is_a_result:  # noqa: N801 - reads as a context
    """Turn PyTorch's out-of-memory error into ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise OutOfDeviceMemory(str(error).split(". ")[0]) from error
