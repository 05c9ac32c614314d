//! Printing by the `console_io` hypercall, a line at a time.

use core::fmt::{self, Write};

use arrayvec::ArrayString;

use crate::hypercall::hypercall;
use crate::xen::{console, op};

/// Prints a line. What does not fit in 512 bytes is cut off.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => { $crate::console::print_line(format_args!($($arguments)*)) };
}

/// Prints one line; `println!` is the usual way to call it.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let mut line = ArrayString::<512>::new();
    let _ = line.write_fmt(arguments);
    if line.is_full() {
        line.truncate(line.floor_char_boundary(510));
    }
    line.push('\n');
    // SAFETY: the hypervisor only reads the line.
    unsafe {
        hypercall(op::CONSOLE_IO, [console::WRITE, line.len() as u64, line.as_ptr() as u64, 0, 0]);
    }
}
