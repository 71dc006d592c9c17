"""Triton kernels of the fast planner: each computes what the torch function of the same name in ops/ computes.

Sums are in fp32, in a fixed order and without atomics, so that a result is the same bits on every run. Every kernel can be launched with
programmatic dependence (PDL): it may start while its predecessor drains, and waits for the predecessor's results before reading them.
Small kernels release their successor at once, so that it can fetch weights meanwhile. So do products with one program a multiprocessor
(EARLY): as each ends, the successor moves in. Products with many programs side by side do so at their end, lest the successor's crowd
where there is room first; so does attention, which measured 3 % faster than an early release.
"""
