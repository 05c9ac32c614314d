//! The guest's life: its demand, its balloon, its report, in turns of a twentieth of a second.

use core::time::Duration;

use balloon::{Balloon, Range, Step};
use guest_agent::{Pressure, Usage};
use payloads::ballooning::{Guest, PAGE, Pool};
use payloads::curve::Curve;
use payloads::machine::Machine;
use payloads::{expect, println, timer};

use crate::holder::Holder;
use crate::reporter::{Manner, Reporter};
use crate::sleep::Sleeper;

const TURN_MS: u64 = 50;
/// Turns between two looks at `data/demand`.
const ASK: u64 = 4;
/// Turns between two times that a guest without an agent touches what it holds: only this shows that it uses it.
const TOUCH: u64 = 20;
/// As long as somebody waits, a stall is told so often: as Linux's trigger does.
const STALL_MS: u64 = 500;
/// Pages by which the demand must have moved for that to be said.
const STEP: u64 = 256;
const KIB_PER_PAGE: u64 = PAGE / 1024;

struct Life {
    holder: Holder,
    wants: u64,
    /// Since when the demand is what it is, in ms.
    since: u64,
    /// Whether and since when not all of it is there.
    short: Option<u64>,
    short_ms: u64,
    target: u64,
    /// The demand when it was printed last.
    said: u64,
}

pub fn run(machine: &Machine<'static>) {
    let manner = Manner::named(machine.text("demand.as"));
    let curve = machine.text("demand.curve").map(Curve::parse);
    let (Some(pool), Some(sleeper), Some(manner), None | Some(Some(_))) =
        (Pool::new(machine), Sleeper::new(machine), manner, &curve)
    else {
        expect!(false, "no memory, no timer, or boot arguments that make no sense: {}", machine.bootargs);
        return;
    };
    let curve = curve.flatten();
    let end = machine.number("demand.end").map_or(u64::MAX, |seconds| seconds * 1000);
    let is_stuck = machine.flag("demand.stuck");
    let seen: u64 = machine.memory.iter().map(|bank| (bank.end - bank.start) / PAGE).sum();
    // The program and whatever else is no page of the pool.
    let fixed = seen - pool.free();
    let mut guest = Guest::new(pool);
    let mut storage = [Range::default(); 512];
    let mut balloon = Balloon::new(seen, &mut storage);
    let mut reporter = Reporter::new(manner);
    let mut life =
        Life { holder: Holder::default(), wants: 0, since: 0, short: None, short_ms: 0, target: 0, said: 0 };
    println!("demand: sees {} KiB, needs {} itself", seen * KIB_PER_PAGE, fixed * KIB_PER_PAGE);
    let start = timer::ticks();
    let now_ms = || timer::nanoseconds(timer::ticks() - start) / 1_000_000;
    let mut next_stall = 0;
    for turn in 0.. {
        let now = now_ms();
        if now >= end {
            break;
        }
        let wants = match &curve {
            Some(curve) => Some(curve.at(now)),
            None if turn % ASK == 0 => guest.read_number("data/demand"),
            None => None,
        };
        life.want(now, wants.map_or(life.wants, |kib| kib / KIB_PER_PAGE));
        if !is_stuck {
            // What it is to give comes out of what it uses if it must, as from a guest that swaps.
            let target = balloon.target(&mut guest).unwrap_or(seen);
            life.free_down_to(&mut guest.pool, target.saturating_sub(fixed));
            while let Step::Moved(_) = balloon.step(&mut guest) {}
        }
        let target = if is_stuck { seen } else { balloon.target(&mut guest).unwrap_or(seen) };
        if life.target != target {
            life.target = target;
            println!("demand: target {} KiB after {} ms", target * KIB_PER_PAGE, now - life.since);
        }
        let room = balloon.has().min(target).saturating_sub(fixed);
        life.use_memory(&mut guest.pool, room, now_ms());
        if manner == Manner::Mute && turn % TOUCH == 0 {
            life.holder.touch();
        }
        let is_stall = life.short.is_some() && now >= next_stall;
        if is_stall {
            next_stall = now + STALL_MS;
        }
        let free = room.saturating_sub(life.holder.pages()) * KIB_PER_PAGE;
        let committed = (fixed + life.wants) * KIB_PER_PAGE;
        let usage = Usage { total: balloon.has() * KIB_PER_PAGE, free, available: free, committed };
        let stalled = 1000 * (life.short_ms + life.short.map_or(0, |since| now - since.min(now)));
        let pressure = Pressure { some: stalled, full: stalled };
        reporter.look(&mut guest, Duration::from_millis(now), usage, pressure, is_stall);
        if reporter.next_look() > Duration::ZERO {
            sleeper.until(start + (now + TURN_MS) * timer::frequency() / 1000);
        }
    }
    life.wants = 0;
    life.use_memory(&mut guest.pool, 0, now_ms());
    expect!(life.holder.damaged == 0, "{} pages were damaged", life.holder.damaged);
    println!("demand: was short for {} ms", life.short_ms);
}

impl Life {
    /// The demand is `pages`.
    fn want(&mut self, now: u64, pages: u64) {
        if pages != self.wants {
            (self.wants, self.since) = (pages, now);
        }
    }

    /// Frees what is used beyond `pages`.
    fn free_down_to(&mut self, pool: &mut Pool, pages: u64) {
        while self.holder.pages() > pages {
            self.holder.pop(pool);
        }
    }

    /// Takes or frees memory up to what is wanted, and no more than `room` pages. A step, and whether all of it is
    /// there, is said in one line.
    fn use_memory(&mut self, pool: &mut Pool, room: u64, now: u64) {
        self.free_down_to(pool, self.wants);
        while self.holder.pages() < self.wants.min(room) && self.holder.push(pool) {}
        let is_short = self.holder.pages() < self.wants;
        let changes = is_short != self.short.is_some();
        if changes {
            self.short_ms += self.short.map_or(0, |since| now - since);
            self.short = is_short.then_some(now);
        }
        if changes || self.wants.abs_diff(self.said) > STEP {
            let (wants, holds) = (self.wants * KIB_PER_PAGE, self.holder.pages() * KIB_PER_PAGE);
            let what = if is_short { "short" } else { "satisfied" };
            println!("demand: wants {wants} KiB, holds {holds}: {what} after {} ms", now - self.since);
            self.said = self.wants;
        }
    }
}
