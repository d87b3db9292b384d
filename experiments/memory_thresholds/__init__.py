"""The three thresholds of memory: what λ‖W‖² does to a bit that is held for T steps, as a phase diagram in (T, λ).

Delayed recall (K bits at step 0, T silent steps, the bits asked for) over T × gain of the start × λ × seeds. Networks
are trained from scratch at each λ (cold), and carried up and down the λ axis from a trained one (warm). Two axes are
kept apart: whether the bits can be decoded from h_T (memory), and ‖∂h_T/∂h_0‖ (gradient).

    λ_cold  above it a start of gain g no longer learns
    λ_c     above it the memory is worth less than it costs: its objective exceeds 1, that of W = 0
    λ_s     above it a memory that is there is destroyed

λ_cold of T ≤ 40 and three gains fixes one constant of the law c T g^(T−2); what it says of T = 80 and of a new gain is
written to predictions.json before either is run. Sweeps are kept in results/memory_thresholds/sweeps: a run that was
interrupted goes on where it stopped.

`task` trains, `runs` sweeps, `measures` looks at one network; `diagram` turns runs into thresholds; `theory`, `law` and
`slopes` say what they should be, `controls` trains in other ways; `claims`, `report` and `figures` show all of it.
"""
