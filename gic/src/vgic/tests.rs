//! Tests of the virtual GIC: registers, delivery, bugs that others had, and a model.

mod delivery;
mod fake;
mod field_bugs;
mod model;
mod registers;
