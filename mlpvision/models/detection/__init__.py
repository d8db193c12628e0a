"""Two-stage detection: boxes, anchors, assignment, sampling, RoIAlign, suppression and masks, as pure functions."""
