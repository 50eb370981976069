"""The eyes. `check` is the story of one look: gather asks every host (probe), signs says what is wrong, judge what of
it is worth telling. What acts, exports and shows stands beside them, and starts from the same facts and findings."""
