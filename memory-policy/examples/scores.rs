//! Prints what a decision costs and plays all scenarios: the table of scores, in Markdown. `--log N` prints each change of a
//! target in scenario N instead. `docs/dynamic-memory.md` says what the columns are. Fails if the law misses a bound.

use std::process::ExitCode;
use std::time::Instant;

use memory_policy::sim::{self, Variant};
use memory_policy::{Host, Kib, Millis, State, decide};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let costs = [cost(64, 1_000), cost(1000, 20_000)];
            println!("A decision takes {}, and {}.\n", costs[0].0, costs[1].0);
            let is_within = table();
            if is_within && costs.iter().all(|(_, is_within)| *is_within) {
                return ExitCode::SUCCESS;
            }
        }
        ["--log", number] if log(number) => return ExitCode::SUCCESS,
        ["--log", number] => eprintln!("scores: no scenario {number}"),
        _ => eprintln!("scores: unknown arguments {arguments:?}; give none, or --log N"),
    }
    ExitCode::FAILURE
}

/// Whether the law kept its bounds in all of it.
fn table() -> bool {
    let mut is_within = true;
    println!(
        "| scenario | variant | S, GiB·s | oracle | regret | W, GiB·s | G | O | H | moved / oracle | targets | X | T90 (oracle), s | off at the end | stalled (oracle) |"
    );
    println!(
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for scenario in sim::all() {
        for variant in Variant::ALL {
            let run = sim::run(&scenario, variant);
            let (law, oracle) = (&run.score, &run.oracle);
            for missed in run.missed() {
                is_within = false;
                eprintln!("scores: in {} {}, {}: {missed}", scenario.number, scenario.name, variant.name());
            }
            let hundredth = |percent: u64| format!("{}.{:02}", percent / 100, percent % 100);
            let seconds = |time: Option<Millis>| {
                time.map_or("–".into(), |time| {
                    format!("{}.{:02}", time.get() / 1000, time.get() % 1000 / 10)
                })
            };
            println!(
                "| {} {} | {} | {} | {} | {} | {} | {} | {} ({}) | {} | {} | {} | {} | {} ({}) | {}.{} % | {} ({}) |",
                scenario.number,
                scenario.name,
                variant.name(),
                law.shortage,
                oracle.shortage,
                hundredth(run.regret()),
                law.waste,
                law.guarantee,
                law.kills,
                oracle.kills,
                law.beyond,
                hundredth(run.churn()),
                law.writes,
                law.reversals,
                seconds(law.t90),
                seconds(oracle.t90),
                law.off / 10,
                law.off % 10,
                law.stalled,
                oracle.stalled,
            );
        }
    }
    is_within
}

/// Whether there is such a scenario.
fn log(number: &str) -> bool {
    let Some(scenario) = sim::all().into_iter().find(|scenario| scenario.number.to_string() == number) else {
        return false;
    };
    for variant in Variant::ALL {
        let run = sim::run(&scenario, variant);
        println!("{} {}", scenario.name, variant.name());
        for (name, why) in &run.log {
            println!("{:>8} {name} {why}", why.at.to_string());
        }
        for refusal in &run.refusals {
            println!("{refusal}");
        }
    }
    true
}

/// The mean of many decisions, each with new reports of all domains, against what it must be below, in µs, and whether it is.
fn cost(domains: u16, must: u128) -> (String, bool) {
    let host = Host { unpromised: Kib::gib(1), ..Host::default() };
    let mut state = State::new();
    let rounds = 200;
    let inputs: Vec<_> =
        (1..=rounds).map(|second| (second, sim::synthetic(domains, Millis::seconds(second)))).collect();
    let start = Instant::now();
    for (second, known) in &inputs {
        std::hint::black_box(decide(&mut state, Millis::seconds(*second), &host, known));
    }
    let took = start.elapsed().as_micros() / u128::from(rounds);
    let missed = if took < must { "" } else { ": missed" };
    (format!("{took} µs for {domains} domains (must be below {must}{missed})"), took < must)
}
