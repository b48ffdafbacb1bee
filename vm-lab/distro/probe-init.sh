#!/bin/busybox sh
# Boots far enough to show that Linux runs under this accelerator.
/bin/busybox echo REKINDLE-LAB-LINUX-RUNS
/bin/busybox poweroff -f
