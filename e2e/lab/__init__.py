"""A lab with a real kernel: network namespaces of the running kernel, or a small virtual machine."""
