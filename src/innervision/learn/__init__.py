"""Train image classifiers, measure them and put them to use."""
