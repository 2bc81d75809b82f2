"""What the open-loop client costs and how well it keeps its times, against a scripted server in another process.

``python benchmarks/client_overhead.py [--rate 100] [--requests 1000]`` prints the client's processor time per request
(the aim: at most 1e-4 s, which is 1 % of a core at 100 requests/s) and how late requests leave (aim: at most 1 ms in
the median). Processor time includes that of the poll of gauges every 0.25 s and leaves out reading the answers, which
comes after a pass and is printed apart.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from inference_energy.config import Setting
from inference_energy.measure.arrivals import planned_s
from inference_energy.measure.client import OpenLoopClient
from inference_energy.measure.completions import body, http_request, requests_of
from inference_energy.measure.serving import HOST, Server

SCRIPT = Path(__file__).parents[1] / "tests" / "scripted_server.py"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="requests/s")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=128)
    given = parser.parse_args()
    levels = Setting(
        model="tiny-llama",
        engine="vllm_server",
        arrival="poisson",
        arrival_requests_per_s=given.rate,
        batch_size=1,
        n_prompts=given.requests,
    )
    asked = body(levels, "scripted", "vllm", list(range(given.input_tokens)), given.output_tokens, 7)
    payloads = [http_request("POST", "/v1/completions", "benchmark", asked)] * given.requests
    poll = http_request("GET", "/metrics", "benchmark")
    server = Server(lambda port: [sys.executable, str(SCRIPT), str(port), "scripted", "ok"], "scripted", {}, 30.0)
    server.start()
    client = OpenLoopClient(HOST, server.port, 60.0)
    try:
        client.run(payloads[:32], [0.0] * 32)
        done = client.run(payloads, planned_s(levels, 7, 0).tolist(), poll)
        began_s = time.thread_time()
        requests = requests_of(done, [given.input_tokens] * given.requests, [given.output_tokens] * given.requests)
        read_s = time.thread_time() - began_s
    finally:
        client.close()
        server.close()
    late_s = np.array(requests.sent_s) - np.array(requests.scheduled_s)
    n_pieces = np.mean([len(exchange.pieces) for exchange in done.exchanges])
    print(f"{requests.outcome.count('ok')} of {given.requests} requests ok, {n_pieces:.1f} pieces each")
    print(f"processor time per request: {done.cpu_s / given.requests:.2e} s; share of a core: ", end="")
    print(f"{done.cpu_s / done.wall_s:.2%} at {given.requests / done.wall_s:.0f} requests/s")
    print(f"reading an answer afterwards: {read_s / given.requests:.2e} s")
    print(f"lateness: median {np.median(late_s):.2e} s, 99 % below {np.quantile(late_s, 0.99):.2e} s")


if __name__ == "__main__":
    main()
