//! A guest that is not Linux and has a balloon: it goes to the target it is given and says what it has, until it is
//! destroyed: `balloon: Reached at N pages` when it is there.
//!
//! Boot arguments: `balloon.touch` makes it touch all memory that it sees instead, as a guest without a balloon might.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
fn payload_main(machine: &payloads::machine::Machine<'static>) {
    use balloon::{Balloon, Range, Step};
    use payloads::ballooning::{Guest, PAGE, Pool};
    use payloads::{expect, println};

    let seen: u64 = machine.memory.iter().map(|bank| (bank.end - bank.start) / PAGE).sum();
    let Some(pool) = Pool::new(machine) else {
        expect!(false, "not enough free memory");
        return;
    };
    println!("balloon: sees {seen} pages, {} of them free", pool.free());
    if machine.flag("balloon.touch") {
        println!("balloon: touches all of them");
        println!("balloon: touched {} pages", pool.touch_all());
        return;
    }
    let mut guest = Guest::new(pool);
    let mut storage = [Range::default(); 256];
    let mut balloon = Balloon::new(seen, &mut storage);
    let mut said = None;
    loop {
        let mut steps = 0;
        let end = loop {
            match balloon.step(&mut guest) {
                Step::Moved(_) => steps += 1,
                end => break end,
            }
        };
        // What it has, it can use.
        let touched = guest.pool.touch_all();
        let state = (end, balloon.has());
        if said != Some(state) {
            println!(
                "balloon: {end:?} at {} pages after {steps} steps, {touched} of them free",
                balloon.has()
            );
            guest.report();
            said = Some(state);
        }
        guest.wait();
    }
}

#[cfg(not(target_os = "none"))]
fn main() {}
