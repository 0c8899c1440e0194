"""Latency, throughput and quality, measured side by side."""
