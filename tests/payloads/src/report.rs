//! Counting what passed and what failed, and ending the payload.
//!
//! A test is a function; [`tests!`] lists the functions of a binary under their own names. `expect!` and `expect_eq!` report a failure
//! and go on, so that one run shows all of them. The last line is always `payload: N passed, N failed`.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::machine::Machine;
use crate::xen::{op, sched};
use crate::{hypercall, io, println, psci};

static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// One named test.
pub struct Test {
    /// The function's name.
    pub name: &'static str,
    /// The function.
    pub run: fn(&Machine<'static>),
}

/// Lists tests: `tests!(first, second)` gives a `[Test; 2]`.
#[macro_export]
macro_rules! tests {
    ($($test:ident),+ $(,)?) => { [$($crate::report::Test { name: stringify!($test), run: $test }),+] };
}

/// Expects a condition to hold; counts and reports.
#[macro_export]
macro_rules! expect {
    ($condition:expr, $($message:tt)+) => {
        if $condition { $crate::report::pass() } else {
            $crate::println!("FAIL {}:{}: {}", file!(), line!(), format_args!($($message)+));
            $crate::report::fail()
        }
    };
}

/// Expects two values to be equal; counts and reports both when they are not.
#[macro_export]
macro_rules! expect_eq {
    ($left:expr, $right:expr $(,)?) => {{
        let (left, right) = (&$left, &$right);
        $crate::expect!(*left == *right, "{} is {:?}, expected {:?}", stringify!($left), left, right)
    }};
}

/// Counts one expectation that held.
pub fn pass() {
    PASSED.fetch_add(1, Ordering::Relaxed);
}

/// Counts one expectation that did not.
pub fn fail() {
    FAILED.fetch_add(1, Ordering::Relaxed);
}

/// Runs the tests in order, naming each before it starts.
pub fn run(tests: &[Test], machine: &Machine<'static>) {
    for test in tests {
        println!("test {}", test.name);
        (test.run)(machine);
    }
}

/// Prints the totals and powers off.
pub fn finish() -> ! {
    println!("payload: {} passed, {} failed", PASSED.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    power_off()
}

/// Ends a payload that cannot go on: counts a failure, prints the totals, powers off.
pub fn abandon() -> ! {
    fail();
    finish()
}

fn power_off() -> ! {
    let mut reason = sched::SHUTDOWN_POWEROFF;
    // SAFETY: the domain ends here; the hypervisor only reads the reason.
    unsafe { hypercall::with_struct(op::SCHED_OP, sched::SHUTDOWN, &mut reason) };
    psci::system_off();
    loop {
        io::wait_for_interrupt();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    println!("payload: {info}");
    abandon()
}
