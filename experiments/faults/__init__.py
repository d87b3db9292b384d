"""What a sweep survives: kills, signals, damaged files, full disks; and what it costs to keep its lanes.

Every fault is tried for real, on files and processes: a process is killed at a random time, a bit of a file is
flipped, the disk is full. Survived means that the same call then gives the numbers of an undisturbed sweep bit for bit;
of a damaged result, that loading it says so; of a disk or a folder that takes nothing, that nothing is lost beside what
could not be written, and that an error or a warning says so. All else is lost.

The sweep is small: an Elman network on the sunspots, lanes of some hundredths of a second, one by one, in chunks and
under `vmap`. What keeping costs is the ratio of the run times with `keep=` and without, in turn, in one process.
"""
