//! The command line of the simulator: campaigns, replays, the shrinker, the planted mistakes.
//!
//! Place in the flow: parses, calls the library, prints. Exit code 0: nothing was found; 1: something was; 2: the
//! command was wrong.

#![forbid(unsafe_code)]

use std::io::{stderr, stdout, Write as _};
use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, Subcommand};
use eyot_simulator::bugs::{named, CAN_PLANT};
use eyot_simulator::campaign::{campaign, note_seed, print_seeds_of_panics, progress_line, Digest, Notice};
use eyot_simulator::counts::Count;
use eyot_simulator::shrink::shrink;
use eyot_simulator::supervisor::{supervise, Mark};
use eyot_simulator::{run, Bug, Options, Plan};

/// Whole clusters in virtual time, with every fault a seed can think of.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

/// Which worlds a campaign runs, and how.
#[derive(Debug, clap::Args)]
struct Worlds {
    /// How many worlds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many threads, one world each.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// A mistake to plant in every world; `mutants --list` has the names.
    #[arg(long)]
    bug: Option<String>,
    /// Prints nothing but what was found.
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs many worlds until one goes wrong.
    Campaign(Worlds),
    /// The process that a campaign starts and watches: the same, and it says which worlds it runs.
    #[command(hide = true)]
    Work(Worlds),
    /// Runs one world again and prints its hash.
    Replay {
        /// Its seed.
        #[arg(long)]
        seed: u64,
        /// Prints everything that happened.
        #[arg(long)]
        trace: bool,
        /// Only these faults of its plan, by number: 0,3,5
        #[arg(long, value_delimiter = ',')]
        only: Option<Vec<usize>>,
        /// No fault at all.
        #[arg(long, conflicts_with = "only")]
        none: bool,
        /// A mistake to plant.
        #[arg(long)]
        bug: Option<String>,
    },
    /// Leaves faults out of a world that goes wrong, as long as it still does.
    Shrink {
        /// Its seed.
        #[arg(long)]
        seed: u64,
        /// A mistake to plant.
        #[arg(long)]
        bug: Option<String>,
    },
    /// Runs each world twice and compares the hashes.
    Twice {
        /// How many worlds.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Plants every mistake and says in which world it was found.
    Mutants {
        /// Worlds for each of them at most.
        #[arg(long, default_value_t = 100_000)]
        seeds: u64,
        /// Only this one.
        #[arg(long)]
        bug: Option<String>,
        /// Prints the names alone.
        #[arg(long)]
        list: bool,
    },
}

fn main() -> ExitCode {
    print_seeds_of_panics(Some(1));
    let result = match Arguments::parse().what {
        What::Campaign(worlds) => watch_campaign(&worlds),
        What::Work(worlds) => run_campaign(worlds),
        What::Replay { seed, trace, only, none, bug } => {
            replay(seed, trace, if none { Some(Vec::new()) } else { only }, bug)
        }
        What::Shrink { seed, bug } => shrink_world(seed, bug.as_deref()),
        What::Twice { seeds, from } => Ok(twice(seeds, from)),
        What::Mutants { seeds, bug, list } => mutants(seeds, bug, list),
    };
    result.unwrap_or_else(|problem| {
        eprintln!("{problem}");
        ExitCode::from(2)
    })
}

fn bug_of(name: Option<String>) -> Result<Option<Bug>, String> {
    let Some(name) = name else { return Ok(None) };
    if !CAN_PLANT {
        return Err(format!("cannot plant {name}: build with --features planted-bugs"));
    }
    named(&name).map(Some).ok_or_else(|| format!("there is no mistake called {name}; mutants --list has the names"))
}

/// Prints a line. Where nobody reads it, nothing is lost by that: what counts is the exit code.
fn say(line: &str) {
    if writeln!(stdout(), "{line}").is_err() {
        let _ = writeln!(stderr(), "{line}");
    }
}

/// A campaign in a process of its own, so that one that is killed still leaves its seeds behind.
fn watch_campaign(worlds: &Worlds) -> Result<ExitCode, String> {
    bug_of(worlds.bug.clone())?;
    let program = std::env::current_exe().map_err(|error| format!("cannot find the own program: {error}"))?;
    let mut command = Command::new(program);
    let numbers = [worlds.seeds, worlds.from, worlds.threads as u64].map(|number| number.to_string());
    let names = ["--seeds", "--from", "--threads"];
    command.arg("work").args(names.iter().zip(&numbers).flat_map(|(name, number)| [*name, number.as_str()]));
    command.args(worlds.bug.iter().flat_map(|bug| ["--bug", bug])).args(worlds.quiet.then_some("--quiet"));
    let code = supervise(command, say).map_err(|error| format!("cannot watch the own program: {error}"))?;
    Ok(ExitCode::from(code))
}

fn run_campaign(worlds: Worlds) -> Result<ExitCode, String> {
    let Worlds { seeds, from, threads, bug, quiet } = worlds;
    let options = Options { bug: bug_of(bug)?, with_lines: false };
    let outcome = campaign(from, seeds, threads, options, |notice| match notice {
        Notice::Begins(seed) => say(&Mark::Begins(seed).to_string()),
        Notice::Ended(seed) => say(&Mark::Ended(seed).to_string()),
        Notice::Sums(counts, elapsed) if !quiet => {
            let _ = writeln!(stderr(), "{}", progress_line(counts, elapsed));
        }
        Notice::Sums(..) => {}
    });
    if !quiet {
        say(&format!("seeds {from} to {}:\n{}", from.saturating_add(seeds - 1), outcome.counts));
        say(&format!("hash of all worlds: {:016x}", outcome.hash));
    }
    match outcome.found {
        None => Ok(ExitCode::SUCCESS),
        Some((seed, violation)) => {
            say(&format!("seed {seed}: {violation}\nsee it again with: replay --seed {seed} --trace"));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn replay(seed: u64, with_lines: bool, only: Option<Vec<usize>>, bug: Option<String>) -> Result<ExitCode, String> {
    let options = Options { bug: bug_of(bug)?, with_lines };
    let mut plan = Plan::of_seed(seed);
    if let Some(only) = only {
        plan = plan.with_only(&only);
    }
    println!(
        "seed {seed}: {} voters, {} groups, {} clients, {} keys, healed at {} ms",
        plan.voters,
        plan.groups,
        plan.clients,
        plan.keys,
        plan.healed_at / 1_000
    );
    for (number, item) in plan.items.iter().enumerate() {
        println!("  {number:>3}  {item}");
    }
    note_seed(seed);
    let report = run(plan, options);
    report.lines.iter().for_each(|line| println!("{line}"));
    println!("{}", report.counts);
    println!("hash {:016x} after {} steps", report.hash, report.counts.of(Count::Steps));
    let Some(violation) = report.violation else { return Ok(ExitCode::SUCCESS) };
    println!("{violation}");
    Ok(ExitCode::FAILURE)
}

/// Whether a world with only these faults goes wrong. Each is a process of its own: a broken assertion ends it.
fn fails(seed: u64, kept: &[usize], bug: Option<&str>) -> Result<bool, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find the own program: {error}"))?;
    let mut command = Command::new(program);
    command.args(["replay", "--seed", &seed.to_string()]);
    if kept.is_empty() {
        command.arg("--none");
    } else {
        let numbers: Vec<String> = kept.iter().map(ToString::to_string).collect();
        command.args(["--only", &numbers.join(",")]);
    }
    command.args(bug.iter().flat_map(|bug| ["--bug", bug])).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().map_err(|error| format!("cannot start the own program: {error}"))?;
    match status.code() {
        Some(0) => Ok(false),
        // A process that was killed, by whatever its world made of it, failed too.
        Some(1) | None => Ok(true),
        Some(code) => Err(format!("replay --seed {seed} ended with {code}, which is no result")),
    }
}

fn shrink_world(seed: u64, bug: Option<&str>) -> Result<ExitCode, String> {
    bug_of(bug.map(str::to_owned))?;
    let all: Vec<usize> = (0..Plan::of_seed(seed).items.len()).collect();
    if !fails(seed, &all, bug)? {
        println!("seed {seed} does not go wrong: there is nothing to shrink");
        return Ok(ExitCode::SUCCESS);
    }
    let mut problem = None;
    let (kept, runs) = shrink(&all, |kept| {
        fails(seed, kept, bug).unwrap_or_else(|error| {
            problem.get_or_insert(error);
            false
        })
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    println!("seed {seed}: {} of {} faults are enough, found in {runs} runs:", kept.len(), all.len());
    let plan = Plan::of_seed(seed);
    kept.iter().for_each(|number| println!("  {number:>3}  {}", plan.items[*number]));
    let numbers: Vec<String> = kept.iter().map(ToString::to_string).collect();
    let how = if kept.is_empty() { "--none".to_owned() } else { format!("--only {}", numbers.join(",")) };
    println!("see it again with: replay --seed {seed} {how} --trace");
    Ok(ExitCode::FAILURE)
}

fn twice(seeds: u64, from: u64) -> ExitCode {
    let mut digest = Digest::default();
    let mut different = Vec::new();
    let seeds_to_run = from..from.saturating_add(seeds);
    for seed in seeds_to_run.clone() {
        note_seed(seed);
        let hash = || run(Plan::of_seed(seed), Options::default()).hash;
        let first = hash();
        digest.add(first);
        if first != hash() {
            different.push(seed);
        }
    }
    say(&format!("{} of {seeds} seeds gave the same hash twice", seeds - different.len() as u64));
    say(&format!("digest of the seeds {} up to, without, {}: {:016x}", from, seeds_to_run.end, digest.0));
    if different.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!("others: {different:?}"));
    ExitCode::FAILURE
}

/// Each mistake is a process of its own: a broken assertion, which is one way to be found, ends it.
fn mutants(seeds: u64, only: Option<String>, list: bool) -> Result<ExitCode, String> {
    let all: Vec<Bug> = match bug_of(only)? {
        Some(bug) => vec![bug],
        None => Bug::ALL.to_vec(),
    };
    if list {
        all.iter().for_each(|bug| println!("{bug:?}"));
        return Ok(ExitCode::SUCCESS);
    }
    if !CAN_PLANT {
        return Err("cannot plant anything: build with --features planted-bugs".to_owned());
    }
    let program = std::env::current_exe().map_err(|error| format!("cannot find the own program: {error}"))?;
    let mut missed = 0;
    for bug in all {
        let mut command = Command::new(&program);
        command.args(["campaign", "--quiet", "--seeds", &seeds.to_string(), "--bug", &format!("{bug:?}")]);
        let output = command.output().map_err(|error| format!("cannot start the own program: {error}"))?;
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        let first = printed.lines().find(|line| line.starts_with("seed ")).unwrap_or("not found").to_owned();
        let panic = printed.lines().skip_while(|line| !line.contains("panicked at")).nth(1).unwrap_or_default();
        println!("{:<24} {first} {panic}", format!("{bug:?}"));
        match output.status.code() {
            Some(0) => missed += 1,
            Some(1) if first != "not found" => {}
            _ => return Err(format!("the search for {bug:?} ended with {} and no seed: {printed}", output.status)),
        }
    }
    println!("{missed} were missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
