//! shopfloor
