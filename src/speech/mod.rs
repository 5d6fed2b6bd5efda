//! From samples to turns. No IO at all.

