"""Hugging Face transformers' ``generate`` on one GPU or on the CPU."""

from __future__ import annotations

from typing import Any

from inference_energy.config import ModelFacts, Setting
from inference_energy.measure.engines import Generated, OutOfDeviceMemory
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
    """One model, one setting.

    Parameters
    ----------
    levels : Setting
        What to run.
    facts : ModelFacts
        The model's shape and pinned revision.
    prompts : Prompts
        Of one iteration.
    seed : int
        Of random weights and of sampling.
    device : {"cuda", "cpu"}
        Where to run.
    """

    def __init__(self, levels: Setting, facts: ModelFacts, prompts: Prompts, seed: int, device: str) -> None:
        self._levels, self._facts, self._prompts, self._seed = levels, facts, prompts, seed
        self._device = device
        self._model: Any = None
        self._batches: list[tuple[Any, Any]] = []

    def load(self) -> None:
        """Build or fetch the model and put prompts beside it."""
        import torch

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
            self._model.generation_config = self._generation()
            ids = torch.from_numpy(self._prompts.token_ids).to(self._device)
            mask = torch.from_numpy(self._prompts.attention_mask).to(self._device)
            size = self._levels.batch_size
            self._batches = list(zip(ids.split(size), mask.split(size), strict=True))
            self._synchronise()

    def _dtype(self) -> Any:
        import torch

        return {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(self._levels.precision, torch.float32)

    def _attention(self) -> str:
        return "eager" if self._levels.attention == "eager" else "sdpa"

    def _random_model(self) -> Any:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype())
        try:
            with torch.device(self._device):
                return LlamaForCausalLM(LlamaConfig(**self._facts.shape, attn_implementation=self._attention()))
        finally:
            torch.set_default_dtype(before)

    def _hub_model(self) -> Any:
        from transformers import AutoModelForCausalLM

        name, revision = self._facts.hub_identity()
        return AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            dtype=self._dtype(),
            attn_implementation=self._attention(),
            device_map=self._device,
        )

    def _generation(self) -> Any:
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
            max_new_tokens=levels.n_output_tokens,
            eos_token_id=None,
            bos_token_id=None,
            pad_token_id=self._facts.shape["vocab_size"],
            use_cache=True,
            **sampling,
        )

    def forward_passes(self, n: int) -> None:
        """`n` forward passes over the first eight tokens of the first prompt."""
        import torch

        ids = self._batches[0][0][:1, :8]
        with torch.inference_mode(), _out_of_memory_is_a_result():
            for _ in range(n):
                self._model(input_ids=ids)
            self._synchronise()

    def iterate(self) -> Generated:
        """Generate for every prompt once."""
        import torch

        n_tokens, n_non_padding = 0, 0
        with torch.inference_mode(), _out_of_memory_is_a_result():
            for ids, mask in self._batches:
                output = self._model.generate(input_ids=ids, attention_mask=mask)
                new = output[:, ids.shape[1] :]
                n_tokens += new.numel()
                n_non_padding += int((new != self._facts.shape["vocab_size"]).sum())  # waits for the device
            self._synchronise()
        return Generated(n_tokens, n_non_padding)

    def _synchronise(self) -> None:
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()

    def device_uuid(self) -> str | None:
        """UUID of the current GPU."""
        if self._device != "cuda":
            return None
        import torch

        return f"GPU-{torch.cuda.get_device_properties(0).uuid}"

    def memory_peak_bytes(self) -> int | None:
        """Peak of PyTorch's allocator."""
        if self._device != "cuda":
            return None
        import torch

        return int(torch.cuda.max_memory_allocated())


class _out_of_memory_is_a_result:  # noqa: N801 - reads as a context
    """Turn PyTorch's out-of-memory error into ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            raise OutOfDeviceMemory(str(error).split(". ")[0]) from error
