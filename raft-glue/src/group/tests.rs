//! Tests of one group.
