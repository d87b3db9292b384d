"""From the yearly sunspots to a chosen λ: the whole path, cross-validated, refitted and tested, in one command.

The λ path of a tanh network on windows of the series, λ chosen by blocked cross-validation inside 1700–1920 alone,
every λ refitted on all of 1700–1920, and the mean forecast of the seeds tested on 1921–1955, 1956–1979 and 1980–2008
beside its statistical peers.

The protocol, fixed before this experiment computed an error on a test year: transform, window and rate come from
`experiments.sunspot_configuration`; hidden size and the number of updates were set beforehand; the chosen λ is λ_min
of the mean forecast's cross-validated ARV. The first two test spans have been looked at by everybody for thirty
years; 1980–2008 is the clean test (of the network: for AR(9) on the square-root scale its error was known).
"""
