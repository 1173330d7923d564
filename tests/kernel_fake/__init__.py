"""A kernel in memory that takes the text which dzagent gives to `ip`, and prints what `ip` would print.

state     what it holds, and what links and addresses do to each other and to routes
fib       routes: who holds a key, which gateway can be reached, what a delete hits
rules     policy rules: their order, and what a delete hits
script    the commands: one line of `ip -batch` at a time
answers   the JSON of `ip -N -d -j`
faults    what goes wrong, and when

Measured on Linux 6.18 with iproute2 6.1; e2e/test_netns_fake.py holds it against the running kernel.
"""
