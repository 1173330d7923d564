"""BGP: an engine keeps sessions and routes, this folder decides what of it the kernel shall hold."""
