//! End to end, against the real parts
