//! Tests of the virtual GIC.
