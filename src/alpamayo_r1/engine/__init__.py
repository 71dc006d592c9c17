"""The fast planner: static buffers, shared prompts, captured graphs, fused kernels. Its results are `plan.py`'s."""
