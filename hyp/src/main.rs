//! Nacelle: the EL2 image.
fn main() {}
