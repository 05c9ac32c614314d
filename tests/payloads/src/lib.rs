//! Bare-metal EL1 guests.
