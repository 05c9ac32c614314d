//! Software-generated interrupts: between processors, to oneself, many at once, in order of priority.

use core::sync::atomic::Ordering;

use payloads::gic::{GICD_IPRIORITYR, Gic, Sgi};
use payloads::machine::Machine;
use payloads::report::Test;
use payloads::{expect, expect_eq, io, tests};

use crate::cpus::{
    self, AGAIN, COUNTED, Command, LAPS, PING, PONG, TOKEN_DOWN, TOKEN_UP, cpu, send, settle, wait_until,
};

pub const TESTS: [Test; 9] = tests![
    ping_pong,
    rings,
    to_all_others,
    same_interrupt_from_several,
    more_than_list_registers,
    while_active,
    while_disabled,
    in_order_of_priority,
    beyond_the_mask,
];

const ROUNDS: u32 = 500;

fn ping_pong(_: &Machine<'static>) {
    for index in 1..cpus::count() {
        cpu(0).take(PONG);
        cpu(index).take(PING);
        for round in 1..=ROUNDS {
            send(index, PING);
            // Half of the answers find this processor asleep.
            if round % 2 == 0 {
                io::interrupts_off();
                if cpu(0).seen(PONG) < round {
                    io::wait_for_interrupt();
                }
                io::interrupts_on();
            }
            if !wait_until(|| cpu(0).seen(PONG) >= round) {
                expect!(false, "processor {index}: lost in round {round}, it took {}", cpu(index).seen(PING));
                break;
            }
        }
        expect_eq!((index, cpu(index).take(PING), cpu(0).take(PONG)), (index, ROUNDS, ROUNDS));
    }
}

/// Two tokens go round in opposite directions at once; every processor sees each as often as it went round.
fn rings(_: &Machine<'static>) {
    let all = cpus::count();
    if all < 2 {
        return;
    }
    for id in [TOKEN_UP, TOKEN_DOWN] {
        for index in 0..all {
            cpu(index).take(id);
        }
    }
    send(1, TOKEN_UP);
    send(all - 1, TOKEN_DOWN);
    let home = || cpu(0).seen(TOKEN_UP) >= LAPS && cpu(0).seen(TOKEN_DOWN) >= LAPS;
    expect!(wait_until(home), "a token was lost");
    settle();
    for index in 0..all {
        expect_eq!((index, cpu(index).take(TOKEN_UP), cpu(index).take(TOKEN_DOWN)), (index, LAPS, LAPS));
    }
}

fn to_all_others(_: &Machine<'static>) {
    let all = cpus::count();
    let sgi = match cpu(0).gic().sgi_to_self(COUNTED) {
        Sgi::Memory { address, value } => Sgi::Memory { address, value: value & !(3 << 24) | 1 << 24 },
        // ICC_SGI1R_EL1.IRM.
        Sgi::Register { .. } => Sgi::Register { value: 1 << 40 | u64::from(COUNTED) << 24 },
    };
    for index in 0..all {
        cpu(index).take(COUNTED);
    }
    for round in 1..=ROUNDS {
        sgi.send();
        if !wait_until(|| (1..all).all(|index| cpu(index).seen(COUNTED) >= round)) {
            expect!(false, "lost in round {round}");
            break;
        }
    }
    for index in 1..all {
        expect_eq!((index, cpu(index).take(COUNTED)), (index, ROUNDS));
    }
    expect_eq!(cpu(0).take(COUNTED), 0);
}

/// On GICv2 an SGI is pending once for each sender, and IAR names the sender (IHI 0048, 3.2.2); on GICv3 it is pending once.
fn same_interrupt_from_several(_: &Machine<'static>) {
    let all = cpus::count();
    if all < 2 {
        return;
    }
    io::interrupts_off();
    cpu(0).take(COUNTED);
    cpus::forget();
    for index in 1..all {
        let before = cpu(index).done.load(Ordering::Acquire);
        cpus::command(index, Command::Send);
        expect!(
            wait_until(|| cpu(index).done.load(Ordering::Acquire) != before),
            "processor {index} is stuck"
        );
    }
    io::interrupts_on();
    settle();
    let taken = cpu(0).take(COUNTED);
    match cpu(0).gic() {
        Gic::V2 { .. } if cpus::on_nacelle() => {
            expect_eq!(taken as usize, all - 1);
            let sources = cpus::HISTORY.iter().take(cpus::history_length() as usize);
            let mask = sources.fold(0_u32, |mask, iar| mask | 1 << (iar.load(Ordering::Relaxed) >> 10 & 7));
            expect_eq!(mask, (1 << all) - 2);
        }
        // Xen does not tell senders apart.
        Gic::V2 { .. } | Gic::V3 { .. } => expect_eq!(taken, 1),
    }
}

