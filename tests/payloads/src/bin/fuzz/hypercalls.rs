//! Random hypercalls: numbers known and unknown, arguments sensible and not.
//!
//! A few calls would rightly end or stall the run (shutting down, waiting for an event that never comes, writing noise to the console).
//! They are made with pointers that cannot work, or not at all; everything else goes out as it comes.

use payloads::hypercall::hypercall;
use payloads::xen::{errno, event_channel, op, sched, sysctl};
use payloads::{expect_eq, println};

use super::values::Values;

/// Numbers that Xen 4.17 does not know on Arm (the table of `xen.h`, less what Arm implements).
const UNKNOWN: [u64; 22] = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 14, 15, 22, 23, 25, 26, 28, 30, 31, 38, 48, 63];
/// Numbers it knows, and one more than the highest command of each.
const KNOWN: [(u64, u64); 17] = [
    (op::PLATFORM_OP, 66),
    (op::MEMORY_OP, 30),
    (op::MEMORY_OP, 30),
    (op::MULTICALL, 8),
    (op::XEN_VERSION, 12),
    (op::CONSOLE_IO, 3),
    (op::GRANT_TABLE_OP, 14),
    (op::GRANT_TABLE_OP, 14),
    (op::VM_ASSIST, 4),
    (op::VCPU_OP, 15),
    (op::SCHED_OP, 9),
    (op::EVENT_CHANNEL_OP, 16),
    (op::EVENT_CHANNEL_OP, 16),
    (op::PHYSDEV_OP, 33),
    (op::HVM_OP, 26),
    (op::SYSCTL, 0),
    (op::DOMCTL, 0),
];

/// Commands in calls whose structure begins with command and interface version.
const SYSCTL_DEBUG_KEYS: u64 = 7;
const SYSCTL_PAGE_OFFLINE: u64 = 14;
/// A multicall entry: number, result, six arguments.
const ENTRY_WORDS: u64 = 8;
const MULTICALL_ENTRIES: u64 = 8;

/// One call, ready to be made.
#[derive(Clone, Copy)]
struct Call {
    number: u64,
    arguments: [u64; 5],
    /// What the answer has to be.
    expected: Expected,
}

#[derive(Clone, Copy, PartialEq)]
enum Expected {
    Anything,
    NoSuchCall,
    AnError,
}

/// Counts of what was called and answered.
pub struct Hypercalls {
    /// Entries of multicalls are built here, out of reach of the random pointers.
    entries: u64,
    made: u64,
    succeeded: u64,
    answers: [u64; 128],
    unusual: u64,
    not_refused: u64,
    wrongly_known: u64,
}

impl Hypercalls {
    pub fn new(values: &Values) -> Self {
        let scratch = values.scratch();
        Self {
            entries: scratch.start + (scratch.end - scratch.start) / 2,
            made: 0,
            succeeded: 0,
            answers: [0; 128],
            unusual: 0,
            not_refused: 0,
            wrongly_known: 0,
        }
    }

    /// Makes one call.
    pub fn one(&mut self, values: &mut Values) {
        let mut call = make(values);
        if call.number == op::MULTICALL && call.expected == Expected::Anything {
            call.arguments = [self.entries, self.build_entries(values), 0, 0, 0];
        }
        // SAFETY: `Values` gives no pointer or frame of this program, and `make` no call that ends the domain.
        let answer = unsafe { hypercall(call.number, call.arguments) };
        self.made += 1;
        match call.expected {
            Expected::NoSuchCall if answer != errno::ENOSYS => {
                self.wrongly_known += 1;
                complain(self.wrongly_known, &call, answer);
            }
            Expected::AnError if answer >= 0 => {
                self.not_refused += 1;
                complain(self.not_refused, &call, answer);
            }
            Expected::Anything | Expected::NoSuchCall | Expected::AnError => {}
        }
        match usize::try_from(answer.wrapping_neg()) {
            Ok(error) if error != 0 => match self.answers.get_mut(error) {
                Some(count) => *count += 1,
                None => self.unusual += 1,
            },
            Ok(_) | Err(_) => self.succeeded += 1,
        }
    }

    /// Writes up to eight entries, none of them a multicall; gives their number.
    fn build_entries(&self, values: &mut Values) -> u64 {
        let count = values.random().below(MULTICALL_ENTRIES + 1);
        for i in 0..count {
            let mut call = make(values);
            // What `make` looked at, a later entry may write over.
            let closes = call.number == op::EVENT_CHANNEL_OP
                && call.arguments[0] as u32 as u64 == event_channel::CLOSE;
            if call.number == op::MULTICALL || closes {
                call.number = UNKNOWN[0];
            }
            let [a0, a1, a2, a3, a4] = call.arguments;
            for (j, word) in (0u64..).zip([call.number, 0, a0, a1, a2, a3, a4, 0]) {
                let address = self.entries + (i * ENTRY_WORDS + j) * 8;
                // SAFETY: inside the half of scratch memory that only this function writes.
                unsafe { (address as *mut u64).write_volatile(word) };
            }
        }
        count
    }

