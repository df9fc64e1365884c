"""What is put before libevent by LD_PRELOAD to trace a program: see `preload.c`."""
