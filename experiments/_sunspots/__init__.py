"""What the experiments on the yearly sunspots share: network, statistical peers, errors and their uncertainty."""
