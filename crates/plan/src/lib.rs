//! Pure: policy + service = the Istio objects to have, with every decision on the way.
