"""Names of what is said of several GPUs, for the analysis and for pages."""

ENERGY_RATIO = "energy_over_one_gpu_ratio"
THROUGHPUT_RATIO = "throughput_over_one_gpu_ratio"
EXPONENT = "energy_growth_exponent"
MODERATION = "energy_ratio_large_over_small_batch_ratio"

#: In the published code its processes see fewer GPUs, so that `published` means something else there.
LEFT_OUT = "scenarios_code"

#: Batch sizes of study `parallelism`, which are compared.
SMALL_BATCH, LARGE_BATCH = 8, 64
