//! The server's process: read the configuration, check the machine, run the node, end with a number.

use clap::Parser;
use eyot_server::config::{load_password, Config, Settings, PASSWORD_VARIABLE};
use eyot_server::error::Stop;
use eyot_server::memory::allocator::keep_huge_pages_whole;
use eyot_server::{logging, node, preflight};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    keep_huge_pages_whole();
    let config = Config::parse();
    if let Err(stop) = run(&config) {
        stop.end_process();
    }
}

fn run(config: &Config) -> Result<(), Stop> {
    logging::set_up(config.log_format, &config.log_level)?;
    let allowed = preflight::allowed_processors()?;
    let resolved = Settings::resolve(config, &allowed, preflight::memory_total_bytes())?;
    let password = load_password(config, std::env::var_os(PASSWORD_VARIABLE))?;
    let settings = Settings { password, ..resolved };
    if config.preflight {
        return report_preflight(&settings);
    }
    node::run(settings)
}

/// Prints every check; fails with the first that did.
fn report_preflight(settings: &Settings) -> Result<(), Stop> {
    let mut first_failure = None;
    for check in preflight::run(settings) {
        match check.outcome {
            Ok(found) => println!("ok    {}: {found}", check.name),
            Err(stop) => {
                println!("FAIL  {}: {stop}", check.name);
                first_failure.get_or_insert(stop);
            }
        }
    }
    first_failure.map_or(Ok(()), Err)
}
