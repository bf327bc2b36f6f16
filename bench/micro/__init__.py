"""A guard against dearer code: instructions of small pieces of work, by those of a yardstick.

`python -m bench.micro`, or `make bench-check`. Valgrind counts instructions, so other load on the
machine changes nothing; divided by those of a loop in pure Python they mean the same on most
machines. docs/benchmarks.md says what each piece is.
"""
