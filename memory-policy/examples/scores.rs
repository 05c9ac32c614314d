//! Prints what a decision costs and plays all scenarios: the table of scores, in Markdown. `--log N` prints each change of a
//! target in scenario N instead. `docs/dynamic-memory.md` says what the columns are.

use std::process::ExitCode;
use std::time::Instant;

use memory_policy::sim::{self, Variant};
use memory_policy::{Host, Kib, Millis, State, decide};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            println!("A decision takes {}, and {}.\n", cost(64, 1_000), cost(1000, 20_000));
            table();
        }
        ["--log", number] => log(number),
        _ => {
            eprintln!("scores: unknown arguments {arguments:?}; give none, or --log N");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn table() {
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
}

fn log(number: &str) {
    let Some(scenario) = sim::all().into_iter().find(|scenario| scenario.number.to_string() == number) else {
        println!("no scenario {number}");
        return;
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
}

/// The mean of many decisions, each with new reports of all domains, against what it must be below, in µs.
fn cost(domains: u16, must: u128) -> String {
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
    format!("{took} µs for {domains} domains (must be below {must}{missed})")
}
