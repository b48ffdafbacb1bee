"""The QEMU lab: rekindle installs blank virtual machines, and the result is proven."""