    /// Prints the counts and checks what must be zero.
    pub fn report(&self) {
        println!("fuzz: {} hypercalls, {} succeeded, {} unusual", self.made, self.succeeded, self.unusual);
        for (error, count) in self.answers.iter().enumerate().filter(|(_, count)| **count > 0) {
            println!("fuzz:   errno {error}: {count}");
        }
        let (not_refused, wrongly_known) = (self.not_refused, self.wrongly_known);
        expect_eq!(not_refused, 0);
        expect_eq!(wrongly_known, 0);
    }
}

fn complain(nth: u64, call: &Call, answer: i64) {
    if nth <= 8 {
        println!("fuzz: hypercall {} {:x?} answered {answer}", call.number, call.arguments);
    }
}

fn make(values: &mut Values) -> Call {
    let (number, commands) = match values.random().below(16) {
        0 => {
            let number = values.random().pick(&UNKNOWN);
            return unknown(number, values);
        }
        1 => {
            let shift = values.random().below(48);
            let number = 64 + (values.random().next_u64() >> shift);
            return unknown(number, values);
        }
        _ => values.random().pick(&KNOWN),
    };
    let command = if values.random().one_in(8) { values.any() } else { values.random().below(commands) };
    let mut call = Call { number, arguments: [command, 0, 0, 0, 0], expected: Expected::Anything };
    for argument in &mut call.arguments[1..] {
        *argument = values.any();
    }
    // Most calls have a structure as their second argument, grant_table_op a list of them.
    if !values.random().one_in(4) {
        let pointer = values.pointer();
        values.fill(pointer, 20);
        call.arguments[1] = pointer;
    }
    match number {
        op::GRANT_TABLE_OP if !values.random().one_in(8) => call.arguments[2] = values.random().below(8),
        // The structure is the only argument.
        op::SYSCTL | op::DOMCTL | op::PLATFORM_OP => {
            call.arguments[0] = toolstack_structure(number, values);
        }
        op::MULTICALL if values.random().one_in(4) => {
            call.arguments = [values.bad_pointer(), 1 + values.random().below(1000), 0, 0, 0];
            call.expected = Expected::AnError;
        }
        op::SCHED_OP => match command as u32 as u64 {
            sched::BLOCK => call.arguments[0] = sched::YIELD,
            sched::SHUTDOWN | sched::POLL | sched::REMOTE_SHUTDOWN | sched::WATCHDOG => {
                call.arguments = [command & 0xffff_ffff, values.bad_pointer(), 0, 0, 0];
                call.expected = Expected::AnError;
            }
            _ => {}
        },
        // No noise on the console: a length that is not zero comes with a pointer that cannot be read.
        op::CONSOLE_IO if command as u32 == 0 => {
            call.arguments = [0, 1 + values.random().below(1000), values.bad_pointer(), 0, 0];
            call.expected = Expected::AnError;
        }
        op::CONSOLE_IO => call.arguments[2] = values.pointer(),
        // The way to whoever reads the results stays open: its port, and all ports.
        op::EVENT_CHANNEL_OP if payloads::console::port() != 0 => match command as u32 as u64 {
            event_channel::CLOSE => avoid(values, call.arguments[1], payloads::console::port()),
            event_channel::RESET => call.arguments[1] = values.bad_pointer(),
            _ => {}
        },
        _ => {}
    }
    call
}

/// Makes a structure in scratch memory that begins with a port name another.
fn avoid(values: &Values, pointer: u64, port: u32) {
    let scratch = values.scratch();
    if scratch.start <= pointer && pointer < scratch.end - 4 {
        let place = pointer as *mut u32;
        // SAFETY: within scratch memory, to which nothing else refers.
        unsafe {
            if place.read_unaligned() == port {
                place.write_unaligned(port ^ 1 << 20);
            }
        }
    }
}

fn unknown(number: u64, values: &mut Values) -> Call {
    let arguments = [(); 5].map(|()| values.any());
    Call { number, arguments, expected: Expected::NoSuchCall }
}

/// A structure for sysctl, domctl or platform_op: half of the time with the interface version that lets it through. Then it
/// names no command that switches the machine's keys or pages off, and no domain but ones that do not exist: dom0
/// may rightly do anything to itself.
fn toolstack_structure(number: u64, values: &mut Values) -> u64 {
    let pointer = values.pointer() & !7;
    values.fill(pointer, 20);
    if values.random().one_in(2) {
        let mut command = values.random().below(90);
        if number == op::SYSCTL && matches!(command, SYSCTL_DEBUG_KEYS | SYSCTL_PAGE_OFFLINE) {
            command = 0;
        }
        let version =
            if number == op::PLATFORM_OP { 0x0300_0000 } else { u64::from(sysctl::INTERFACE_VERSION) };
        // SAFETY: as in `Values::fill`, which wrote the same words.
        unsafe { (pointer as *mut u64).write_volatile(version << 32 | command) };
        if number == op::DOMCTL {
            let domid = 1 + values.random().below(0x7fef);
            // SAFETY: as above.
            unsafe { (pointer as *mut u64).add(1).write_volatile(domid) };
        }
    }
    pointer
}
