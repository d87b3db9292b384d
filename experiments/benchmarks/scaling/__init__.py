"""How compile time, time and memory grow with T, with lanes, with cores and with D.

Parts, of which `--parts` selects some:

- `sweep`: peak memory of a sweep of very many tiny lanes (first, while the process is small);
- `compile`: seconds to compile and equations, against T and against lanes;
- `time`: a step of time against T, with full and with sqrt memory, and temporary bytes;
- `lanes`: a lane's update against lanes, on all cores;
- `cores`: weak scaling, the same number of lanes on one core and on each;
- `rows`: one network alone, its rows split over the cores, beside one core;
- `inputs`: the input product inside the loop over time or before it, against D.
"""
