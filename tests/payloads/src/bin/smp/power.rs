//! Starting, stopping and starting again, by PSCI.

use core::sync::atomic::Ordering;

use payloads::machine::Machine;
use payloads::psci::{self, function};
use payloads::report::Test;
use payloads::{expect, expect_eq, tests};

use crate::cpus::{self, Command, cpu, wait_until};

pub const START: [Test; 1] = tests![start_all];
pub const STOP: [Test; 1] = tests![off_and_on];

const ON: i32 = 0;
const OFF: i32 = 1;
const ALREADY_ON: i32 = -4;

fn affinity_info(index: usize) -> i32 {
    // SAFETY: the call only answers.
    unsafe { psci::call(function::AFFINITY_INFO, cpu(index).mpidr(), 0, 0) as i32 }
}

fn start(index: usize) {
    expect_eq!((index, affinity_info(index)), (index, OFF));
    expect_eq!((index, psci::start_cpu(cpu(index).mpidr(), index, cpus::secondary)), (index, 0));
    expect!(wait_until(|| cpu(index).online.load(Ordering::Acquire)), "processor {index} did not start");
    expect_eq!((index, affinity_info(index)), (index, ON));
}

fn start_all(_: &Machine<'static>) {
    expect_eq!(affinity_info(0), ON);
    for index in 1..cpus::count() {
        start(index);
        let again = psci::start_cpu(cpu(index).mpidr(), index, cpus::secondary) as i32;
        expect_eq!((index, again), (index, ALREADY_ON));
    }
}

fn off_and_on(_: &Machine<'static>) {
    for round in 0..3 {
        for index in 1..cpus::count() {
            cpus::command(index, Command::Off);
            expect!(
                wait_until(|| affinity_info(index) == OFF),
                "processor {index} is not off in round {round}"
            );
        }
        for index in 1..cpus::count() {
            start(index);
            cpu(0).take(cpus::PONG);
            cpus::send(index, cpus::PING);
            expect!(wait_until(|| cpu(0).seen(cpus::PONG) == 1), "processor {index} does not answer");
        }
    }
}