/// Sixteen at once: no interface has that many list registers in QEMU's models.
fn more_than_list_registers(_: &Machine<'static>) {
    for round in 0..50 {
        io::interrupts_off();
        for id in COUNTED..16 {
            cpu(0).take(id);
            cpu(0).gic().sgi_to_self(id).send();
        }
        io::interrupts_on();
        let arrived = || (COUNTED..16).all(|id| cpu(0).seen(id) > 0);
        expect!(wait_until(arrived), "round {round}: not all arrived");
        for id in COUNTED..16 {
            let taken = cpu(0).take(id);
            expect!(taken == 1, "round {round}: SGI {id} arrived {taken} times");
        }
    }
}

/// Sent again by its own handler, an interrupt is active and pending, and comes a second time.
fn while_active(_: &Machine<'static>) {
    for _ in 0..50 {
        cpu(0).take(AGAIN);
        cpu(0).gic().sgi_to_self(AGAIN).send();
        expect!(wait_until(|| cpu(0).seen(AGAIN) >= 2), "the second one is lost");
    }
    settle();
    expect_eq!(cpu(0).take(AGAIN), 2);
}

fn while_disabled(_: &Machine<'static>) {
    let gic = cpu(0).gic();
    cpu(0).take(COUNTED);
    gic.disable(COUNTED);
    gic.sgi_to_self(COUNTED).send();
    settle();
    expect_eq!(cpu(0).seen(COUNTED), 0);
    gic.enable(COUNTED);
    expect!(wait_until(|| cpu(0).seen(COUNTED) == 1), "it did not come when enabled");
    settle();
    expect_eq!(cpu(0).take(COUNTED), 1);
}

fn in_order_of_priority(_: &Machine<'static>) {
    let gic = cpu(0).gic();
    let frame = gic.frame(0) + GICD_IPRIORITYR;
    let ids = [6_u32, 7, 8, 9];
    for (id, priority) in ids.into_iter().zip([0xc0, 0x40, 0xe0, 0x80]) {
        io::write8(frame + u64::from(id), priority);
        cpu(0).take(id);
    }
    io::interrupts_off();
    cpus::forget();
    for id in ids {
        gic.sgi_to_self(id).send();
    }
    io::interrupts_on();
    expect!(wait_until(|| cpus::history_length() >= 4), "not all arrived");
    let order = [0, 1, 2, 3].map(|i: usize| cpus::HISTORY[i].load(Ordering::Relaxed) & 0x3ff);
    expect_eq!(order, [7, 9, 6, 8]);
    for id in ids {
        io::write8(frame + u64::from(id), 0xa0);
        cpu(0).take(id);
    }
}

/// The priority mask holds back what is not urgent enough, until it is lifted.
fn beyond_the_mask(_: &Machine<'static>) {
    let gic = cpu(0).gic();
    let mask = |value: u32| match gic {
        Gic::V2 { cpu_interface, .. } => io::write32(cpu_interface + 4, value),
        Gic::V3 { .. } => payloads::write_sysreg!("icc_pmr_el1", u64::from(value)),
    };
    cpu(0).take(COUNTED);
    mask(0x80);
    gic.sgi_to_self(COUNTED).send();
    settle();
    expect_eq!(cpu(0).seen(COUNTED), 0);
    mask(0xff);
    expect!(wait_until(|| cpu(0).seen(COUNTED) == 1), "it did not come when unmasked");
    cpu(0).take(COUNTED);
}
