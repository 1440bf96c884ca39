//! Against the kernel, each test in a network namespace of its own; needs root.
