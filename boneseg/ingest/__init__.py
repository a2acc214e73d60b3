"""From objects of a bucket to recognised, checked CT series with labels."""
