"""The benchmark suite: `python -m bench`, or `make bench`.

It starts a server and an agent, drives tunnels through them with a load generator in C
(`load/`), and prints what came out; with `REF_SERVER` and `REF_AGENT` in the environment it
does the same to a reference pair in the same run and prints the ratios. docs/benchmarks.md says
what each row means.
"""
