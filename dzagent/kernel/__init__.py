"""The kernel as dzagent sees it: started programs, decoded output, and the commands of steps."""
